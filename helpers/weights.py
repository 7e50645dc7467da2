"""A network from outside: its weights in a file that runs no code, its size, its work, what tells it from others."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from helpers.files import InputError, relative

if TYPE_CHECKING:  # notebook 1 saves Keras's weights without PyTorch
    from torch import nn

NOTEBOOK_MODULES = ("__main__", "helpers.models")  # where a notebook's own classes stand


def packed(model: nn.Module) -> bytes:
    """A network's parameters and buffers as the content of a safetensors file, floating-point ones in float16.

    Raises InputError for a value that float16 cannot hold (beyond 65,504, or not finite).
    """
    return packed_arrays({name: value.detach().cpu().numpy() for name, value in model.state_dict().items()})


def packed_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """`packed` for named arrays of any library, Keras say."""
    tensors = {}
    for name, value in arrays.items():
        with np.errstate(over="ignore"):
            half = value.astype(np.float16) if np.issubdtype(value.dtype, np.floating) else value
        if not np.isfinite(half).all():
            raise InputError(f"{name} goes up to {abs(value).max():.4g}: expected values that float16 can hold.")
        tensors[name] = np.array(half, order="C")
    return save(tensors)


def load(model: nn.Module, path: Path) -> None:
    """Put the weights of `packed`, in a file, into a network of the same architecture; its own precision is kept.

    Nothing in the file is executed. Raises InputError for a file that is missing, damaged or another model's.
    """
    import torch

    try:
        model.load_state_dict({name: torch.from_numpy(value) for name, value in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{relative(path)} does not fit this model: {reason[:300]}") from None


def architecture(model: nn.Module) -> str:
    """Eight hexadecimal digits that change with the model: its layers, its shapes, and the methods of its own classes
    (those written in the notebook; comments and layout do not count)."""
    return description(model)["architecture"]


def description(model: nn.Module) -> dict:
    """`architecture`, and what it stands for in words: "layers", the lines of the model in print and of its methods."""
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    sources = []
    own = [kind for kind in dict.fromkeys(map(type, model.modules())) if kind.__module__ in NOTEBOOK_MODULES]
    for function in (f for kind in own for f in vars(kind).values() if inspect.isfunction(f)):
        with contextlib.suppress(OSError):  # no source at a bare prompt, nor of whole classes in Jupyter
            source = textwrap.indent(inspect.getsource(function), " ")  # not dedent: a comment may begin at the margin
            sources.append(ast.unparse(ast.parse(f"if 1:\n{source}").body[0].body))
    digits = hashlib.sha256(json.dumps([repr(model), shapes, sources]).encode()).hexdigest()[:8]
    return {"architecture": digits, "layers": "\n".join([repr(model), *sources]).splitlines()}


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def forward_flops(model: nn.Module, resolution: int = 32) -> int:
    """Floating-point operations of one image's forward pass, convolutions and products (2 per multiply-add)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    was_training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, resolution, resolution, device=device))
    model.train(was_training)
    return counter.get_total_flops()
