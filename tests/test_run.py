"""`python run.py` as a person meets it: real processes on tiny notebooks in a copy of the repository, below spaces."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from helpers.execute import NOTEBOOKS
from helpers.files import REPOSITORY

HANG = 300  # seconds after which a process is taken to hang
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and scripts")

PARAMETERS = 'PROFILE = "auto"  # full, quick or smoke\nEPOCHS = 2        # passes over the training set'
LOOK = """\
import json, os, sys
from pathlib import Path
from helpers import data
for step in range(3): print(f"\\rstep {step}", end="")
print()
print("  1%\\r 99%", end="\\r     \\r")
out = Path(os.environ["CIFAR10_OUTPUT"])
(out / "results").mkdir(exist_ok=True)
seen = {key: os.environ.get(key) for key in ("CIFAR10_ROOT", "CIFAR10_PROFILE")}
seen |= {"EPOCHS": EPOCHS, "WIDTH": globals().get("WIDTH"), "cwd": os.getcwd()}
"""
WRITE = '(out / "results" / "seen.txt").write_text(json.dumps(seen))'
RECORD = '(out / "results" / "a.json").write_text(json.dumps({"Model": "Custom CNN", "Accuracy": "62.50%"}))'
WAIT = """\
import os, pathlib, time
marker = pathlib.Path({marker!r})
try:
    marker.write_text(str(os.getpid()))
    time.sleep(10_000)
finally: marker.with_name("ended").touch()
"""
DATA = """\
class DataError(ValueError):
    missing = {missing}
def load_cifar10(root=None, *, download):
    if {error!r}:
        raise DataError({error!r})
    return "CIFAR-10: train (50000, 32, 32, 3), from a stub"
"""
RECORDS = "import json\ndef load(folder): return [json.loads(path.read_text()) for path in folder.glob('*.json')]"
NOT_FOUND = "CIFAR-10 was not found. Looked in:\n  ./data\nWays out: put it there."


def make_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> None:
    """A parameters cell, and `cells`, each a code cell (or Markdown where it begins with #)."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    body = [nbformat.v4.new_markdown_cell(c) if c.startswith("#") else nbformat.v4.new_code_cell(c) for c in cells]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=[tagged, *body], metadata={"kernelspec": kernel}), path)


def make_project(folder: Path, error: str = "", *, missing: bool = True) -> Path:
    """A small copy of the repository; `error`, unless empty, is what looking for CIFAR-10 ends with in it."""
    project = folder / "a copy [old] {1}" / "of it"
    (project / "helpers").mkdir(parents=True)
    helpers = (f"helpers/{name}.py" for name in ("__init__", "files", "cells", "profiles", "execute"))
    for name in ("run.py", "requirements.txt", *helpers):
        shutil.copy(REPOSITORY / name, project / name)
    stubs = {"data": DATA.format(error=error, missing=missing), "records": RECORDS}
    for name, text in {**stubs, "tables": "import pandas\ncomparison_table = pandas.DataFrame"}.items():
        (project / "helpers" / f"{name}.py").write_text(text)
    make_notebook(project / NOTEBOOKS["1"], "# Look\n", LOOK, WRITE)
    make_notebook(project / NOTEBOOKS["2"], "1 + 1", "# Training\n", "\n# why\nx = 1\nraise ValueError('too big')")
    make_notebook(project / NOTEBOOKS["3"], "# Look\n", LOOK, WRITE, RECORD, parameters=PARAMETERS + "\nWIDTH: int = 8")
    return project


def clean_environment(**values: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("CIFAR10_")} | values


def call(project: Path, *words: str, python: tuple = (), **environment: str) -> subprocess.CompletedProcess:
    """`python run.py words...` in another folder than the project, as a person would run it."""
    command, env = [sys.executable, *python, str(project / "run.py"), *words], clean_environment(**environment)
    return subprocess.run(command, cwd=project.parent, env=env, capture_output=True, encoding="utf-8", timeout=HANG)


def tree(project: Path) -> dict[str, bytes]:
    """Every file outside runs/ with its content."""
    names = (path.relative_to(project) for path in project.rglob("*") if path.is_file())
    kept = (name for name in names if name.parts[0] != "runs" and "__pycache__" not in name.parts)
    return {name.as_posix(): (project / name).read_bytes() for name in kept}


def latest(project: Path) -> Path:
    return max(path for path in (project / "runs").iterdir() if path.name[:2] == "20")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of notebooks 1 and 3 on the stand-in: project, tree before, result."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    execute = project / "helpers" / "execute.py"
    execute.write_text(execute.read_text().replace("REFRESH, INTERVAL = 0.2, 30", "REFRESH, INTERVAL = 0, 0"))
    before = tree(project)
    words = ["--no-venv", "--data", "stand-in", "--notebooks", "3", "1", "3", "--profile", "smoke"]
    result = call(project, *words, "--set", "EPOCHS=5", "WIDTH={'full': (1e-05, None, True), 'x': 'a=b'}")
    assert result.returncode == 0 and result.stderr == "", result.stdout + result.stderr
    return project, before, result


def test_good_run_leaves_copies_html_and_records_and_says_where(finished):
    project, before, result = finished
    names = sorted(path.relative_to(latest(project)).as_posix() for path in latest(project).rglob("*.*"))
    copies = [NOTEBOOKS[number].replace("ipynb", kind) for number in "13" for kind in ("html", "ipynb", "log")]
    assert names == [*copies, "results/a.json", "results/seen.txt"]
    assert "<html" in (latest(project) / copies[0]).read_text(encoding="utf-8")
    assert tree(project) == before, "nothing else has changed"
    place = str(latest(project).relative_to(project.parent))
    for text in ("as asked", "62.50%", "Custom CNN", place, "Total time", "not from CIFAR-10"):
        assert text in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("3_Model_Training_ResNet: ")]
    assert "starting" in lines[0] and "all 5 cells ran" in lines[-1] and "\r" not in result.stdout
    assert len(lines) > 2, "now and then a line between the two"


def test_parameters_profile_and_data_reach_the_notebooks_that_have_them(finished):
    project, _, _ = finished
    seen = json.loads((latest(project) / "results" / "seen.txt").read_text())
    asked = {"EPOCHS": 5, "WIDTH": {"full": [1e-05, None, True], "x": "a=b"}}
    assert seen == {"CIFAR10_ROOT": "stand-in", "CIFAR10_PROFILE": "smoke", "cwd": str(project), **asked}


def test_executed_copy_is_valid_and_tidy(finished):
    project, _, _ = finished
    path = latest(project) / NOTEBOOKS["3"]
    notebook, text = nbformat.read(path, as_version=4), path.read_text(encoding="utf-8")
    nbformat.validate(notebook)
    assert notebook.cells[2].id == nbformat.read(project / path.name, as_version=4).cells[1].id
    assert "papermill" not in text and "iopub" not in text and str(project) not in text
    assert [cell.metadata.get("tags", []) for cell in notebook.cells[:2]] == [["parameters"], ["injected-parameters"]]
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5]
    printed = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]
    assert printed == ["step 2\n"], "bars in their final state; the one that was wiped out is not there"


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """--in-place on notebooks 1, 2 and 3; a cell of 2 fails: project, tree before, result."""
    project = make_project(tmp_path_factory.mktemp("failed"))
    (project.parent / "my data").mkdir()
    before = tree(project)
    return project, before, call(project, "--no-venv", "--in-place", "--data", "my data")


def test_failing_cell_is_named_and_the_copy_is_kept(failed):
    project, _, result = failed
    path, message = latest(project) / NOTEBOOKS["2"], result.stderr.splitlines()
    assert result.returncode == 1 and len(message) == 2
    assert message[0] == "2_Model_Training_CNN.ipynb failed in cell 3 of 3 (x = 1): ValueError: too big"
    assert str(path.relative_to(project.parent)) in message[1]
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.source for cell in cells] == [c.source for c in nbformat.read(project / path.name, 4).cells]
    assert cells[1].outputs[0].data["text/plain"] == "2" and cells[3].outputs[0].ename == "ValueError"
    assert not (latest(project) / NOTEBOOKS["3"]).exists(), "it stops there"


def test_in_place_updates_only_notebooks_of_which_all_cells_ran(failed):
    project, before, result = failed
    after = tree(project)
    assert {name for name in after if after[name] != before.get(name)} == {NOTEBOOKS["1"], "results/seen.txt"}
    notebook = nbformat.reads(after[NOTEBOOKS["1"]].decode(), as_version=4)
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3]
    assert "CIFAR-10: train (50000, 32, 32, 3), from a stub" in result.stdout
    seen = json.loads(after["results/seen.txt"])
    assert seen["CIFAR10_ROOT"] == str(project.parent / "my data"), "relative to where the command was given"


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_stops_the_kernel_keeps_the_copy_and_exits_with_130(tmp_path, name):
    project, marker = make_project(tmp_path, NOT_FOUND), tmp_path / "started"
    make_notebook(project / NOTEBOOKS["2"], "1 + 1", WAIT.format(marker=str(marker)))
    before, handler = tree(project), signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, str(project / "run.py"), "--no-venv", "--notebooks", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), **pipes)
    signal.signal(signal.SIGINT, handler)  # a child of a background job would inherit that it is ignored
    deadline = time.monotonic() + HANG
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(getattr(signal, name))
    output, errors = process.communicate(timeout=HANG)
    assert process.returncode == 130, errors
    assert "Stopped." in errors and "last finished epoch" in errors and "Traceback" not in errors
    assert "stopped in cell 3 of 3" in output
    notebook = nbformat.read(latest(project) / NOTEBOOKS["2"], as_version=4)
    assert notebook.cells[1].outputs[0].data["text/plain"] == "2" and "papermill" not in notebook.metadata
    assert marker.with_name("ended").exists(), "the cell could end as with Jupyter's stop button"
    assert tree(project) == before
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
    assert "CIFAR-10 IS NOT HERE" in output and "Ways out: put it there." in output, "it ran on the stand-in"


@posix_only
def test_a_terminal_gets_one_line_and_a_kernel_that_dies_is_named(tmp_path):
    import pty  # there is none on Windows

    project = make_project(tmp_path)
    bar = "import time\nfor i in range(30): print(f'\\repoch 1/3: {i}%|## ', end='', flush=True); time.sleep(0.1)"
    noise = "import ctypes, os; ctypes.CDLL(None).puts(b'from C'); ctypes.CDLL(None).fflush(None); os._exit(1)"
    make_notebook(project / NOTEBOOKS["3"], "## A long heading " * 9, bar, noise)
    words, (ours, theirs) = [sys.executable, str(project / "run.py"), "--no-venv", "--notebooks", "3"], pty.openpty()
    env, shown = clean_environment(COLUMNS="50"), b""
    with subprocess.Popen(words, env=env, stdout=theirs, stderr=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        try:
            while some := os.read(ours, 10_000):
                shown += some
        except OSError:  # Linux: the other end was closed
            os.close(ours)
        errors = process.stderr.read()
    assert process.returncode == 1 and "in cell 3 of 3 (import ctypes, os; " in errors and "its process died" in errors
    found, line, *rest = shown.decode().split("\r\n")
    assert found.startswith("CIFAR-10: train") and rest == [""], "one line for the notebook, however often it changed"
    states = [state.rstrip() for state in line.split("\r")]
    assert max(map(len, states)) < 50 and any("cell 2 of 3, A long" in state for state in states)
    assert states[-1].startswith("3_Model_Training_ResNet: failed, ")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """For commands that end before anything runs."""
    return make_project(tmp_path_factory.mktemp("bad input"))


@pytest.mark.parametrize(
    "words, parts",
    [
        ("--set EPOCS=3", ["EPOCS", "did you mean EPOCHS", "3_Model_Training_ResNet has PROFILE, EPOCHS, WIDTH."]),
        ("--set WIDTH=3 --notebooks 2", ["2_Model_Training_CNN has PROFILE, EPOCHS."]),
        ("--set EPOCHS", ["NAME=VALUE"]),
        ("--set EPOCHS=three", ['--set EPOCHS=three: EPOCHS is "three": expected a whole number from 1.']),
        ("--notebooks 2 7", ["--notebooks", "'7'", "'1', '2', '3'"]),
        ("--profile huge", ["huge", "quick"]),
        ("tests", ["no command tests", "expected setup, predict, demo, sweep, test, report, lab"]),
        ("--data nowhere", ["--data nowhere: no such folder", "cifar-10-batches-py"]),
        ("--data=", ["--data : no such folder"]),
        ("--in-place --data stand-in", ["stand-in"]),
        ("--in-place --profile smoke", ["smoke"]),
        ("--in-place --set EPOCHS=1", ["--set"]),
    ],
)
def test_bad_input_gets_one_line_and_exit_status_2_before_anything_is_installed(project, words, parts):
    result = call(project, *words.split())
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert all(part in result.stderr for part in parts), result.stderr
    assert result.stdout == "" and not (project / "runs").exists() and not (project / ".venv").exists()


@pytest.mark.parametrize(
    "name, content, status, message",
    [
        (NOTEBOOKS["3"], '{"cells": [{}]}', 2, "3_Model_Training_ResNet.ipynb is missing or damaged"),
        (NOTEBOOKS["3"], None, 2, "3_Model_Training_ResNet.ipynb is missing or damaged"),
        ("runs", "a file in the way", 1, "of it/runs"),
    ],
)
def test_a_missing_or_damaged_notebook_and_an_unwritable_folder_get_one_line(tmp_path, name, content, status, message):
    path = make_project(tmp_path) / name
    path.write_text(content) if content else path.unlink()
    result = call(path.parent, "--no-venv", "--data", "stand-in")
    assert result.returncode == status and len(result.stderr.splitlines()) == 1 and message in result.stderr


@pytest.mark.parametrize(
    "words, root, missing, status, message",
    [
        (["--data", "."], "", True, 2, "--data: CIFAR-10 was not found"),
        ([], ".", True, 2, "CIFAR10_ROOT: CIFAR-10 was not found"),
        (["--in-place"], "", True, 1, "CIFAR-10 was not found"),
        ([], "", False, 1, "CIFAR-10 was not found"),  # damaged: the stand-in would hide it
    ],
)
def test_the_stand_in_never_hides_what_was_named_or_is_damaged(tmp_path, words, root, missing, status, message):
    project = make_project(tmp_path, NOT_FOUND, missing=missing)
    result = call(project, "--no-venv", *words, **({"CIFAR10_ROOT": root} if root else {}))
    assert result.returncode == status and result.stderr.startswith(message), result.stderr
    assert "Traceback" not in result.stderr and not (project / "runs").exists(), "nothing was started"


def test_old_python_is_told_which_one_is_needed(tmp_path):
    text = (REPOSITORY / "run.py").read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 8))  # so that it gets that far
    (tmp_path / "run.py").write_text(text.replace("import sys\n", "import sys; sys.version_info = (3, 9, 1)\n"))
    result = call(tmp_path)  # where there are no helpers
    assert result.returncode == 1 and result.stderr.startswith("Python 3.9 is too old: expected 3.11")


def test_the_bootstrap_needs_the_standard_library_only(project):
    result = call(project, "--help", python=("-S",))  # without site-packages
    assert result.returncode == 0, result.stderr
    for text in ("run.py test", "run.py report | lab | setup", "run.py demo", "--in-place", "--set EPOCHS=3"):
        assert text in result.stdout
    result = call(project, "report", "--no-venv", python=("-S",))
    assert result.returncode == 1 and "has no pandas: python -m pip install" in result.stderr


def test_test_command_hands_its_arguments_and_exit_status_to_and_fro(project):
    (project / "test_tiny.py").write_text("def test_helpers(): import helpers\ndef test_bad(): 1 / 0\ndef test_c(): 0")
    words = ["test", "--no-venv", "-q", "-k", "helpers or bad", "test_tiny.py"]
    result = call(project, *words, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert result.returncode == 1 and "1 failed, 1 passed, 1 deselected" in result.stdout


@posix_only
@pytest.mark.parametrize("unpack", ["import sys; open(sys.argv[1], 'w')", "exit('a sheet is damaged')", None])
def test_ci_restores_the_data_or_fails_loudly(tmp_path, unpack):
    clone, sheets = tmp_path / "a clone", tmp_path / "shared" / "cifar10"
    for folder in (clone / ".ci", clone / ".venv" / "bin", sheets):
        folder.mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci" / "run", clone / ".ci")
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (clone / "run.py").write_text("import os, sys; print(*sys.argv[1:], os.environ.get('CIFAR10_ROOT'))")
    if unpack:
        (sheets / "unpack.py").write_text(unpack)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "chromium").symlink_to(shutil.which("true"))
    env = clean_environment(PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    command = ["bash", str(clone / ".ci" / "run"), "-x"]
    result = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=HANG)
    if unpack and "damaged" in unpack:
        assert result.returncode == 1 and "damaged" in result.stderr and "test" not in result.stdout
    else:
        lines, found = result.stdout.splitlines(), clone / "data" if unpack else None
        ended = (result.returncode, lines[0], lines[-1])
        assert ended == (0, "setup demo sweep None", f"test -x {found}"), result.stderr


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A project after its first `setup`, with a requirement that needs no network: project, its install.log."""
    project = make_project(tmp_path_factory.mktemp("ready"))
    (project / "requirements.txt").write_text("pip\n")
    result = call(project, "setup", PIP_NO_INDEX="1")
    assert result.returncode == 0 and "Making .venv" in result.stdout, result.stdout + result.stderr
    return project, project / "runs" / "install.log"


def test_setup_installs_once_and_again_after_a_change_or_a_kill(ready):
    project, log = ready
    stamp, kept = project / ".venv" / "installed-requirements.txt", project / ".venv" / "kept"
    for stamped, logged, requirements, installs, anew in [
        (None, "", "pip  # of another version", True, False),
        (None, "", "pip  # of another version", False, False),
        ("installing", "Downloading pip", "pip", True, False),  # killed before it changed anything
        ("installing", "Downloading pip\nInstalling collected packages: pip", "pip", True, True),
    ]:
        kept.touch()
        log.write_text(logged)
        stamp.write_text(stamped or stamp.read_text())
        (project / "requirements.txt").write_text(requirements)
        result = call(project, "setup", PIP_NO_INDEX="1")
        assert result.returncode == 0 and "Ready: " in result.stdout, result.stdout + result.stderr
        assert ("already satisfied: pip in " in log.read_text()) == ("Installing" in result.stdout) == installs
        assert ("incomplete: making it anew" in result.stdout) == (not kept.exists()) == anew


def test_failed_installation_says_why_and_is_not_taken_for_a_finished_one(ready):
    (ready[0] / "requirements.txt").write_text("no-such-package")
    for _ in range(2):
        result = call(ready[0], PIP_NO_INDEX="1")
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 3
        for text in ("no-such-package", "network", "8 GB", "Python 3.11 to 3.13", "install.log"):
            assert text in result.stderr
