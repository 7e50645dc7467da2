"""The training loop of both PyTorch notebooks: device, precision, progress, checkpoints and exact resume.

history = fit(model, train, validation, optimizer=optimizer, schedule=schedule, epochs=10, checkpoint=path)
logits, labels = predict(model, test)
"""

from __future__ import annotations

import ast
import contextlib
import copy
import hashlib
import inspect
import json
import os
import platform
import random
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from helpers.batches import Batches
from helpers.data import REPOSITORY, InputError, relative


class CheckpointError(InputError):
    """A checkpoint is damaged, or belongs to another model or run."""


# ------------------------------------------------------------------------------- device and precision


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" gives CUDA, else Apple's MPS, else the CPU; any other name is taken as it is.

    Raises InputError for a device that is not here.
    """
    here = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name == "auto":
        return torch.device(here[0])
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in here or (number and not (number.isdigit() and int(number) < count)):
        raise InputError(f'DEVICE is "{name}", and this machine has {", ".join(here)}: use one of these or "auto".')
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """The device in words, for prints and records: "NVIDIA H100" or "CPU, 2 threads, AVX512"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"{device.type.upper()}, {platform.machine()}"


def choose_precision(device: torch.device) -> torch.dtype:
    """The type for autocast: bfloat16 where the hardware has it, float16 on older CUDA, float32 otherwise.

    On a CPU that is AVX-512 BF16 or AMX. (PyTorch runs bfloat16 on every CPU, at a third of float32's speed where the
    instructions are missing.)
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # absent from some builds: then float32
        return torch.bfloat16 if any(getattr(torch.cpu, name, bool)() for name in asked) else torch.float32
    return torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context in which a forward pass runs in `precision`; weights stay float32."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def matmul_flops(device: torch.device, precision: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product: the yardstick for estimates and utilisation."""
    n = 1024 if device.type == "cpu" else 4096
    a = torch.ones(n, n, device=device, dtype=precision)

    def product():
        (a @ a)[0, 0].item()  # .item() waits for the device

    return 2 * n**3 / min(_clock(product) for _ in range(8))


def _clock(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# ------------------------------------------------------------------------------------------ the loop


def fit(
    model: nn.Module,
    train: Batches,
    validation: Batches | None = None,
    *,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    epochs: int,
    loss_function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = nn.functional.cross_entropy,
    precision: torch.dtype | None = None,
    checkpoint: Path | None = None,
    settings: dict | None = None,
    after_epoch: Callable[[dict], None] | None = None,
) -> pd.DataFrame:
    """Train `model` for `epochs` passes over `train`; the history has one row an epoch.

    schedule: stepped after every step of the optimizer, not every epoch.
    precision: the type for autocast; None asks `choose_precision`. float16 scales the loss (GradScaler).
    checkpoint: a file to which each finished epoch is saved; if it exists, training carries on from it and ends with
        the weights, bit for bit on the CPU with as many threads, that an uninterrupted run gives.
    settings: plain values that a checkpoint must share, else it is refused (the hyperparameters, say).
    after_epoch: called with each row of the history.

    Columns: epoch (from 1), resolution (pixels), train_loss (nats, as optimised), train_accuracy (on augmented
    images, during the epoch), learning_rate (at its end), seconds (of training, without validation), and
    validation_loss, validation_accuracy where `validation` is given; attrs["resumed"] tells of a resume.
    Raises InputError for epochs < 1 or a loss that is no longer finite, CheckpointError for one that does not fit.
    """
    if epochs < 1:
        raise InputError(f"EPOCHS is {epochs}: expected at least 1 pass over the training set.")
    device = train.device
    precision = precision or choose_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    state = {"model": model, "optimizer": optimizer, "scaler": scaler}
    if schedule is not None:
        state["schedule"] = schedule
    settings = {**(settings or {}), "epochs": epochs, "steps": len(train), "precision": str(precision),
                "optimizer": _kind(optimizer), "schedule": type(schedule).__name__}  # fmt: skip
    history = _resume(checkpoint, state, settings) if checkpoint else []
    resumed = bool(history)
    if len(history) < epochs:
        _print_estimate(model, train, validation, precision, range(len(history), epochs))
    bar = tqdm(
        total=epochs * len(train), initial=len(history) * len(train), unit="step", file=sys.stdout, ncols=110,
        mininterval=0.5, disable=len(history) == epochs,
    )  # fmt: skip
    try:
        for epoch in range(len(history), epochs):
            bar.set_description(f"epoch {epoch + 1}/{epochs}")
            train.epoch = epoch  # order and augmentation follow from the seed and the epoch
            row = {"epoch": epoch + 1, "resolution": train.resolution}
            start = time.perf_counter()
            loss, correct = _train_epoch(model, train, optimizer, schedule, loss_function, precision, scaler, bar)
            row |= {"train_loss": loss, "train_accuracy": correct, "learning_rate": optimizer.param_groups[0]["lr"]}
            row["seconds"] = time.perf_counter() - start
            if not np.isfinite(loss):
                raise InputError(f"the training loss is {loss} in epoch {epoch + 1}: try a lower LEARNING_RATE.")
            if validation is not None:
                validation.epoch = epoch
                row |= _validate(model, validation, precision)
                bar.set_postfix_str(f"validation {row['validation_accuracy']:.1%}")
            history.append(row)
            if checkpoint:
                _save(checkpoint, state, settings, history)
            if after_epoch:
                after_epoch(row)
    except KeyboardInterrupt:
        saved = f"{len(history)} of {epochs} epochs are saved; " if checkpoint and checkpoint.exists() else ""
        raise KeyboardInterrupt(f"training stopped in epoch {len(history) + 1}: {saved}run again to carry on") from None
    finally:
        bar.close()
    table = pd.DataFrame(history)
    table.attrs["resumed"] = resumed
    return table


def _train_epoch(model, train, optimizer, schedule, loss_function, precision, scaler, bar) -> tuple[float, float]:
    """One pass; returns mean loss and accuracy. Sums stay on the device: reading them would wait for every step."""
    model.train()
    loss_sum = torch.zeros((), device=train.device)
    correct = torch.zeros((), device=train.device, dtype=torch.int64)
    for x, y in train:
        with autocast(train.device, precision):
            logits = model(x)
            loss = loss_function(logits.float(), y)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if schedule is not None:
            schedule.step()
        loss_sum += loss.detach() * len(y)
        correct += (logits.detach().argmax(1) == y).sum()
        bar.update(1)
    return loss_sum.item() / train.images, correct.item() / train.images


def predict(
    model: nn.Module, batches: Batches, precision: torch.dtype | None = None, *, progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, classes) float32 and labels (n,) int64 of every image, in order, in evaluation mode.

    progress: show a bar if it takes over two seconds.
    """
    precision = precision or choose_precision(batches.device)
    was_training = model.training
    model.eval()
    logits, labels = [], []
    with torch.no_grad(), autocast(batches.device, precision):
        for x, y in tqdm(batches, unit="batch", file=sys.stdout, ncols=80, delay=2, leave=False, disable=not progress):
            logits.append(model(x).float())
            labels.append(y)
    model.train(was_training)
    return torch.cat(logits).cpu().numpy(), torch.cat(labels).cpu().numpy()


def _validate(model: nn.Module, validation: Batches, precision: torch.dtype) -> dict:
    logits, labels = map(torch.from_numpy, predict(model, validation, precision, progress=False))
    return {
        "validation_loss": nn.functional.cross_entropy(logits, labels).item(),
        "validation_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }


def _print_estimate(model, train, validation, precision, epochs: range) -> None:
    """Time three steps on a copy of the model, and say how long `epochs` will take if that is over two seconds."""
    train.epoch = epochs.start
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            twin = copy.deepcopy(model).train()
        except RuntimeError:  # the model holds tensors of an earlier pass, in hooks say: no estimate then
            return
        x, y = next(iter(train))

        def step():
            with autocast(train.device, precision):
                loss = nn.functional.cross_entropy(twin(x).float(), y)
            loss.backward()
            loss.item()

        step()
        image = min(_clock(step) for _ in range(3)) / len(y)
    pixels = 0
    for epoch in epochs:
        train.epoch = epoch
        pixels += train.images * train.resolution**2
        if validation is not None:
            validation.epoch = epoch
            pixels += validation.images * validation.resolution**2 / 3  # a forward pass is a third of a step
    seconds = image * pixels / x.shape[-1] ** 2
    if seconds > 2:
        name = str(precision).removeprefix("torch.")
        print(f"About {duration(seconds)} for {len(epochs)} epochs of {len(train)} steps ({train.device}, {name}).")


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s" or "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


# --------------------------------------------------------------------------------------- checkpoints


def architecture(model: nn.Module) -> str:
    """Eight hexadecimal digits that change with the model: its layers, its shapes, and the code of its own classes
    (those written in the notebook; comments and layout do not count)."""
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    sources = []
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        if kind.__module__ == "__main__":
            with contextlib.suppress(OSError, TypeError, SyntaxError):  # typed at a bare prompt: no source
                sources.append(ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(kind)))))
    content = json.dumps([repr(model), shapes, sources])
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def checkpoint_path(name: str, model: nn.Module, settings: dict) -> Path:
    """runs/checkpoints/<name>-<hash>.pt: another model or other settings get another file, so they start afresh."""
    content = json.dumps([architecture(model), settings], sort_keys=True, default=str)
    return REPOSITORY / "runs" / "checkpoints" / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.pt"


def forget(checkpoint: Path) -> None:
    """Delete a finished run's checkpoint, so that the next run starts afresh."""
    for path in (checkpoint, _previous(checkpoint), *checkpoint.parent.glob(f"{checkpoint.stem}.*.part")):
        path.unlink(missing_ok=True)


def _previous(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".previous" + checkpoint.suffix)


def _save(checkpoint: Path, state: dict, settings: dict, history: list[dict]) -> None:
    """Write beside the file and move into place; a full disk or read-only folder costs the checkpoint, not the run."""
    content = {key: part.state_dict() for key, part in state.items()}
    content |= {"settings": settings, "history": history, "random": _random_state()}
    part = checkpoint.with_suffix(f".{os.getpid()}.part")
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if checkpoint.exists():
            os.replace(checkpoint, _previous(checkpoint))
        os.replace(part, checkpoint)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        cause = getattr(error, "strerror", None) or _first_line(error)
        print(f"\nEpoch {len(history)} was not saved ({cause}, {relative(checkpoint)}); training goes on without it.")


def _resume(checkpoint: Path, state: dict, settings: dict) -> list[dict]:
    """Load the checkpoint, or the one before it where it is damaged; save the start where there is none."""
    damaged = []
    for path in (checkpoint, _previous(checkpoint)):
        if not path.exists():
            continue
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            missing = {"model", "optimizer", "scaler", "settings", "history", "random"} - saved.keys()
            if missing:
                raise KeyError(f"no {', '.join(sorted(missing))}")
        except Exception as error:  # a file cut short can fail anywhere in the reader
            damaged.append(f"{path.name}: {_first_line(error)[:90]}")
            continue
        _check(path, saved, state, settings)
        for key, part in state.items():
            part.load_state_dict(saved[key])
        _set_random_state(saved["random"])
        if damaged:
            print(f"The last checkpoint is damaged ({damaged[0]}); the one before it is used.")
        done = len(saved["history"])
        print(
            f"Resumed from {relative(path)}: {done} of {settings['epochs']} epochs are done. Delete it to start afresh."
        )
        return saved["history"]
    if damaged:
        raise CheckpointError(
            f"{relative(checkpoint)} cannot be read, it may have been cut short ({'; '.join(damaged)}). "
            "Delete it to start afresh."
        )
    _save(checkpoint, state, settings, [])
    return []


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _check(path: Path, saved: dict, state: dict, settings: dict) -> None:
    """Raise CheckpointError, before anything is loaded, if the checkpoint is another model's or another run's."""
    here = {key: tuple(value.shape) for key, value in state["model"].state_dict().items()}
    there = {key: tuple(value.shape) for key, value in saved["model"].items()}
    for key in [*here, *there]:
        if here.get(key) != there.get(key):
            raise CheckpointError(
                f"{relative(path)} is from another model: {key} is {there.get(key, 'absent')} there and "
                f"{here.get(key, 'absent')} here. Delete it, or name another checkpoint, to start afresh."
            )
    for key in [*settings, *saved["settings"]]:
        if settings.get(key) != saved["settings"].get(key):
            raise CheckpointError(
                f"{relative(path)} is from another run: {key} is {saved['settings'].get(key)} there and "
                f"{settings.get(key)} here. Delete it, or name another checkpoint, to start afresh."
            )


def _kind(optimizer: torch.optim.Optimizer) -> str:
    """ "SGD of 62 tensors": what must agree for an optimizer's state to be loaded."""
    return f"{type(optimizer).__name__} of {' + '.join(str(len(g['params'])) for g in optimizer.param_groups)} tensors"


def _random_state() -> dict:
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": random.getstate(),
    }


def _set_random_state(saved: dict) -> None:
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and len(saved["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(saved["cuda"])
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    random.setstate(saved["python"])


# -------------------------------------------------------------------------------------------- weights


def save_weights(model: nn.Module, path: Path) -> Path:
    """Write the model's parameters and buffers to a safetensors file, floating-point ones in float16; gives `path`.

    Raises InputError for a value that float16 cannot hold (beyond 65,504, or not finite).
    """
    tensors = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        tensors[name] = value.half() if value.is_floating_point() else value
        if not tensors[name].isfinite().all():
            raise InputError(f"{name} goes up to {value.abs().max():.4g}: expected values that float16 can hold.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file(tensors, part)
    os.replace(part, path)
    return path


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of `save_weights` into a model of the same architecture; its own precision is kept.

    Nothing in the file is executed. Raises InputError for a file that is missing, damaged or another model's.
    """
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{relative(path)} does not fit this model: {reason[:300]}") from None


# ------------------------------------------------------------------------------------------- counting


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def forward_flops(model: nn.Module, resolution: int = 32) -> int:
    """Floating-point operations of one image's forward pass, convolutions and products (2 per multiply-add)."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    was_training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, resolution, resolution, device=device))
    model.train(was_training)
    return counter.get_total_flops()
