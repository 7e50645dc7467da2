"""requirements.txt bounds every package on both sides, and tests/constraints.txt pins each within those bounds."""

import ast
import importlib.metadata
import re
import sys

import nbformat
import pytest
from packaging.requirements import Requirement

from helpers.data import REPOSITORY


def lines(name: str) -> list[str]:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


REQUIREMENTS = [Requirement(line) for line in lines("requirements.txt")]
PINS = dict(line.split("==") for line in lines("tests/constraints.txt"))


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_requirement_is_bounded_pinned_and_installed(requirement):
    operators = sorted(part.operator for part in requirement.specifier)
    assert operators == ["<", ">="]
    assert PINS[requirement.name] in requirement.specifier
    assert importlib.metadata.version(requirement.name) in requirement.specifier


def test_torchvision_stands_before_torch():
    """It names the one torch release it matches: the other way round, pip may fetch a torch it has to drop again."""
    names = [requirement.name for requirement in REQUIREMENTS]
    assert names.index("torchvision") < names.index("torch")


def imported(source: str) -> set[str]:
    """Top-level packages that a source imports; lines of Jupyter's own (!git, %cd) are passed over."""
    source = re.sub(r"^( *)[!%].*$", r"\1pass", source, flags=re.M)
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names


def test_every_import_of_the_project_is_a_requirement():
    found = set()
    for path in (path for folder in ("helpers", "tests", "benchmarks") for path in REPOSITORY.glob(f"{folder}/*.py")):
        found |= imported(path.read_text(encoding="utf-8"))
    for path in REPOSITORY.glob("[0-9]_*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        found |= set().union(*(imported(cell.source) for cell in cells if cell.cell_type == "code"))
    third_party = found - set(sys.stdlib_module_names) - {"helpers", "benchmarks", "tests", "run", "conftest"}
    known = {requirement.name for requirement in REQUIREMENTS} | {"sklearn"}  # from scikit-learn
    brought = {"nbformat", "packaging", "PIL", "psutil", "urllib3", "yaml"}  # by papermill, pytest, torchvision, ...
    assert third_party - brought <= known
    assert {"numpy", "torch", "keras", "sklearn", "scipy", "tqdm"} <= third_party
