"""The notebooks: clean as committed; the three run as by a person, on real images if possible; the others by nbval."""

from __future__ import annotations

import hashlib
import html
import json
import math
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from nbclient import NotebookClient

from helpers import data, records
from helpers import execute as engine
from helpers.files import REPOSITORY, STAND_IN

NOTEBOOKS = sorted(REPOSITORY.glob("[0-9]_*.ipynb"))
FIRST, SECOND, THIRD = NOTEBOOKS
STUDIES = {"4": "trust", "5": "architectures", "6": "export"}
FURTHER = sorted(REPOSITORY.glob("further/[0-9]_*.ipynb"))
MODELS = {FIRST: "keras_baseline", SECOND: "custom_cnn", THIRD: "resnet18"}
FIGURES = {
    FIRST: ["cifar10_samples", "near_duplicates", "augmentation_comparison", "keras_confusion_matrix"],
    SECOND: ["cnn_architecture", "training_curves", "confusion_matrix"],
    THIRD: ["resnet_performance", "skip_connections", "model_comparison"],
}
SEED = 4321  # whose checkpoints are nobody else's
each_notebook = pytest.mark.parametrize("path", [*NOTEBOOKS, *FURTHER], ids=lambda path: path.stem)


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
    figures = sum("image/png" in o.get("data", {}) for o in shown)
    assert figures >= (8 if path in NOTEBOOKS else 2), "a notebook shows its figures"
    assert not [o for o in shown if "\r" in o.get("text", "")], "progress bars show their last state only"
    for one, other in pairwise(shown):
        assert not one.get("name") == other.get("name") == "stdout" or one.text.endswith("\n"), "of a bar, one line"
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
def test_code_and_what_it_prints_fit_into_the_width_of_jupyterlab_and_pictures_have_a_text(path):
    lines = [line for cell in code_cells(path) for line in cell.source.splitlines()]
    lines += [line for output in outputs(path) for line in output.get("text", "").splitlines()]
    assert not [line for line in lines if len(line) > 96]
    shown = [output for output in outputs(path) if "image/png" in output.get("data", {})]
    assert all(output.metadata["image/png"]["alt"] for output in shown)


def test_page_of_a_notebook_has_the_texts_of_its_pictures_and_wraps_code(tmp_path):
    copy = Path(shutil.copy(SECOND, tmp_path))
    engine.keep(copy)
    page = copy.with_suffix(".html").read_text(encoding="utf-8")
    texts = [o.metadata["image/png"]["alt"] for o in outputs(SECOND) if "image/png" in o.get("data", {})]
    assert re.findall(r'<img alt="([^"]+)"', html.unescape(page))[1:] == texts  # the first is Colab's
    assert engine.NARROW in page


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_record_is_the_notebooks_and_of_the_official_data(path):
    """The accuracy that the notebook printed is the one in its record."""
    mine = [r for r in records.load(REPOSITORY / "results") if r["notebook"] == path.name]
    printed = re.search(r"Test accuracy ([\d.]+)%", json.dumps(outputs(path)))[1]
    assert printed in [f"{100 * r['test']['accuracy']:.2f}" for r in mine if r["model"] == MODELS[path]]
    limit = {FIRST: 1.2e6, SECOND: 1.8e6, THIRD: 11.3e6}[path]
    for record in mine:
        assert (REPOSITORY / "results" / record["file"]).stat().st_size < 100_000
        assert record["model"] in (MODELS[path], *(name for name in records.STURDY if MODELS[path] in name))
        assert (record["data"], record["test"]["images"]) == ("CIFAR-10", 10_000)
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


class Person:
    """Someone at a notebook in Jupyter, who runs its cells in any order in one kernel."""

    def __init__(self, path: Path, **parameters):
        self.notebook = nbformat.v4.new_notebook(cells=code_cells(path))
        for name, value in ({"PROFILE": "smoke", "SEED": SEED} | parameters).items():
            self.notebook.cells[0].source += f"\n{name} = {value!r}"
        self.client = NotebookClient(self.notebook, timeout=600, allow_errors=True, kernel_name="python3")

    def __enter__(self):
        self.kernel = self.client.setup_kernel()
        self.kernel.__enter__()
        return self

    def __exit__(self, *error):
        self.kernel.__exit__(*error)

    def run(self, first: str = "", end: str = "nothing") -> list[str]:
        """The errors of the cells from that with `first` to the one before that with `end`; each must be one line."""
        sources = [cell.source for cell in self.notebook.cells]
        start = next(k for k, source in enumerate(sources) if first in source)
        found = []
        for k in range(start, len(sources)):
            if k > start and end in sources[k]:
                break
            self.client.execute_cell(self.notebook.cells[k], k)
            for error in (o for o in self.notebook.cells[k].outputs if o.output_type == "error"):
                (line,) = error.traceback  # not a stack of frames
                found.append(line)
        return found

    def said(self, part: str) -> str:
        """What the cell with `part` printed."""
        return next("".join(o.get("text", "") for o in c.outputs) for c in self.notebook.cells if part in c.source)

    def type(self, code: str) -> str:
        """What a cell of one's own prints."""
        self.notebook.cells.append(nbformat.v4.new_code_cell(code))
        cell = self.client.execute_cell(self.notebook.cells[-1], len(self.notebook.cells) - 1)
        self.notebook.cells.pop()
        assert not [o for o in cell.outputs if o.output_type == "error"]
        return "".join(o.get("text", "") for o in cell.outputs)


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
        return study(path, output)

    before = state()
    for left in checkpoints():  # of a test that was killed
        left.unlink()
    yield tested
    assert state() == before
    assert not checkpoints(), "a complete run leaves none"


def real_images() -> bool:
    try:
        return not data.load_cifar10(download=False).is_stand_in
    except data.DataError:
        return False


def checkpoints(path: Path | None = None) -> list[Path]:
    return list((REPOSITORY / "runs" / "checkpoints").glob(f"{MODELS.get(path, '*')}-smoke-seed{SEED}-*"))


def study(path: Path, output: Path) -> dict:
    """The one record of a notebook that comes after the three."""
    (kept,) = output.rglob(f"results/{STUDIES[path.name[0]]}/*.json")
    return json.loads(kept.read_text(encoding="utf-8"))


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


INTERRUPT = """
def interrupted(*parts, real={place}, calls=[], **named):
    calls.append(1)
    if len(calls) == 2:  # in the second epoch
        signal.raise_signal(signal.SIGINT)
    return real(*parts, **named)
import signal
before, {place} = {place}, interrupted
"""
DIE = """
def die(self, epoch, logs, save=keras_runs.Checkpoint.on_epoch_end):
    save(self, epoch, logs)
    os.kill(os.getpid(), 9 * epoch)  # in the second epoch
keras_runs.Checkpoint.on_epoch_end = die
"""
STOPPED = "Stopped: training stopped in epoch 2; saved: 1 of {} epochs. Run this cell again to carry on."
SILLY = {
    "EPOCHS = 1.5": "EPOCHS is 1.5: expected a whole number from 1.",
    "EPOCHS = {'quick': 3}": "EPOCHS is {'quick': 3}, without a value for PROFILE \"smoke\": give it one.",
    "OPTIMIZER = 'adam'": 'OPTIMIZER is "adam": expected "muon" or "sgd".',
    "LEARNING_RATE = '0.1'": 'LEARNING_RATE is "0.1": expected a number above 0.',
    "LABEL_SMOOTHING = 2": "LABEL_SMOOTHING is 2: expected a number from 0 to below 1.",
    "WIDTHS = [8, 8]": "WIDTHS is [8, 8]: expected a list of three whole numbers from 2.",
    "TEST_IMAGES = 0": "TEST_IMAGES is 0: expected a whole number from 1.",
    "FLIP = 1": 'FLIP is 1: expected "alternating", True or False.',
}


def keras_again(output: Path, parameters: dict) -> None:
    """Notebook 1: kill -9 and Ctrl-C in the second epoch; the training cell again before and after the record."""
    parameters = {"EPOCHS": 4, "COMPARISON_EPOCHS": 1, **parameters}
    with Person(FIRST, **parameters) as killed:
        for first, end in (("", "channels = "), ("train_index, ", "dense = "), ("def augmentation", "def baseline"),
                           ("def baseline", "comparison = {"), ("validate = ", "pace = ")):  # fmt: skip
            assert killed.run(first, end) == []
        killed.type(DIE)
        with pytest.raises(RuntimeError, match="Kernel died"):
            killed.run("keras_runs.checkpoint(")
    assert len(checkpoints(FIRST)) == 1 and not list(output.rglob("keras*.json"))
    with Person(FIRST, **parameters) as person:
        assert person.run() == []
        assert "Resumed: 2 of 4 epochs are done." in person.said("keras_runs.checkpoint(")
        assert check(FIRST, output)["resumed"] is True
        (record,) = output.rglob("results/keras*.json")
        before = record.read_bytes()
        person.type(INTERRUPT.format(place="keras_runs.Progress.on_epoch_begin"))
        stopped, *later = person.run("keras_runs.checkpoint(")
        assert stopped == STOPPED.format(4)
        assert "history is not there yet, or of an earlier run" in later[0] and record.read_bytes() == before
        for resumed in (True, False):  # carries on, and after the record begins anew
            assert person.run("keras_runs.checkpoint(") == []
            assert check(FIRST, output)["resumed"] is resumed


def pytorch_again(path: Path, output: Path, parameters: dict) -> None:
    """Notebooks 2 and 3: cells again, from the middle on, interrupted, with other values and with silly ones."""
    with Person(path, TRAIN_IMAGES=1_000, **parameters) as person:
        assert person.run() == []
        assert check(path, output)["resumed"] is False
        (record,) = output.rglob(f"results/{MODELS[path]}*.json")
        before = record.read_bytes()
        for place in ("checkpoint_path(", "optimizer = "):
            first, *later = person.run(place)
            assert first.startswith("InputError: this network is trained already: run ag")
            assert first.endswith("again from the cell with `model = ...` on.")
            assert later == [] and check(path, output)["test"] == json.loads(before)["test"], "the good run stays"
        before = record.read_bytes()

        person.type(INTERRUPT.format(place="training._train_epoch"))
        assert person.run("model = ", "\n") == []
        assert person.run("optimizer = ", "plots.save") == []
        assert person.run("checkpoint_path(", "plots.training_curves") == [STOPPED.format(2)]
        changed = "LEARNING_RATE is 0.01 and was "
        assert changed in person.type("LEARNING_RATE = 0.01"), "at once"
        assert changed in person.run("optimizer = ")[0]
        assert person.run("hyperparameters = ", "model = ") == []
        first, *_ = person.run("optimizer = ", "plots.save")
        assert first.startswith("InputError: model is not there yet, or of an earlier run")
        assert record.read_bytes() == before
        for left in checkpoints(path):  # of the run that was interrupted
            left.unlink()
        if path == SECOND:
            assert person.run("hyperparameters = ") == []
            assert check(path, output)["hyperparameters"]["LEARNING_RATE"] == 0.01
            person.type("kept = dict(hyperparameters)")
            for silly, line in SILLY.items():
                assert line in person.type(silly)
                assert person.run("hyperparameters = ", "records.begin") == [f"InputError: {line}"]
                person.type("globals().update(kept)")


def test_notebooks_run_and_cells_run_again_in_any_order_give_a_whole_run_or_one_line_of_advice(run, output):
    """On a subset of CIFAR-10, where it can be found."""
    few = {"DATA_ROOT": None if real_images() else STAND_IN, "TEST_IMAGES": 500}
    both = {**few, "VALIDATION_IMAGES": 200}
    resnet, cnn = {**both, "RESOLUTION": 8, "BATCH_SIZE": 100}, {**both, "WIDTHS": [32, 64, 64]}
    with ThreadPoolExecutor(2) as side_by_side:
        tests = [side_by_side.submit(keras_again, output, few),
                 side_by_side.submit(pytorch_again, THIRD, output, resnet),
                 side_by_side.submit(pytorch_again, SECOND, output, cnn)]  # fmt: skip
        for one in tests:
            one.result()


def test_committed_int8_file_is_as_good_as_its_network(cifar):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs pip install -r further/requirements.txt")
    path = REPOSITORY / "weights" / "custom_cnn-full-seed0-int8.onnx"
    file = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    parts = [
        file.run(["probabilities"], {"pictures": cifar.test_images[k : k + 500]})[0] for k in range(0, 10_000, 500)
    ]
    right = (np.concatenate(parts).argmax(1) == cifar.test_labels).mean()
    np.testing.assert_allclose(np.concatenate(parts).sum(1), 1, atol=1e-4)
    assert file.get_modelmeta().custom_metadata_map["classes"] == ", ".join(data.CLASS_NAMES)
    (export,) = records.load(REPOSITORY / "results" / "export")
    assert export["int8_sha256"]["custom_cnn"] == hashlib.sha256(path.read_bytes()).hexdigest()
    record = next(
        r for r in records.load(REPOSITORY / "results") if (r["model"], r["profile"]) == ("custom_cnn", "full")
    )
    assert path.stat().st_size < 2_000_000 and record["test"]["accuracy"] - right <= 0.002


def test_notebooks_that_come_after_run_on_the_stand_in_without_what_is_optional(run, output, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs pip install -r further/requirements.txt")
    for name in ("CIFAR10H_ROOT", "CIFAR10C_ROOT", "CIFAR10_1_ROOT", "CIFAR100_ROOT"):
        monkeypatch.delenv(name, raising=False)
    networks = ["custom_cnn", "vit", "cct", "efficientnet", "convmixer"]
    values = {
        "4": {"TEST_IMAGES": 40, "TAIL_STEPS": 2, "TUNING_STEPS": 2, "SEVEN_STEPS": 2},
        "5": {"NETWORKS": networks, "AUGMENTED": ["cct"], "TRAIN_IMAGES": 400},
        "6": {"MODELS": ["custom_cnn"]},
    }
    with ThreadPoolExecutor(2) as side_by_side:
        asked = [(path, {"DATA_ROOT": STAND_IN} | values[path.name[0]]) for path in FURTHER]
        trust, architectures, export = side_by_side.map(lambda one: run(one[0], **one[1]), asked)

    assert len(trust["findings"]) >= 6 and "people" not in trust
    verdicts = {row["claim"]: row["verdict"] for row in trust["verdicts"]}
    assert set(verdicts.values()) <= {"holds", "holds in part", "does not hold"}
    assert {"handles class imbalance well", "generalizes well to unseen data"} <= verdicts.keys()
    assert {row["corruption"] for row in trust["corruptions"]} >= {"fog", "JPEG", "glass blur"}

    table = {row["model"]: row for row in architectures["table"]}
    assert len(table) == len(networks) and max(row["1 epoch"] for row in table.values()) > 0.15
    assert all(10_000 < row["parameters"] < 6e6 and row["pictures a second"] > 0 for row in table.values())
    policies = {"none", "flip and shift", "TrivialAugment and CutMix"}
    assert {row["policy"] for row in architectures["augmentation"]} == policies

    (agreement,), (costs,) = export["agreement"], export["costs"]
    assert (agreement["same answer"], agreement["same flag"]) == ("200 of 200", "200"), "as PyTorch answers"
    assert float(agreement["largest difference of a probability"]) < 1e-3
    assert costs["share"] < 0.27 and abs(costs["int8 loses"]) < 0.1
    assert {way["way"] for way in export["speed"]} >= {"PyTorch", "ONNX", "ONNX, int8"}
    assert len(list(output.rglob("weights/*.onnx"))) == 3
