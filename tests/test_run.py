"""run.py as a person meets it: real processes on tiny notebooks, in a copy of the repository in a path with spaces."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("run", REPOSITORY / "run.py")
run = importlib.util.module_from_spec(SPEC)
sys.modules["run"] = run
SPEC.loader.exec_module(run)

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and scripts")

RECORD = {
    "model": "custom_cnn", "notebook": "2_Model_Training_CNN.ipynb", "profile": "smoke", "hyperparameters": {},
    "seed": 0, "parameter_count": 1_000, "forward_flops": 2_000_000, "device": "cpu", "precision": "float32",
    "train_images": 10, "train_seconds": 6.0, "peak_memory_bytes": 1, "resumed": False, "versions": {},
    "data": "stand-in", "data_fingerprint": "stand-in:0", "class_names": ["a", "b"], "git_commit": "0",
    "history": [{"epoch": 1, "seconds": 6.0}],
    "test": {"images": 16, "accuracy": 0.625, "accuracy_interval_95": [0.39, 0.82], "loss": 1.0,
             "macro_precision": 0.6, "macro_recall": 0.6, "macro_f1": 0.6,
             "per_class": {}, "confusion_matrix": [[5, 3], [3, 5]]},
}  # fmt: skip
PARAMETERS = 'PROFILE = "auto"  # full, quick or smoke\nEPOCHS = 2        # passes over the training set'
LOOK = """\
import json, os, sys
from pathlib import Path
from helpers import data
for step in range(3): print(f"\\rstep {step}", end="")
print()
out = Path(os.environ["CIFAR10_OUTPUT"])
seen = {key: os.environ.get(key) for key in ("CIFAR10_ROOT", "CIFAR10_PROFILE")}
seen |= {"EPOCHS": EPOCHS, "WIDTH": globals().get("WIDTH"), "cwd": os.getcwd()}
(out / "results").mkdir(exist_ok=True)
"""
STUB = """

def main():
    print({printed!r})
    print({explained!r}, file=sys.stderr)
    return {status}


if __name__ == "__main__":
    sys.exit(main())
"""
FAKE_NBCONVERT = "import sys; from pathlib import Path; p = Path(sys.argv[-1]); p.with_suffix('.html').write_text('')"
FOUND = ("CIFAR-10: official, from a stub\nsha256:" + "0" * 64, "", 0)
NOT_FOUND = ("", "CIFAR-10 was not found. Looked in:\n  ./data\nWays out: put it there.", 1)


def make_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> None:
    """A heading, a parameters cell, and `cells`, each a code cell (or Markdown where it begins with #)."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    body = [nbformat.v4.new_markdown_cell(c) if c.startswith("#") else nbformat.v4.new_code_cell(c) for c in cells]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[tagged, *body], metadata=metadata), path)


def make_project(folder: Path, data: tuple[str, str, int] | None = None) -> Path:
    """A small copy of the repository; `data` is what `python -m helpers.data` prints, explains and returns in it.

    HTML is made by a stand-in for nbconvert, except where a test removes it.
    """
    project = folder / "a copy with spaces"
    shutil.copytree(REPOSITORY / "helpers", project / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run.py", "requirements.txt"):
        shutil.copy(REPOSITORY / name, project)
    write = '(out / "results" / "seen.txt").write_text(json.dumps(seen))'
    record = f'(out / "results" / "custom_cnn-smoke-seed0.json").write_text(json.dumps({RECORD}))'
    make_notebook(project / run.NOTEBOOKS[1], "# Look\n", LOOK, write)
    make_notebook(
        project / run.NOTEBOOKS[2], "1 + 1", "# Training\n", "\n# a comment\nx = 1\nraise ValueError('too big')"
    )
    wide = PARAMETERS + "\nWIDTH = 8  # channels"
    make_notebook(project / run.NOTEBOOKS[3], "# Look\n", LOOK, write, record, parameters=wide)
    (project / "nbconvert").mkdir()
    (project / "nbconvert" / "__main__.py").write_text(FAKE_NBCONVERT)
    (project / "nbconvert" / "__init__.py").touch()
    if data:
        text = (project / "helpers" / "data.py").read_text(encoding="utf-8").partition("\ndef main()")[0]
        stub = STUB.format(printed=data[0], explained=data[1], status=data[2])
        (project / "helpers" / "data.py").write_text(text + stub, encoding="utf-8")
    return project


def clean_environment(**values: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("CIFAR10_")} | values


def call(project: Path, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """`python run.py --no-venv words...` in `cwd` (another folder than the project), as a person would run it."""
    command = [sys.executable, str(project / "run.py"), "--no-venv", *words]
    where = cwd or project.parent
    return subprocess.run(
        command, cwd=where, env=clean_environment(**environment), capture_output=True, encoding="utf-8", timeout=120
    )


def tree(project: Path) -> dict[str, bytes]:
    """Every file outside runs/ with its content."""
    files = (path for path in project.rglob("*") if path.is_file())
    kept = {path.relative_to(project): path.read_bytes() for path in files}
    return {str(name): text for name, text in kept.items() if name.parts[0] != "runs" and "__pycache__" not in name.parts}  # noqa: E501  # fmt: skip


def latest(project: Path) -> Path:
    return max(path for path in (project / "runs").iterdir() if path.name[:2] == "20")


def one_line(result: subprocess.CompletedProcess) -> str:
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr


# ---------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One good run of notebook 3 on the stand-in, from another folder: project, tree before, result, folder."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    shutil.rmtree(project / "nbconvert")
    before = tree(project)
    words = ["--data", "stand-in", "--notebooks", "3", "--profile", "smoke", "--set", "EPOCHS=5", "WIDTH=1e-05"]
    result = call(project, *words)
    return project, before, result, latest(project)


def test_good_run_exits_with_0_and_leaves_copies_html_and_records(finished):
    _, _, result, folder = finished
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    path = folder / run.NOTEBOOKS[3]
    assert nbformat.read(path, as_version=4).cells[-1].execution_count == 5
    assert "<html" in path.with_suffix(".html").read_text(encoding="utf-8")
    assert (folder / "results" / "custom_cnn-smoke-seed0.json").exists()
    assert not (folder / run.NOTEBOOKS[1]).exists(), "only the notebooks asked for"


def test_good_run_leaves_the_tree_as_it_was(finished):
    project, before, _, _ = finished
    assert tree(project) == before


def test_good_run_prints_the_table_and_where_everything_is(finished):
    project, _, result, folder = finished
    for text in ("62.50%", "Custom CNN", str(folder.relative_to(project.parent)), "Total time", "not from CIFAR-10"):
        assert text in result.stdout


def test_without_a_terminal_a_notebook_prints_its_start_and_its_end_only(finished):
    lines = [line for line in finished[2].stdout.splitlines() if line.startswith("3_Model_Training_ResNet: ")]
    assert len(lines) == 2 and "starting" in lines[0] and "all 5 cells ran" in lines[1]
    assert "\r" not in finished[2].stdout


def test_parameters_profile_and_data_reach_the_notebook(finished):
    project, _, _, folder = finished
    seen = json.loads((folder / "results" / "seen.txt").read_text())
    assert seen == {
        "CIFAR10_ROOT": "stand-in", "CIFAR10_PROFILE": "smoke", "EPOCHS": 5, "WIDTH": 1e-05, "cwd": str(project),
    }  # fmt: skip


def test_a_parameter_is_passed_only_to_the_notebooks_that_have_it():
    one, two = Path("1.ipynb"), Path("2.ipynb")
    shares = run.assign({"EPOCHS": 5, "WIDTH": 8}, {one: ["PROFILE", "EPOCHS"], two: ["EPOCHS", "WIDTH"]})
    assert shares == {one: {"EPOCHS": 5}, two: {"EPOCHS": 5, "WIDTH": 8}}


def test_notebooks_run_once_each_in_their_order():
    assert [path.name[0] for path in run.choose_notebooks(["3", "1", "3"])] == ["1", "3"]
    assert [path.name[0] for path in run.choose_notebooks(None)] == ["1", "2", "3"]


def test_executed_copy_is_valid_and_tidy(finished):
    project, _, _, folder = finished
    path = folder / run.NOTEBOOKS[3]
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "papermill" not in text and "iopub" not in text and str(project) not in text
    assert [cell.metadata.get("tags", []) for cell in notebook.cells[:2]] == [["parameters"], ["injected-parameters"]]
    printed = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]
    assert printed == ["step 2\n"]


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """--in-place on notebooks 1, 2 and 3, with CIFAR-10 "found"; a cell of 2 fails: project, tree before, result."""
    folder = tmp_path_factory.mktemp("failed")
    project = make_project(folder, data=FOUND)
    (folder / "my data").mkdir()
    before = tree(project)
    return project, before, call(project, "--in-place", "--data", "my data", cwd=folder)


def test_failing_cell_is_named_and_the_copy_is_kept(failed):
    project, _, result = failed
    assert result.returncode == 1
    message = result.stderr.splitlines()
    assert message[0] == "2_Model_Training_CNN.ipynb failed in cell 3 of 3 (x = 1): ValueError: too big"
    path = latest(project) / run.NOTEBOOKS[2]
    assert len(message) == 2 and str(path.relative_to(project.parent)) in message[1]
    cells = nbformat.read(path, as_version=4).cells
    assert any(cell.get("execution_count") == 2 and cell.outputs[0].data["text/plain"] == "2" for cell in cells)
    assert path.with_suffix(".html").exists()
    assert not (latest(project) / run.NOTEBOOKS[3]).exists(), "it stops there"


def test_in_place_updates_only_notebooks_of_which_all_cells_ran(failed):
    project, before, _ = failed
    after, seen = tree(project), os.path.join("results", "seen.txt")
    assert {name for name in after if after[name] != before.get(name)} == {run.NOTEBOOKS[1], seen}
    notebook = nbformat.reads(after[run.NOTEBOOKS[1]].decode(), as_version=4)
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3]


def test_data_is_found_relative_to_where_the_command_was_given(failed):
    project, _, result = failed
    assert "CIFAR-10: official, from a stub" in result.stdout and "sha256" not in result.stdout
    seen = json.loads((project / "results" / "seen.txt").read_text())
    assert seen["CIFAR10_ROOT"] == str(project.parent / "my data")


@posix_only
def test_ctrl_c_stops_the_kernel_keeps_the_copy_and_exits_with_130(tmp_path):
    project = make_project(tmp_path, data=NOT_FOUND)
    marker = tmp_path / "started"
    wait = f"import os, time, pathlib\npathlib.Path({str(marker)!r}).write_text(str(os.getpid()))\ntime.sleep(100)"
    make_notebook(project / run.NOTEBOOKS[2], "1 + 1", wait)
    before, handler = tree(project), signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, str(project / "run.py"), "--no-venv", "--notebooks", "2"]
    try:  # a child of a background job would otherwise inherit that SIGINT is ignored
        process = subprocess.Popen(
            command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    deadline = time.monotonic() + 60
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped." in errors and "last finished epoch" in errors and "Traceback" not in errors
    assert "stopped in cell 3 of 3" in output
    notebook = nbformat.read(latest(project) / run.NOTEBOOKS[2], as_version=4)
    outputs = [cell.outputs[0] for cell in notebook.cells if cell.get("outputs")]
    assert outputs[0].data["text/plain"] == "2"
    assert outputs[1].ename == "KeyboardInterrupt", "the cell itself was interrupted"
    assert tree(project) == before
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
    # without CIFAR-10, this run was on the stand-in, and said so loudly
    assert "CIFAR-10 IS NOT HERE" in output and "Ways out: put it there." in output and "--data" in output


# ---------------------------------------------------------------------------------------- bad input


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """For commands that end before anything runs; CIFAR-10 is not found in it."""
    return make_project(tmp_path_factory.mktemp("bad input"), data=NOT_FOUND)


@pytest.mark.parametrize(
    "words, parts",
    [
        (["--set", "EPOCS=3"], ["EPOCS", "did you mean EPOCHS", "3_Model_Training_ResNet has PROFILE, EPOCHS, WIDTH."]),
        (["--set", "WIDTH=3", "--notebooks", "2"], ["2_Model_Training_CNN has PROFILE, EPOCHS."]),
        (["--set", "EPOCHS"], ["NAME=VALUE"]),
        (["--set", "EPOCHS={1, 2}"], ["expected a number"]),
        (["--notebooks", "2", "4"], ["--notebooks 4", "expected 1, 2 or 3"]),
        (["--profile", "huge"], ["huge", "quick"]),
        (["--bogus"], ["--bogus", "--help"]),
        (["tests"], ["there is no command tests", "setup, test, report, lab"]),
        (["--data", "no such folder"], ["no such folder", "No such file", "cifar-10-batches-py"]),
        (["--data", ""], ["--data", "No such file"]),
        (["--in-place", "--data", "stand-in"], ["stand-in"]),
        (["--in-place", "--profile", "smoke"], ["smoke"]),
        (["--in-place", "--set", "EPOCHS=1"], ["--set"]),
    ],
)
def test_bad_input_gets_one_line_and_exit_status_2(project, words, parts):
    result = call(project, *words)
    assert result.returncode == 2
    assert all(part in one_line(result) for part in parts), result.stderr
    assert result.stdout == "" and not (project / "runs").exists(), "nothing was started"


def test_named_folder_without_cifar10_is_an_error(project):
    result = call(project, "--data", ".")
    assert result.returncode == 2
    assert "CIFAR-10 was not found" in result.stderr and "Traceback" not in result.stderr
    assert not (project / "runs").exists(), "nothing was started"


def test_cifar10_root_without_cifar10_is_an_error_and_not_the_stand_in(project):
    result = call(project, CIFAR10_ROOT=str(project))
    assert result.returncode == 2
    assert result.stderr.startswith("CIFAR10_ROOT: CIFAR-10 was not found") and "Traceback" not in result.stderr
    assert not (project / "runs").exists(), "nothing was started"


def test_in_place_never_takes_the_stand_in_for_missing_data(project):
    result = call(project, "--in-place")
    assert result.returncode == 1 and "only runs on CIFAR-10" in one_line(result)
    assert not (project / "runs").exists(), "nothing was started"


def test_missing_and_damaged_notebooks_are_named(tmp_path):
    project = make_project(tmp_path)
    (project / run.NOTEBOOKS[3]).write_text('{"cells": [{}]}')
    result = call(project, "--notebooks", "3")
    assert result.returncode == 2 and "3_Model_Training_ResNet.ipynb is not a readable" in one_line(result)
    (project / run.NOTEBOOKS[1]).unlink()
    result = call(project)
    assert result.returncode == 2 and "1_EDA_CIFAR10.ipynb is not beside run.py" in one_line(result)


def test_unwritable_runs_folder_gets_one_line(tmp_path):
    project = make_project(tmp_path)
    (project / "runs").write_text("a file in the way")
    result = call(project, "--data", "stand-in")
    assert result.returncode == 1
    assert "runs: File exists" in one_line(result)


def test_crash_of_the_data_helper_is_not_taken_for_missing_data(tmp_path):
    project = make_project(tmp_path, data=("", "Traceback (most recent call last):\nImportError: no numpy", 1))
    result = call(project)
    assert result.returncode == 1 and "ImportError: no numpy" in one_line(result)


def test_old_python_is_told_which_one_is_needed(monkeypatch, capsys):
    monkeypatch.setattr(run.sys, "version_info", (3, 9, 1))
    assert run.main([]) == 1
    assert "Python 3.9 is too old: expected 3.11" in capsys.readouterr().err


def test_without_venv_missing_packages_are_named(monkeypatch):
    with pytest.raises(run.Stop, match="this Python has no no_such_package: python -m pip install"):
        run.set_up(False, ["pytest", "no_such_package"])


# ---------------------------------------------------------------------------------------- commands


def test_test_command_hands_its_arguments_and_exit_status_to_and_fro(project):
    (project / "test_tiny.py").write_text(
        "def test_helpers(): import helpers\ndef test_bad(): assert 0\ndef test_c(): 0\n"
    )
    result = call(project, "test", "-q", "-k", "helpers or bad", "test_tiny.py", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert result.returncode == 1 and "1 failed, 1 passed, 1 deselected" in result.stdout


def test_help_shows_commands_options_and_examples(project):
    result = call(project, "--help")
    assert result.returncode == 0
    for text in ("run.py test", "run.py report", "run.py lab", "run.py setup", "--in-place", "--set EPOCHS=3"):
        assert text in result.stdout


@posix_only
@pytest.mark.parametrize(
    "unpack", ["import sys; open(sys.argv[1], 'w')", "raise SystemExit('a sheet is damaged')", None]
)
def test_ci_restores_the_data_or_fails_loudly(tmp_path, unpack):
    (tmp_path / "a clone" / ".ci").mkdir(parents=True)
    clone = tmp_path / "a clone"
    shutil.copy(REPOSITORY / ".ci" / "run", clone / ".ci")
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (clone / "run.py").write_text("import os, sys; print(*sys.argv[1:], os.environ.get('CIFAR10_ROOT'))")
    if unpack:
        (tmp_path / "shared" / "cifar10").mkdir(parents=True)
        (tmp_path / "shared" / "cifar10" / "unpack.py").write_text(unpack)
    result = subprocess.run(
        ["bash", str(clone / ".ci" / "run"), "-x"], cwd="/", env=clean_environment(), capture_output=True, text=True
    )
    if unpack and "damaged" in unpack:
        assert result.returncode == 1 and "damaged" in result.stderr and "test" not in result.stdout
    else:
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[0] == "setup None"
        assert result.stdout.splitlines()[-1] == f"test -x {clone / 'data' if unpack else None}"


# ---------------------------------------------------------------------------------------- setting up


def make_wheel(folder: Path, name: str) -> str:
    """A package without code, for pip to install without a network; its file name."""
    file, info = f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / file, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return file


def test_setup_makes_the_environment_once_and_installs_what_changed(tmp_path):
    project = make_project(tmp_path)
    requirements, log = project / "requirements.txt", project / "runs" / "install.log"
    command = [sys.executable, str(project / "run.py"), "setup"]

    def set_up() -> subprocess.CompletedProcess:
        environment = clean_environment(PIP_NO_INDEX="1")
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    requirements.write_text(f"./{make_wheel(project, 'tiny')}\n")
    first = set_up()
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Successfully installed tiny" in log.read_text()
    assert len(first.stdout.splitlines()) <= 5, "not hundreds of lines of pip"
    log.unlink()
    second = set_up()
    assert second.returncode == 0 and not log.exists(), "nothing changed, so pip was not run"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """run.py's places in an empty folder, with making .venv and pip replaced by notes of what was called."""
    calls, state = [], {"version": "3.12", "status": 0}
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / ".venv").mkdir()
    places = {"HERE": tmp_path, "VENV": tmp_path / ".venv", "STAMP": tmp_path / ".venv" / "installed.txt"}
    for name, place in {**places, "RUNS": tmp_path / "runs"}.items():
        monkeypatch.setattr(run, name, place)

    def create_venv():
        calls.append("create")
        state["version"] = "3.12"

    def start(command, output, *rest, **named):
        calls.append("pip")
        output.write(state.get("log", b"Collecting numpy\n"))
        return subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({state['status']})"])

    monkeypatch.setattr(run, "python_version", lambda python: state["version"])
    monkeypatch.setattr(run, "create_venv", create_venv)
    monkeypatch.setattr(run, "start", start)
    return tmp_path, calls, state


def test_installs_only_when_requirements_or_python_changed(fake):
    folder, calls, state = fake
    for change, expected in [
        (lambda: None, ["pip"]),
        (lambda: None, []),
        (lambda: (folder / "requirements.txt").write_text("numpy\npandas\n"), ["pip"]),
        (lambda: None, []),
        (lambda: state.update(version="3.13"), ["pip"]),
    ]:
        calls.clear()
        change()
        run.make_venv()
        assert calls == expected


def test_half_made_environment_is_made_anew(fake):
    _, calls, state = fake
    state["version"] = None  # its Python does not run, or has no pip yet
    run.make_venv()
    assert calls == ["create", "pip"]


def test_installation_killed_while_copying_files_starts_afresh(fake):
    folder, calls, _ = fake
    (folder / "runs").mkdir()
    (folder / ".venv" / "installed.txt").write_text(run.INSTALLING)
    (folder / "runs" / "install.log").write_text("Downloading numpy\n")
    run.make_venv()
    assert calls == ["pip"], "stopped while downloading: nothing is lost"
    calls.clear()
    (folder / ".venv" / "installed.txt").write_text(run.INSTALLING)
    (folder / "runs" / "install.log").write_text("Downloading numpy\nInstalling collected packages: numpy\n")
    run.make_venv()
    assert calls == ["create", "pip"]


@pytest.mark.parametrize(
    "log, hint",
    [
        (b"Collecting\nERROR: Could not install packages due to an OSError: No space left on device\n", "disk is full"),
        (b"WARNING: Retrying after connection broken\nERROR: No matching distribution found for numpy\n", "network"),
        (b"ERROR: No matching distribution found for numpy\n", "Python 3.11 to 3.13"),
    ],
)
def test_failed_installation_says_why_and_what_to_do(fake, log, hint):
    _, calls, state = fake
    state.update(log=log, status=1)
    with pytest.raises(run.Stop) as stopped:
        run.make_venv()
    message = str(stopped.value)
    assert log.decode().splitlines()[-1] in message and hint in message and "install.log" in message
    assert len(message.splitlines()) <= 4
    state.update(status=0)
    calls.clear()
    run.make_venv()
    assert calls == ["pip"], "a failed installation is not taken for a finished one"


def test_python_version_of_real_and_broken_environments(tmp_path):
    assert run.python_version(Path(sys.executable)) == "{}.{}".format(*sys.version_info)
    assert run.python_version(tmp_path / "bin" / "python") is None
    (tmp_path / "python").write_text("not a program")
    assert run.python_version(tmp_path / "python") is None


# ---------------------------------------------------------------------------------------- small parts


@pytest.mark.parametrize(
    "text, screen",
    [
        ("plain\n", "plain\n"),
        ("  0%\r 50%\r100%\n", "100%\n"),
        ("long line\rnew\n", "new" + "g line\n"),
        ("bar 9\r      \rnext\n", "next\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("12\b\b34\n", "34\n"),
        ("outer\n inner 1\r\x1b[Aouter 2\n inner 2\n", "outer 2\n inner 2\n"),
        ("old text\r\x1b[Knew\n", "new\n"),
        ("\x1b[1m1/2\x1b[0m\r\x1b[1m2/2\x1b[0m\n", "\x1b[1m2/2\x1b[0m\n"),
        ("no end\rno END", "no END"),
    ],
)
def test_on_screen_is_what_a_terminal_shows(text, screen):
    assert run.on_screen(text) == screen


def test_tidy_merges_stdout_and_drops_what_is_not_the_readers():
    def stream(text, name="stdout"):
        return {"output_type": "stream", "name": name, "text": text}

    picture = {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
    outputs = [stream("a\n"), stream(["  1%\r", " 99%"]), stream("\r100%\n"), picture, stream("e", "stderr"),
               stream("\r      \r"), stream("b\r")]  # fmt: skip
    cell = {"cell_type": "code", "source": "x", "outputs": outputs, "execution_count": 3,
            "metadata": {"tags": ["parameters"], "papermill": {"duration": 1}, "execution": {"iopub": ""}}}  # fmt: skip
    text = {"cell_type": "markdown", "source": "t", "metadata": {"papermill": {}}, "id": "kept"}
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = {"cells": [cell, text], "nbformat": 4, "nbformat_minor": 4,
                "metadata": {"kernelspec": kernel, "papermill": {"input_path": "/a/b"}}}  # fmt: skip
    before = json.dumps(notebook)
    tidied = run.tidy(notebook)
    assert json.dumps(notebook) == before, "its argument stays as it is"
    assert tidied["metadata"] == {"kernelspec": kernel}
    assert [c["metadata"] for c in tidied["cells"]] == [{"tags": ["parameters"]}, {}]
    assert tidied["cells"][1]["id"] == "kept"
    assert tidied["cells"][0]["outputs"] == [
        stream(["a\n", "100%\n"]), picture, stream("e", "stderr"), stream(["b"]),
    ]  # fmt: skip
    nbformat.validate(nbformat.from_dict(tidied))
    assert run.tidy(tidied) == tidied


def test_settings_keep_their_types_on_the_way_through_yaml():
    import yaml

    words = ["A=3", "B=1e-05", "C=0.1", "D=true", "E=cpu", "F=[1, 2.5e+20, 'x']", "G={'full': 1, 2: None}", "H=",
             "I=a=b", "J=yes", "K='3'", 'L="tea: {no}"', "M=-1"]  # fmt: skip
    values = run.parse_settings(words)
    expected = {"A": 3, "B": 1e-05, "C": 0.1, "D": True, "E": "cpu", "F": [1, 2.5e20, "x"],
                "G": {"full": 1, 2: None}, "H": "", "I": "a=b", "J": "yes", "K": "3", "L": "tea: {no}",
                "M": -1}  # fmt: skip
    assert values == expected
    assert yaml.safe_load(run.as_yaml(values)) == expected


def test_position_names_cell_section_and_progress():
    def code(status, *outputs, source="x = 1"):
        return {
            "cell_type": "code",
            "source": source,
            "outputs": outputs,
            "metadata": {"papermill": {"status": status}},
        }

    bar = {"output_type": "stream", "name": "stdout", "text": "epoch 1/3:  10%|#  | 3/30\repoch 1/3:  40%|## | 12/30"}
    heading = {"cell_type": "markdown", "source": "## Training ##\ntext", "metadata": {}}
    notebook = {"cells": [code("completed"), heading, code("running", bar), code("pending")]}
    assert str(run.position(notebook)) == "cell 2 of 3, Training, epoch 1/3:  40%"


def test_on_a_terminal_one_line_is_rewritten(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "40")
    line = run.Line("1_EDA: starting")
    line.show("1_EDA: cell 3 of 9, " + "a long heading " * 9)
    line.show("1_EDA: cell 4 of 9")
    assert max(map(len, screen.getvalue().split("\r"))) < 40
    line.end("1_EDA: all 9 cells ran")
    assert run.on_screen(screen.getvalue()) == "1_EDA: all 9 cells ran\n"


def test_run_needs_nothing_but_the_standard_library_and_parses_on_old_python():
    text = (REPOSITORY / "run.py").read_text(encoding="utf-8")
    module = ast.parse(text, feature_version=(3, 8))  # so that an old Python can say that it is too old
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    assert names <= sys.stdlib_module_names
