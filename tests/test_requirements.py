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
NAMES = [requirement.name for requirement in REQUIREMENTS]
PINS = dict(line.split("==") for line in lines("tests/constraints.txt"))
BROUGHT = {
    "IPython",
    "PIL",
    "h5py",
    "jupyter_client",
    "nbclient",
    "nbformat",
    "packaging",
    "psutil",
    "traitlets",
    "yaml",
}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=NAMES)
def test_requirement_is_bounded_pinned_and_installed(requirement):
    assert sorted(part.operator for part in requirement.specifier) == ["<", ">="]
    assert PINS[requirement.name] in requirement.specifier
    assert importlib.metadata.version(requirement.name) in requirement.specifier


def test_torchvision_stands_before_torch():
    """It names the one torch release it matches: the other way round, pip may fetch a torch it has to drop again."""
    assert NAMES.index("torchvision") < NAMES.index("torch")


def test_every_import_of_the_project_is_a_requirement():
    folders = ("helpers", "benchmarks", "tests")
    sources = [path.read_text(encoding="utf-8") for name in folders for path in REPOSITORY.glob(f"{name}/*.py")]
    for path in REPOSITORY.glob("[0-9]_*.ipynb"):
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        sources += [re.sub(r"^( *)[!%].*$", r"\1pass", cell, flags=re.M) for cell in cells]  # lines of Jupyter's own
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    found = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    own = {*folders, "run", *(path.stem for path in REPOSITORY.glob("tests/*.py"))}
    third_party = found - set(sys.stdlib_module_names) - own - BROUGHT
    assert {"numpy", "torch", "keras", "sklearn", "scipy", "tqdm", "pooch"} <= third_party <= {*NAMES, "sklearn"}
