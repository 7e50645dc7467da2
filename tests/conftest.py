"""Shared by the tests: a small stand-in, the real data where it is at hand, folders that are not ours, runs made up."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from helpers import cells, data, files, metrics, profiles, records, report, tables

matplotlib.use("Agg")  # no window, no display needed

LABELS = np.random.default_rng(0).integers(0, 10, 500)
LOGITS = np.random.default_rng(1).normal(0, 1, (500, 10)) + 2 * np.eye(10)[LABELS]
SCORES = metrics.summary(LOGITS, LABELS, data.CLASS_NAMES)  # neither perfect nor chance
HISTORY = pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.5], "seconds": [30.5, 29.5]})


@pytest.fixture(autouse=True)
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test writes its figures and records below its own temporary folder, never into the repository's.

    No notebook is open, and none has begun a run.
    """
    monkeypatch.setattr(cells, "namespace", {})
    monkeypatch.setattr(profiles, "_settled", {})
    monkeypatch.setattr(records, "_begun", {})
    folder = tmp_path.resolve() / "output"
    monkeypatch.setenv("CIFAR10_OUTPUT", str(folder))
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that files and records take for the repository; outputs go there."""
    folder = tmp_path.resolve() / "repository"
    monkeypatch.delenv("CIFAR10_OUTPUT")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    monkeypatch.setitem(records.MODELS, "my_own", "my_own")  # a fourth model
    for module in (files, records, report, tables):
        monkeypatch.setattr(module, "REPOSITORY", folder)
    return folder


def named(name: str) -> data.Cifar10:
    """Ten black images called "CIFAR-10", "CIFAR-10 (altered)", "own images" or "stand-in"."""
    images, labels = np.zeros((10, 32, 32, 3), np.uint8), np.arange(10)
    classes = tuple("abcdefghij") if name == "own images" else data.CLASS_NAMES
    fingerprint = data.OFFICIAL if name == "CIFAR-10" else "sha256:0123"
    if name == "stand-in":
        fingerprint, classes = f"{name}:0123", tuple(f"stand-in {k}" for k in range(10))
    return data.Cifar10(images, labels, images, labels, classes, fingerprint, "a test")


def begin(model="custom_cnn", profile="full", seed=0, name="CIFAR-10", architecture="aaaa1111", **parameters) -> dict:
    """A run that has begun, as in a notebook."""
    hyperparameters = {"EPOCHS": 2, "LEARNING_RATE": 0.1, "SEED": seed} | parameters
    run = records.begin(model, "2_Model_Training_CNN.ipynb", profile, seed, hyperparameters, named(name))
    return run | {"architecture": architecture}


def end(run: dict, accuracy: float = 0.5, history: pd.DataFrame | None = None, **measured) -> Path:
    """... and its record, with this accuracy of 10,000 images."""
    interval = list(metrics.accuracy_interval(round(accuracy * 10_000), 10_000))
    test = SCORES | {"accuracy": accuracy, "images": 10_000, "accuracy_interval_95": interval}
    known = {"device": "cpu", "precision": "float32", "parameter_count": 1_234_567, "forward_flops": 89_000_000}
    if history is None:  # as many epochs as it should have
        history = HISTORY.iloc[[epoch % 2 for epoch in range(run["hyperparameters"]["EPOCHS"])]]
    return records.write(run, history=history, test=test, **known | measured)


@pytest.fixture(scope="session")
def small() -> data.Cifar10:
    """A stand-in of 4,000 + 1,000 images."""
    return data.stand_in(4_000, 1_000)


@pytest.fixture(scope="session")
def cifar() -> data.Cifar10:
    """The real CIFAR-10 from this machine, else the test is skipped; nothing is ever downloaded."""
    try:
        found = data.load_cifar10(download=False)
    except data.DataError as error:
        pytest.skip(f"needs CIFAR-10 (set CIFAR10_ROOT to the folder that holds it): {str(error).splitlines()[0]}")
    if found.is_stand_in:
        pytest.skip("needs CIFAR-10, and CIFAR10_ROOT asks for the stand-in")
    return found


@pytest.fixture(scope="module")
def one_thread():
    """Networks as small as these are slower on many threads, above all beside other programs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without CIFAR-10: every usual place lies below an empty temporary folder, which is returned."""
    home, working = tmp_path / "home", tmp_path / "working"
    home.mkdir()
    working.mkdir()
    for name in ("CIFAR10_ROOT", "CIFAR10_URL", "TORCH_HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "shared"))
    monkeypatch.setattr(data, "REPOSITORY", tmp_path / "repository")
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(working)
    return tmp_path
