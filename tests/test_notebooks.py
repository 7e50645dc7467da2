"""The three notebooks: clean as committed, and executed cell by cell (nbval) on the stand-in and on real images."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from helpers import data, results

REPOSITORY = data.REPOSITORY
NOTEBOOKS = sorted(REPOSITORY.glob("[0-9]_*.ipynb"))
MODELS = {"1": "keras_baseline", "2": "custom_cnn", "3": "resnet18"}
NAMES = [path.stem for path in NOTEBOOKS]
FIGURES = {
    "1": ["cifar10_samples", "near_duplicates", "augmentation_comparison", "keras_confusion_matrix"],
    "2": ["cnn_architecture", "training_curves", "confusion_matrix"],
    "3": ["resnet_performance", "skip_connections", "model_comparison"],
}


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


# -------------------------------------------------------------------------------- as they are committed


def test_there_are_three_notebooks():
    assert NAMES == ["1_EDA_CIFAR10", "2_Model_Training_CNN", "3_Model_Training_ResNet"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_is_valid_and_small(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < 3_000_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_was_executed_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_outputs_are_clean(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 8, "a notebook shows its figures"
    assert not [o for o in outputs if "\r" in o.get("text", "")], "progress bars show their last state only"
    text = json.dumps(outputs)
    assert not re.search(r"(?<![\w.])/(home|root|Users|tmp|work|content)/\w|[A-Z]:\\\\\\\\", text), "no absolute paths"
    assert "stand-in" not in text.lower(), "the committed run is on the official data"
    assert "official, SHA-256 checked" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_first_code_cell_holds_documented_parameters(path):
    first = code_cells(path)[0]
    assert first.metadata.tags == ["parameters"]
    lines = [line for line in first.source.splitlines() if re.match(r"[A-Z_]+ *=", line)]
    assert len(lines) >= 10
    assert not [line for line in lines if not re.search(r"#\s+\S", line)], "every parameter says what it is"
    assert not [cell for cell in code_cells(path)[1:] if cell.metadata.get("tags")], "no injected cells"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_cells_fit_on_a_screen(path):
    long = [cell.source.splitlines()[0] for cell in code_cells(path) if cell.source.count("\n") >= 40]
    assert not long


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_committed_record_is_the_notebooks(path):
    """The accuracy that the notebook printed is the one in its record."""
    records = [r for r in results.load(REPOSITORY / "results") if r["notebook"] == path.name]
    assert records, "no record in results/"
    text = json.dumps([output for cell in code_cells(path) for output in cell.outputs])
    printed = re.search(r"Test accuracy ([\d.]+)%", text)[1]
    assert printed in [f"{100 * r['test']['accuracy']:.2f}" for r in records]


def test_committed_records_are_of_the_official_data():
    records = results.load(REPOSITORY / "results")
    assert {r["model"] for r in records} >= set(MODELS.values())
    for record in records:
        assert record["data"] == "CIFAR-10"
        assert record["data_fingerprint"] == "sha256:82e0267fb55400d74bc3b66b6f79d073f8e09170d44291368b1d163f7fcdc550"
        assert record["test"]["images"] == 10_000
        limit = {"keras_baseline": 1.2e6, "custom_cnn": 1.8e6, "resnet18": 11.3e6}[record["model"]]
        assert record["parameter_count"] <= limit


def test_figures_of_the_readme_exist():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    figures = re.findall(r"\]\((Images/[^)]+)\)", text)
    assert {"Images/cifar10_samples.png", "Images/cnn_architecture.png", "Images/training_curves.png",
            "Images/confusion_matrix.png", "Images/resnet_performance.png"} <= set(figures)  # fmt: skip
    assert not [figure for figure in figures if not (REPOSITORY / figure).is_file()]


# ------------------------------------------------------------------------------------------ executed


def prepare(path: Path, folder: Path, root: str, **parameters) -> tuple[Path, dict]:
    """Inject parameters with papermill; the notebook in `folder`, and an environment with which outputs go below it."""
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY), "CIFAR10_OUTPUT": str(folder), "CIFAR10_ROOT": root, "MPLBACKEND": "agg",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }  # fmt: skip
    prepared = folder / path.name
    flags = [word for name, value in parameters.items() for word in ("-y", json.dumps({name: value}))]
    papermill = [sys.executable, "-m", "papermill", str(path), str(prepared), "--prepare-only", *flags]
    subprocess.run(papermill, env=environment, check=True, capture_output=True)
    return prepared, environment


def execute(path: Path, folder: Path, root: str, **parameters) -> subprocess.CompletedProcess:
    """Run each cell, with these parameters, as a test with nbval."""
    prepared, environment = prepare(path, folder, root, **parameters)
    nbval = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", "-q",
             "-p", "no:cacheprovider", "--rootdir", str(folder), "-c", os.devnull, str(prepared)]  # fmt: skip
    return subprocess.run(nbval, env=environment, cwd=folder, capture_output=True, text=True)


def check_run(path: Path, folder: Path, executed: subprocess.CompletedProcess, chance: float) -> dict:
    cells = len(code_cells(path))
    assert executed.returncode == 0, executed.stdout[-4000:] + executed.stderr[-2000:]
    assert f"{cells + 1} passed" in executed.stdout, "every cell, and the injected one, is a test"
    number = path.name[0]
    records = list((folder / "results").glob("*.json"))
    assert len(records) == 1
    record = json.loads(records[0].read_text(encoding="utf-8"))
    assert record["model"] == MODELS[number]
    for figure in FIGURES[number]:
        assert (folder / "Images" / f"{figure}.png").stat().st_size > 5_000
    test = record["test"]
    low, high = test["accuracy_interval_95"]
    assert low < test["accuracy"] < high
    assert low > chance, f"{path.name} learned nothing: {test['accuracy']:.1%}"
    assert sum(map(sum, test["confusion_matrix"])) == test["images"]
    assert math.isfinite(test["loss"])
    losses = [epoch["train_loss"] for epoch in record["history"]]
    assert losses[-1] < losses[0]
    return record


@pytest.fixture
def tree():
    """Fails the test if running a notebook changes anything in results/ or Images/."""
    folders = [REPOSITORY / "results", REPOSITORY / "Images"]
    before = {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("*")}
    yield
    assert before == {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("*")}


def check_stand_in(record: dict, epochs: int) -> None:
    assert record["data"] == data.STAND_IN
    assert record["data_fingerprint"].startswith(data.STAND_IN)
    assert all(name.startswith(data.STAND_IN) for name in record["class_names"])
    assert record["hyperparameters"]["EPOCHS"] == epochs
    assert [row["epoch"] for row in record["history"]] == list(range(1, epochs + 1))


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=NAMES[1:])
def test_notebook_runs_on_the_stand_in(path, tmp_path, tree):
    executed = execute(path, tmp_path, data.STAND_IN, PROFILE="smoke")
    record = check_run(path, tmp_path, executed, chance=0.2)
    check_stand_in(record, epochs=2)
    assert record["resumed"] is False


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_runs_on_real_images(path, tmp_path, tree):
    """A subset of CIFAR-10, where it can be found, with other values than the profile's."""
    try:
        data.load_cifar10(download=False)
    except data.DataError as error:
        pytest.skip(f"CIFAR-10 is not at hand: {str(error).splitlines()[0]}")
    root = os.environ.get("CIFAR10_ROOT", "")
    executed = execute(path, tmp_path, root, PROFILE="smoke", SEED=1, TRAIN_IMAGES=1_000, TEST_IMAGES=500, EPOCHS=3)
    record = check_run(path, tmp_path, executed, chance=0.12)
    assert record["data"] == "CIFAR-10"
    assert record["train_images"] == 1_000
    assert record["seed"] == 1
    assert record["resumed"] is False
    assert record["hyperparameters"]["EPOCHS"] == len(record["history"]) == 3


def test_keras_notebook_runs_on_the_stand_in_and_carries_on_after_a_kill(tmp_path, tree):
    """kill -9, and the newest epoch's file cut short: notebook 1 carries on from the epoch before, and says so."""
    notebook = next(path for path in NOTEBOOKS if path.name.startswith("1"))
    parameters = {"PROFILE": "smoke", "SEED": 4321, "EPOCHS": 4, "COMPARISON_EPOCHS": 1}
    prepared, environment = prepare(notebook, tmp_path, data.STAND_IN, **parameters)
    command = [sys.executable, "-m", "papermill", prepared, tmp_path / "killed.ipynb", "-k", "python3"]
    checkpoints, run = REPOSITORY / "runs" / "checkpoints", "keras_baseline-smoke-seed4321-*"
    log = tmp_path / "log.txt"
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 240
        while len(list(checkpoints.glob(f"{run}/0*.weights.h5"))) < 2:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf-8")[-2000:]
            time.sleep(0.1)
        for victim in [*psutil.Process(process.pid).children(recursive=True), process]:
            victim.kill()
        process.wait()
        assert not (tmp_path / "results").exists(), "killed before the end"
        newest = max(checkpoints.glob(f"{run}/0*.weights.h5"))
        newest.write_bytes(newest.read_bytes()[:1000])
        executed = execute(notebook, tmp_path, data.STAND_IN, **parameters)
        record = check_run(notebook, tmp_path, executed, chance=0.2)
    finally:
        process.kill()
        for folder in checkpoints.glob(run):
            shutil.rmtree(folder)
    check_stand_in(record, epochs=4)
    assert record["resumed"] is True
    assert all(row["seconds"] > 0 for row in record["history"])


def test_a_wrong_value_gives_one_clear_line(tmp_path):
    """EPOCHS = 0 and a validation size beyond the data stop the notebook with a message, not with a stack of frames."""
    notebook = next(path for path in NOTEBOOKS if path.name.startswith("2"))
    for parameters, message in (
        ({"EPOCHS": 0}, "EPOCHS is 0: expected at least 1"),
        ({"VALIDATION_IMAGES": 60_000}, "validation size 60,000 does not fit: expected 0 to 49,999"),
    ):
        executed = execute(notebook, tmp_path, data.STAND_IN, PROFILE="smoke", **parameters)
        assert executed.returncode == 1
        assert message in executed.stdout
    assert not (tmp_path / "results").exists()
