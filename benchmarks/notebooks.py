"""A model as its notebook builds it, from the notebook's own cells."""

from __future__ import annotations

import contextlib
import io

import nbformat
import torch
from torch import nn

from helpers import data, results, training


def notebook_model(notebook: str, profile: str, device: torch.device, **scope) -> tuple[nn.Module, dict]:
    """The `model` of a PyTorch notebook, untrained, and the values of its parameters cell for `profile`.

    scope: what the cells of the model use besides (`cifar` for the number of classes, `side` in notebook 3).
    """
    cells = nbformat.read(data.REPOSITORY / notebook, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    parameters: dict = {}
    exec(code[0], parameters)
    parameters = {name: results.for_profile(profile, value) for name, value in parameters.items() if name.isupper()}
    scope = {"torch": torch, "nn": nn, "F": nn.functional, "training": training, "device": device} | scope | parameters
    for source in code:
        if source.lstrip().startswith("class ") and "model" not in scope:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(source, scope)
    return scope["model"], parameters
