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
from further import sweep_tables

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


@pytest.mark.parametrize(("words", "said"), [
    (["--set", "RATE=1,2"], "there is no such parameter to sweep; expected PROFILE, SEED, LEARNING_RATE, EPOCHS"),
    (["--set", "LEARNING_RATE="], 'expected NAME=A,B, for example "LEARNING_RATE=0.06,0.12"'),
    (["--set", "LEARNING_RATE=0.1,hot"], 'LEARNING_RATE is "hot": expected a number above 0'),
    (["--set", "LEARNING_RATE=0.1,0.2", "--in-place"], "expected one value of LEARNING_RATE"),
    (["--seeds", "4-1"], "--seeds 4-1: expected numbers, as in 0, 0,3 or 0-4"),
    (["--resume", "runs/nothing"], "--resume runs/nothing: expected the folder of a sweep"),
    (["--grid", "no.yaml"], "--grid no.yaml: [Errno 2] No such file"),
    (["--address", "ray://127.0.0.1:9", "--data", "stand-in"], "nothing answers there"),
])  # fmt: skip
def test_mistake_is_told_in_a_line(project, words, said):
    result = call(project, *words)
    assert result.returncode == 2 and said in result.stderr, result.stdout + result.stderr
    assert len(result.stderr.splitlines()) == 1
