"""The three notebooks: clean as committed, and executed cell by cell (nbval) on the stand-in and on real images."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import pytest

from helpers import records
from helpers.files import REPOSITORY, STAND_IN

NOTEBOOKS = sorted(REPOSITORY.glob("[0-9]_*.ipynb"))
FIRST, SECOND, THIRD = NOTEBOOKS
MODELS = {FIRST: "keras_baseline", SECOND: "custom_cnn", THIRD: "resnet18"}
FIGURES = {
    FIRST: ["cifar10_samples", "near_duplicates", "augmentation_comparison", "keras_confusion_matrix"],
    SECOND: ["cnn_architecture", "training_curves", "confusion_matrix"],
    THIRD: ["resnet_performance", "skip_connections", "model_comparison"],
}
SEED = 4321  # whose checkpoints are nobody else's
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def outputs(path: Path) -> list[nbformat.NotebookNode]:
    return [output for cell in code_cells(path) for output in cell.outputs]


# -------------------------------------------------------------------------------- as they are committed


@each_notebook
def test_notebook_is_valid_small_and_was_executed_from_top_to_bottom(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < 3_000_000
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))


@each_notebook
def test_notebook_outputs_are_clean(path):
    shown = outputs(path)
    assert not [o for o in shown if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in shown) >= 8, "a notebook shows its figures"
    assert not [o for o in shown if "\r" in o.get("text", "")], "progress bars show their last state only"
    text = json.dumps(shown)
    assert not re.search(r"(?<![\w.])/(home|root|Users|tmp|work|content)/\w|[A-Z]:\\\\\\\\", text), "no absolute paths"
    assert "stand-in" not in text.lower() and "official, SHA-256 checked" in text


@each_notebook
def test_first_code_cell_holds_documented_parameters_and_all_cells_fit_on_a_screen(path):
    first, *others = code_cells(path)
    assert first.metadata.tags == ["parameters"]
    lines = [line for line in first.source.splitlines() if re.match(r"[A-Z_]+ *=", line)]
    assert len(lines) >= 10
    assert not [line for line in lines if not re.search(r"#\s+\S", line)], "every parameter says what it is"
    assert {tag for cell in others for tag in cell.metadata.get("tags", [])} <= {"model"}, "no injected cells"
    assert not [cell.source for cell in others if len(cell.source.splitlines()) > 40]


@each_notebook
def test_committed_record_is_the_notebooks_and_of_the_official_data(path):
    """The accuracy that the notebook printed is the one in its record."""
    mine = [r for r in records.load(REPOSITORY / "results") if r["notebook"] == path.name]
    printed = re.search(r"Test accuracy ([\d.]+)%", json.dumps(outputs(path)))[1]
    assert printed in [f"{100 * r['test']['accuracy']:.2f}" for r in mine]
    limit = {FIRST: 1.2e6, SECOND: 1.8e6, THIRD: 11.3e6}[path]
    for record in mine:
        assert (record["model"], record["data"], record["test"]["images"]) == (MODELS[path], "CIFAR-10", 10_000)
        assert record["data_fingerprint"] == "sha256:82e0267fb55400d74bc3b66b6f79d073f8e09170d44291368b1d163f7fcdc550"
        assert record["parameter_count"] <= limit


def test_figures_of_the_pages_exist_and_say_what_they_show():
    shown = set()
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        for words, link in re.findall(r"!\[([^\]]*)\]\((?!http)([^)]+)\)", page.read_text(encoding="utf-8")):
            assert words and (page.parent / link).is_file(), f"{page.name} shows {link}"
            shown.add(Path(link).stem)
    assert shown >= {"cifar10_samples", "cnn_architecture", "training_curves", "confusion_matrix", "resnet_performance"}


# ------------------------------------------------------------------------------------------- executed


def execute(path: Path, target: Path, *, prepare_only: bool = False, **parameters) -> None:
    """Run all cells with these parameters, or only put them in."""
    options = {"kernel_name": "python3", "prepare_only": prepare_only, "execution_timeout": 600, "progress_bar": False}
    papermill.execute_notebook(path, target, {"PROFILE": "smoke", "SEED": SEED} | parameters, **options)


@pytest.fixture
def run(output, tmp_path, monkeypatch):
    """Executes a notebook with parameters, every cell as a test, and gives its record, which lies below `output`.

    The test fails if results/, Images/ or weights/ of the repository change.
    """
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": paths, "MPLBACKEND": "agg", "TF_CPP_MIN_LOG_LEVEL": "3", "JUPYTER_PREFER_ENV_PATH": "1"}
    settings["OMP_NUM_THREADS"] = "1"  # two threads that wait for one another take minutes beside a busy process
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    def state() -> dict[Path, int]:
        folders = [REPOSITORY / name for name in ("results", "Images", "weights")]
        return {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("*.*")}

    def tested(path: Path, **parameters) -> dict:
        prepared = tmp_path / path.name
        execute(path, prepared, prepare_only=True, **parameters)
        nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", "-q", *nbval, "-p", "no:randomly", "-c", os.devnull, prepared]
        executed = subprocess.run([*command, "--rootdir", tmp_path], cwd=tmp_path, capture_output=True, text=True)
        assert executed.returncode == 0, executed.stdout[-4000:] + executed.stderr[-2000:]
        assert f"{len(code_cells(path)) + 1} passed" in executed.stdout, "every cell, and the injected one, is a test"
        return check(path, output)

    before = state()
    for left in checkpoints():  # of a test that was killed
        left.unlink()
    yield tested
    assert state() == before
    assert not checkpoints(), "a complete run leaves none"


def checkpoints() -> list[Path]:
    return list((REPOSITORY / "runs" / "checkpoints").glob(f"*-smoke-seed{SEED}-*"))


def check(path: Path, output: Path) -> dict:
    """The one record below `output`, which has learned something; its figures and weights are beside it."""
    (kept,) = output.rglob(f"results/{MODELS[path]}*.json")
    record, folder = json.loads(kept.read_text(encoding="utf-8")), kept.parents[1]
    assert (folder.name, record["model"]) == (STAND_IN if record["data"] == STAND_IN else "smoke", MODELS[path])
    assert min((folder / "Images" / f"{name}.png").stat().st_size for name in FIGURES[path]) > 5_000
    assert records.weights_path(kept).is_file()
    test, losses = record["test"], [epoch["train_loss"] for epoch in record["history"]]
    chance = 0.2 if record["data"] == STAND_IN else 0.12
    assert test["accuracy_interval_95"][0] > chance, f"{path.name} learned nothing: {test['accuracy']:.1%}"
    assert losses[-1] < losses[0] and math.isfinite(test["loss"])
    assert [row["epoch"] for row in record["history"]] == list(range(1, record["hyperparameters"]["EPOCHS"] + 1))
    return record


def test_pytorch_notebooks_run_on_the_stand_in(run):
    with ThreadPoolExecutor() as side_by_side:
        for record in side_by_side.map(lambda path: run(path, DATA_ROOT=STAND_IN), NOTEBOOKS[1:]):
            assert all(name.startswith(STAND_IN) for name in (record["data_fingerprint"], *record["class_names"]))
            assert record["resumed"] is False


def test_notebooks_run_on_real_images(run, cifar):
    """A subset of CIFAR-10, where it can be found, with other values than the profile's."""
    values = {"TRAIN_IMAGES": 1_000, "TEST_IMAGES": 500, "EPOCHS": 3}
    with ThreadPoolExecutor(2) as side_by_side:
        for record in side_by_side.map(lambda path: run(path, **values), NOTEBOOKS):
            assert (record["data"], record["train_images"], record["seed"]) == ("CIFAR-10", 1_000, SEED)
            assert (record["resumed"], len(record["history"])) == (False, 3)


def test_keras_notebook_runs_on_the_stand_in_and_carries_on_after_a_kill(run, output, tmp_path):
    """kill -9 when two epochs are saved: notebook 1 carries on from there, and says so."""
    killed, whole = tmp_path / "killed.ipynb", tmp_path / "whole.ipynb"
    parameters = {"DATA_ROOT": STAND_IN, "EPOCHS": 4, "COMPARISON_EPOCHS": 1}
    notebook = nbformat.read(FIRST, as_version=4)
    place = next(k for k, cell in enumerate(notebook.cells) if "keras_runs.checkpoint(" in cell.source)
    notebook.cells.insert(place, nbformat.v4.new_code_cell(
        "def save_and_die(self, epoch, logs, save=keras_runs.Checkpoint.on_epoch_end):\n"
        "    save(self, epoch, logs)\n"
        "    if epoch == 1:\n"
        "        os.kill(os.getpid(), 9)\n"
        "keras_runs.Checkpoint.on_epoch_end = save_and_die"
    ))  # fmt: skip
    nbformat.write(notebook, killed)
    with pytest.raises(Exception, match="Kernel died"):
        execute(killed, killed, **parameters)
    assert len(checkpoints()) == 1
    assert not list(output.rglob("*.json")), "killed before the end"
    execute(FIRST, whole, **parameters)
    assert check(FIRST, output)["resumed"] is True
    said = rf"Resumed from runs/checkpoints/keras_baseline-smoke-seed{SEED}-\w+\.weights\.h5: 2 epochs are done"
    assert re.search(said, "".join(o.get("text", "") for o in outputs(whole)))


def test_a_wrong_value_gives_one_clear_line(run, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="validation size 60,000"):
        execute(SECOND, tmp_path / "stopped.ipynb", DATA_ROOT=STAND_IN, VALIDATION_IMAGES=60_000)
    (error,) = (o for o in outputs(tmp_path / "stopped.ipynb") if o.output_type == "error")
    (line,) = error.traceback  # not a stack of frames
    assert "validation size 60,000 does not fit: expected 0 to 49,999" in line
