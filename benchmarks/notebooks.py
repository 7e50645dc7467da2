"""A model and its optimizer as a PyTorch notebook makes them, from the notebook's own cells."""

from __future__ import annotations

import contextlib
import io
import re
from types import SimpleNamespace

import nbformat
import torch
from torch import nn

from helpers import data, muon, results, training

CNN, RESNET = "2_Model_Training_CNN.ipynb", "3_Model_Training_ResNet.ipynb"


def build(notebook: str, profile: str, device: torch.device, precision: torch.dtype, steps: int = 100) -> dict:
    """What the notebook's cells leave behind that hold parameters, define a class or make the optimizer.

    By name: the parameters' values for `profile`, `model` (with its first weights), `optimizer` and `schedule`.
    steps: of an epoch, for the schedule.
    """
    cells = nbformat.read(data.REPOSITORY / notebook, as_version=4).cells
    first, *code = [cell.source for cell in cells if cell.cell_type == "code"]
    values: dict = {}
    exec(first, values)
    values = {name: results.for_profile(profile, value) for name, value in values.items() if name.isupper()}
    resolution = values.get("RESOLUTION", 32)
    scope = {
        "torch": torch, "nn": nn, "F": nn.functional, "muon": muon, "training": training,
        "device": device, "precision": precision,
        "cifar": SimpleNamespace(class_names=data.CLASS_NAMES), "train": range(steps),
        "side": resolution if isinstance(resolution, int) else resolution[-1],
    } | values  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        for source in code:
            if re.search(r"^class |^ *optimizer = ", source, re.MULTILINE):
                exec(source, scope)
    return scope
