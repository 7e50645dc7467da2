"""Sweeps on Ray: every combination once, failures told, what is missing resumed, a lost machine survived."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("ray", reason="needs pip install -r further/requirements-sweep.txt")
from benchmarks.sweep import copied
from further import sweep_plan, sweep_tables

PARAMETERS = 'PROFILE = "auto"  # a\nSEED = 0  # b\nLEARNING_RATE = 0.1  # c\nEPOCHS = 1  # d'
TRAIN = """\
import json, os, time
from pathlib import Path
out = Path(os.environ["CIFAR10_OUTPUT"])
if LEARNING_RATE > 1: raise ValueError("too hot")
with open(Path(os.environ["MARKS"]) / f"{LEARNING_RATE}-{SEED}", "a") as file: file.write("x")
while (Path(os.environ["MARKS"]) / f"hold-{SEED}").exists(): time.sleep(0.1)
score = 0.5 + LEARNING_RATE + 0.01 * SEED
record = {"model": "custom_cnn", "history": [{"validation_accuracy": score}], "test": {"accuracy": 0.99},
          "train_seconds": 1.0, "hyperparameters": {"LEARNING_RATE": LEARNING_RATE, "SEED": SEED},
          "data": "CIFAR-10", "profile": "quick", "seed": SEED}
(out / "results").mkdir()
(out / "results" / f"custom_cnn-quick-seed{SEED}.json").write_text(json.dumps(record))
"""
LOSE_ONE = """\
import os, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from further import sweep
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
marks = Path(os.environ["MARKS"])

def lose():
    while len(list(marks.glob("0.1-*"))) < 2: time.sleep(0.1)
    cluster.remove_node(other, allow_graceful=False)
    for seed in range(4): (marks / f"hold-{seed}").unlink(missing_ok=True)

threading.Thread(target=lose, daemon=True).start()
status = sweep.main(["--set", "LEARNING_RATE=0.1", "--seeds", "0-3", "--data", "stand-in", "--profile", "smoke",
                     "--address", cluster.address])
cluster.shutdown()
sys.exit(status)
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of what a sweep needs, with a notebook that takes a second."""
    (tmp_path / "marks").mkdir()
    return copied(tmp_path / "project", TRAIN, PARAMETERS)


def call(project: Path, *words: str, script: str = "") -> subprocess.CompletedProcess:
    env = os.environ | {"MARKS": str(project.parent / "marks"), "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    env.pop("CIFAR10_OUTPUT", None)
    command = [sys.executable, "-c", script] if script else [sys.executable, "run.py", "sweep", "--no-venv", *words]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=300)


def folders(project: Path) -> list[Path]:
    return sorted((project / "runs").glob("sweep-*"))


def test_sweep_tries_every_combination_tells_failures_and_resumes(project):
    words = ["--set", "LEARNING_RATE=0.1,0.2,2", "--seeds", "0-1", "--data", "stand-in", "--profile", "smoke"]
    result = call(project, *words, "--jobs", "2")
    assert result.returncode == 1, result.stdout + result.stderr
    failed = [line for line in result.stdout.splitlines() if " failed: " in line]
    assert len(failed) == 2 and all("LEARNING_RATE = 2" in line and "too hot" in line for line in failed)
    assert "4 done, 0 running, 0 waiting, 2 failed" in result.stdout
    assert "Best by validation accuracy: LEARNING_RATE = 0.2 with 70.50% (2 seeds)" in result.stdout
    (folder,) = folders(project)
    table = pd.read_csv(folder / "sweep.csv")
    assert len(table) == 4 and "test accuracy" not in table, "the sweep chose by the validation images"
    for row in table.itertuples():
        record = json.loads(next((folder / f"{row.trial:03d}").rglob("results/*.json")).read_text())
        assert record["hyperparameters"] == {"LEARNING_RATE": row.LEARNING_RATE, "SEED": row.SEED}
    assert {"sweep.html", "sweep.png"} <= {path.name for path in folder.iterdir()}
    marks = project.parent / "marks"
    shutil.rmtree(folder / "001")
    plan = folder / "sweep.json"
    plan.write_text(plan.read_text().replace('"in_place": false', '"in_place": true'))
    results = project / "results"
    results.mkdir()
    shutil.copy(next((folder / "000").rglob("results/*.json")), results / "custom_cnn-quick-seed7.json")
    resumed = call(project, "--resume", str(folder))
    kept = sorted(path.name for path in results.iterdir())
    assert kept == [f"custom_cnn-quick-seed{seed}.json" for seed in (0, 1, 7)]
    assert all('"LEARNING_RATE": 0.1' in path.read_text() for path in results.iterdir())
    assert resumed.stdout.count("stays there") == 2, "the runs of another learning rate"
    assert "6 trials, 3 of them done before" in resumed.stdout and resumed.returncode == 1
    done = {path.name: len(path.read_text()) for path in marks.glob("0*")}
    assert done == {"0.1-0": 1, "0.1-1": 2, "0.2-0": 1, "0.2-1": 1}


def test_trials_of_a_machine_that_is_lost_run_elsewhere(project):
    marks = project.parent / "marks"
    for seed in range(4):
        (marks / f"hold-{seed}").touch()
    result = call(project, script=textwrap.dedent(LOSE_ONE))
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert "4 done, 0 running, 0 waiting, 0 failed" in result.stdout
    tried = sum(len(path.read_text()) for path in marks.glob("0.1-*"))
    assert tried == 5, "one of them twice"
    assert len(sweep_tables.read(folders(project)[0])) == 4, "and each has one record, on the driver's disk"


def test_plan_takes_a_grid_with_lists_and_leaves_out_what_stands_twice_or_is_there(project, monkeypatch):
    monkeypatch.setattr(sweep_plan, "REPOSITORY", project)
    grid = project / "grid.yaml"
    grid.write_text("WIDTHS: [[8, 8, 8], [4, 4, 4]]\nLEARNING_RATE: [1e-3, 0.1, 0.001]")
    notebook = project / "2_Model_Training_CNN.ipynb"
    notebook.write_text(notebook.read_text().replace("EPOCHS = 1", "WIDTHS = 1"))
    trials = sweep_plan.plan(sweep_plan.parse(["--grid", str(grid), "--seeds", "3"], ""))
    values = [{**trial["values"]} for trial in trials]
    rates = [{"LEARNING_RATE": rate, "SEED": 3} for rate in (0.001, 0.1)]
    assert values == [{"WIDTHS": widths, **rate} for widths in ([8, 8, 8], [4, 4, 4]) for rate in rates]


ROW = {"model": "custom_cnn", "test accuracy": 0.9, "train seconds": 1.0, "correct": None}


def rows(*found: dict) -> pd.DataFrame:
    return pd.DataFrame([ROW | {"trial": f"{k:03d}"} | row for k, row in enumerate(found)])


def best_of(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    best = sweep_tables.by_setting(table, "validation accuracy")
    sweep_tables.figure(table, best, "validation accuracy")
    return best, sweep_tables.verdict(table, best, "validation accuracy")


@pytest.mark.parametrize(("noise", "said"), [(0.0001, "is hardly chance (p = 0.0"), (0.01, "may be chance (p = 0.")])
def test_best_setting_is_told_with_what_speaks_for_it(noise, said):
    table = rows(*[{"WEIGHT_DECAY": value, "SEED": seed, "validation accuracy": 0.8 + 100 * value + noise * seed * sign}
                   for value, sign in ((1e-5, 1), (2e-5, -1)) for seed in (-1, 0, 1)])  # fmt: skip
    best, sentence = best_of(table)
    assert sentence.startswith(
        "Best by validation accuracy: WEIGHT_DECAY = 2e-05 with 80.20% (3 seeds). Its lead of 0.10"
    )
    assert said in sentence and "0.00001" in sweep_tables.rounded(best).to_string()


def test_setting_that_lacks_a_seed_or_is_of_another_model_is_told_apart():
    lone = {"MOMENTUM": 0.9, "SEED": 0, "validation accuracy": 0.99}
    table = rows(lone, *[{"MOMENTUM": 0.5, "SEED": seed, "validation accuracy": 0.8} for seed in (0, 1)])
    assert best_of(table)[1].startswith("Best by validation accuracy: MOMENTUM = 0.5 with 80.00% (2 seeds)")
    other = {"model": "resnet18", "WARMUP": 0.1, "SEED": 0, "validation accuracy": 0.7, "correct": "0f"}
    _, sentence = best_of(rows({"SEED": 0, "validation accuracy": 0.8, "correct": "ff00"}, other))
    assert "custom_cnn with the recipe with 80.00% (1 seed). Its lead of 10.00 points" in sentence
    assert sentence.endswith("over resnet18 with WARMUP = 0.1 may be chance.")


@pytest.mark.parametrize(("words", "said"), [
    (["--set", "RATE=1,2"], "there is no such parameter to sweep; expected LEARNING_RATE, EPOCHS"),
    (["--set", "LEARNING_RATE="], 'expected NAME=A,B, for example "LEARNING_RATE=0.06,0.12"'),
    (["--set", "LEARNING_RATE=0.1,hot"], 'LEARNING_RATE is "hot": expected a number above 0'),
    (["--set", "LEARNING_RATE=0.1", "--in-place"], "--in-place is for the notebooks' own values"),
    (["--data", "no/such"], "--data no/such: no such folder"),
    (["--seeds", "4-1"], "--seeds 4-1: expected numbers, as in 0, 0,3 or 0-4"),
    (["--resume", "runs/nothing"], "--resume runs/nothing: expected the folder of a sweep"),
    (["--grid", "no.yaml"], "--grid no.yaml: No such file"),
    (["--address", "ray://127.0.0.1:9", "--data", "stand-in"], "nothing answers there"),
])  # fmt: skip
def test_mistake_is_told_in_a_line(project, words, said):
    result = call(project, *words)
    assert result.returncode == 2 and said in result.stderr, result.stdout + result.stderr
    assert len(result.stderr.splitlines()) == 1
