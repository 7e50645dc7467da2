"""A model and its optimizer as a notebook makes them, from the notebook's own cells."""

import contextlib
import io
import re
from types import SimpleNamespace

import nbformat
import torch
from torch import nn

from helpers import data, models, muon, weights
from helpers.files import REPOSITORY
from helpers.profiles import settle

CPU = torch.device("cpu")
CNN, RESNET = "2_Model_Training_CNN.ipynb", "3_Model_Training_ResNet.ipynb"


def read(notebook: str, profile: str, wanted: str) -> tuple[dict, list[str]]:
    """The parameters for `profile`, with `hyperparameters`, and the code cells that match the pattern `wanted`."""
    cells = nbformat.read(REPOSITORY / notebook, as_version=4).cells
    first, *code = [cell.source for cell in cells if cell.cell_type == "code"]
    exec(first, scope := {})
    scope["PROFILE"] = profile
    scope["hyperparameters"] = settle(scope, gpu=False)
    return scope, [source for source in code if re.search(wanted, source, re.MULTILINE)]


def build(notebook: str, profile: str, device=CPU, precision=torch.float32, steps: int = 100) -> dict:
    """What the cells of notebook 2 or 3 that make the model and the optimizer leave behind, by name: the parameters,
    `hyperparameters`, `model` (with its first weights), `parameters`, `flops`, `optimizer`, `schedule` (for an epoch of
    so many `steps`), `side` (pixels), ..."""
    scope, code = read(notebook, profile, r"^(model|optimizer| +optimizer) = ")
    sides = scope.get("RESOLUTION", 32)
    scope |= {
        "torch": torch, "nn": nn, "muon": muon, "weights": weights, "device": device, "precision": precision,
        "run": {}, "records": SimpleNamespace(built=lambda run, **architecture: None),
        "CustomCNN": models.CustomCNN, "ResNet": models.ResNet, "side": sides if isinstance(sides, int) else sides[-1],
        "cifar": SimpleNamespace(class_names=data.CLASS_NAMES), "train": range(steps),
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        for source in code:
            exec(source, scope)
    return scope
