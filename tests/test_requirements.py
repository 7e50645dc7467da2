"""requirements.txt bounds every package on both sides, and tests/constraints.txt pins each within those bounds."""

import ast
import importlib.metadata
import re
import sys

import nbformat
import pytest
from packaging.requirements import Requirement

from helpers.files import REPOSITORY


def lines(name: str) -> list[str]:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


REQUIREMENTS = [Requirement(line) for line in lines("requirements.txt")]
MORE = ("further/requirements.txt", "further/requirements-sweep.txt")
FURTHER = [Requirement(line) for name in MORE for line in lines(name)]
NAMES = [requirement.name for requirement in REQUIREMENTS]
FURTHER_NAMES = [requirement.name for requirement in FURTHER]
PINS = dict(line.split("==") for line in lines("tests/constraints.txt"))
BROUGHT = {"starlette", "IPython", "PIL", "h5py", "jupyter_client", "nbclient", "nbformat", "packaging", "psutil",
           "traitlets", "triton", "yaml"}  # fmt: skip


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=NAMES)
def test_requirement_is_bounded_pinned_and_installed(requirement):
    assert sorted(part.operator for part in requirement.specifier) == ["<", ">="]
    assert PINS[requirement.name] in requirement.specifier
    assert importlib.metadata.version(requirement.name) in requirement.specifier


@pytest.mark.parametrize("requirement", FURTHER, ids=FURTHER_NAMES)
def test_requirement_of_what_comes_after_is_bounded_and_pinned(requirement):
    assert sorted(part.operator for part in requirement.specifier) == ["<", ">="]
    assert PINS[requirement.name] in requirement.specifier


def test_torchvision_stands_before_torch():
    """It names the one torch release it matches: the other way round, pip may fetch a torch it has to drop again."""
    assert NAMES.index("torchvision") < NAMES.index("torch")


def imported(*places: str) -> set[str]:
    """The packages that Python files and notebooks import, without Python's own and ours."""
    sources = [path.read_text(encoding="utf-8") for place in places for path in REPOSITORY.glob(f"{place}.py")]
    for path in (path for place in places for path in REPOSITORY.glob(f"{place}.ipynb")):
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        sources += [re.sub(r"^( *)[!%].*$", r"\1pass", cell, flags=re.M) for cell in cells]  # lines of Jupyter's own
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    found = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    own = {"helpers", "further", "benchmarks", "tests", "run", *(path.stem for path in REPOSITORY.glob("tests/*.py"))}
    return found - set(sys.stdlib_module_names) - own - BROUGHT


def test_every_import_of_the_project_is_a_requirement():
    third_party = imported("helpers/*", "tests/*", "[0-9]_*")
    assert {"numpy", "torch", "keras", "sklearn", "scipy", "tqdm", "pooch"} <= third_party
    assert third_party <= {*NAMES, "sklearn", "benchmarks", "playwright"}
    assert imported("further/*", "benchmarks/*") <= {*NAMES, *FURTHER_NAMES, "sklearn", "skimage", "playwright"}
