"""Fixtures of all tests: a small stand-in, the real data where it is at hand, and an output folder that is not ours."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

from helpers import data

matplotlib.use("Agg")  # no window, no display needed


@pytest.fixture(autouse=True)
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test writes its figures and records below its own temporary folder, never into the repository's."""
    folder = tmp_path / "output"
    monkeypatch.setenv("CIFAR10_OUTPUT", str(folder))
    return folder


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
