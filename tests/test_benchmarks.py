"""benchmarks/: each script runs in its smallest configuration; what it measures then means nothing, and is not read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablations, notebooks
from helpers import metrics
from helpers.files import REPOSITORY, InputError
from helpers.records import MODELS

KEYS = {"date", "python", "versions", "script", "table", "note", "measurements"}
SCRIPTS = {  # the tables that each writes, with what stands in their first column
    "speed": {
        "batches": ["helpers.batches", "DataLoader, PIL transforms, 2 workers"],
        "fit": ["bare loop", "training.fit", "its batches alone"],
        "recipe": ["notebook 2", "its network, plain recipe", "ResNet-18, plain recipe"],
        "steps": ["notebook 2, 32×32 pixels", *(f"notebook 3, {side}×{side} pixels" for side in (16, 24, 32))],
    },
    "inference": {"inference": [*MODELS.values()]},
}


def first_column(found: dict) -> list[str]:
    return [next(iter(row.values())) for row in found["table"]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_prints_and_writes_its_tables(script, output):
    one_thread = {"OMP_NUM_THREADS": "1"}  # threads that wait for each other are slow beside other programs
    ran = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", "--quick", "--write"], cwd=REPOSITORY,
        env=os.environ | one_thread, capture_output=True, text=True, encoding="utf-8", timeout=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    for name, rows in SCRIPTS[script].items():
        found = json.loads((output / "results" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))
        assert found.keys() == KEYS
        assert found["script"] == script
        assert first_column(found) == rows
        assert all(f"| {row} |" in ran.stdout for row in rows)
        assert found["note"] in ran.stdout
    if script == "inference":  # what helpers.report reads
        assert [row["model"] for row in found["measurements"]] == [*MODELS]
        assert all(row["milliseconds"] > 0 < row["images_per_second"] for row in found["measurements"])


@pytest.fixture
def runs(monkeypatch) -> list[dict]:
    """Papermill writes a record of what it is asked for, and nothing is trained; the values of each run so far."""
    asked = []

    def papermill(command: list[str], env: dict, **_):
        values = {k: v for word in command[command.index("-y") + 1 :: 2] for k, v in json.loads(word).items()}
        recipe = notebooks.build(notebooks.CNN, "full")
        history = [{"validation_accuracy": 0.5, "validation_loss": 1.0}]
        correct = np.arange(values["VALIDATION_IMAGES"]) < 5_000 - 100 * len(asked)
        made = {"hyperparameters": recipe["hyperparameters"] | values, "validation_correct": metrics.packed(correct)}
        results = Path(env["CIFAR10_OUTPUT"]) / "results"
        results.mkdir()
        (results / "made.json").write_text(json.dumps(made | {"history": history}), encoding="utf-8")
        asked.append(values)

    monkeypatch.setattr(ablations.subprocess, "run", papermill)
    return asked


def test_ablations_run_once_for_each_set_of_values(output, runs, capsys, monkeypatch):
    monkeypatch.setattr(ablations.os, "cpu_count", lambda: 1)
    ablations.main(["--sets", "ablations", "--write"])
    tried = ablations.SETS["ablations"][2]
    assert len(runs) == len(tried)
    found = json.loads((output / "results" / "benchmarks" / "ablations.json").read_text(encoding="utf-8"))
    assert found.keys() == KEYS
    assert first_column(found) == [*tried]
    assert [row["difference, points"] for row in found["table"]][:3] == ["", "-1.0 ± 0.2", "-2.0 ± 0.3"]
    assert found["note"] in capsys.readouterr().out
    ablations.main(["--sets", "ablations"])
    assert len(runs) == len(tried)  # all are there
    with pytest.raises(InputError, match=r"^NO_SUCH: no parameter of notebook 2 any more, and NO_SUCH=1\.json is not"):
        ablations.record("ablations", {"NO_SUCH": 1})


def test_every_ablation_changes_the_recipe():
    recipe = notebooks.build(notebooks.CNN, "full")
    for _, _, tried in ablations.SETS.values():
        for name, values in tried.items():
            assert all(recipe.get(key) != value for key, value in values.items()), name
