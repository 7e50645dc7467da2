"""Every epoch on the disk, so that a run that was stopped, by whatever, ends with the weights of one left alone.

A checkpoint is written beside its file and moved into place; it holds the model, the optimizer, the schedule, the loss
scale, the history, PyTorch's random state, and the settings that another run must share to carry on from it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import nn

from helpers.files import REPOSITORY, InputError, count, first_line, relative, replacing
from helpers.weights import architecture


class CheckpointError(InputError):
    """A checkpoint is damaged, or belongs to another model or run."""


def checkpoint_path(name: str, model: nn.Module, settings: dict) -> Path:
    """runs/checkpoints/<name>-<hash>.pt: another model or other settings have another file, so they start afresh."""
    content = json.dumps([architecture(model), settings], sort_keys=True, default=str)
    return REPOSITORY / "runs" / "checkpoints" / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.pt"


def forget(checkpoint: Path) -> None:
    """Delete a finished run's checkpoint, so that the next run starts afresh."""
    for path in (checkpoint, *checkpoint.parent.glob(f"{checkpoint.name}.*.part")):
        path.unlink(missing_ok=True)


def save(checkpoint: Path, state: dict, settings: dict, history: list[dict]) -> bool:
    """Write `state` (name -> what has a state_dict), completely or not at all, and say whether it is there.

    A full disk or a read-only folder costs the checkpoint, not the run: it is said in a line.
    """
    content = {name: part.state_dict() for name, part in state.items()}
    content |= {"settings": settings, "history": history, "random": torch.get_rng_state()}
    try:
        with replacing(checkpoint) as part:
            torch.save(content, part)
        return True
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        why = f"{first_line(error)}, {relative(checkpoint)}"
        what = f"Epoch {len(history)}" if history else "The start"
        print(f"\n{what} was not saved ({why}); training goes on without it.")
        return False


def resume(checkpoint: Path, state: dict, settings: dict) -> list[dict]:
    """Load `state` from the checkpoint, if there is one, and give the history up to it; else save the start.

    Raises CheckpointError, before anything is loaded, for a file that is damaged, another model's or another run's.
    """
    if not checkpoint.exists():
        save(checkpoint, state, settings, [])
        return []
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        missing = [name for name in ("model", "settings", "history", "random") if name not in saved]
        if missing:
            raise KeyError(f"no {', '.join(missing)} in it")
    except Exception as error:  # a file cut short can fail anywhere in the reader
        raise CheckpointError(f"{relative(checkpoint)} cannot be read ({first_line(error)[:90]}), it may have been cut "
                              "short. Delete it to start afresh.") from None  # fmt: skip
    _check(checkpoint, saved, state, settings)
    for name, part in state.items():
        part.load_state_dict(saved[name])
    torch.set_rng_state(saved["random"])
    if saved["history"]:
        done = f"{len(saved['history'])} of {count(settings['epochs'], 'epoch')}"
        print(f"Resumed: {done} are done. To start afresh, delete")
        print(relative(checkpoint))
    return saved["history"]


def _check(path: Path, saved: dict, state: dict, settings: dict) -> None:
    """Raise CheckpointError if shapes of the model or settings of the run are not those of the checkpoint."""
    here, there = ({key: tuple(value.shape) for key, value in weights.items()}
                   for weights in (state["model"].state_dict(), saved["model"]))  # fmt: skip
    for what, ours, theirs in (("model", here, there), ("run", settings, saved["settings"])):
        for key in [*ours, *theirs]:
            if ours.get(key) != theirs.get(key):
                raise CheckpointError(
                    f"{relative(path)} is from another {what}: {key} is {theirs.get(key, 'absent')} there and "
                    f"{ours.get(key, 'absent')} here. Delete it, or name another checkpoint, to start afresh."
                )
