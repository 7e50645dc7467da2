"""benchmarks/: each script runs in a small configuration and prints its table; the numbers mean nothing here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import ablations, notebooks
from helpers import data

ROOT = data.REPOSITORY


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess:
    """`python -m benchmarks.<words>`; its output is printed where a test fails."""
    ran = subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=ROOT, env=os.environ | environment,
        capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    print(ran.stdout, ran.stderr)
    return ran


def table_rows(text: str) -> list[str]:
    """The first cells of the Markdown table in `text`."""
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][2:]


def test_download(output):
    ran = run("benchmarks.download", "--megabytes", "3", "--torchvision-seconds", "1", "--repeats", "1", "--write")
    assert ran.returncode == 0
    assert "Goal: a throttled mirror costs at most 5 s" in ran.stdout
    assert ran.stderr == ""
    found = json.loads((output / "results" / "benchmarks" / "download.json").read_text())
    assert found.keys() == {"date", "python", "versions", "table", "note", "medians", "measurements"}
    rows = {row["what"]: row for row in found["measurements"]}
    assert table_rows(ran.stdout) == [*rows]
    assert [next(iter(row.values())) for row in found["table"]] == [*rows]
    stopped = rows.pop("torchvision, throttled server")
    assert 0 < stopped["bytes"] < 1_000_000
    assert "at this rate" in stopped["note"]
    assert {row["bytes"] for row in rows.values()} == {3_000_000}


def test_batches(output):
    ran = run("benchmarks.batches", "--images", "2000", "--repeats", "1", "--write")
    assert ran.returncode in (0, 1)
    found = json.loads((output / "results" / "benchmarks" / "batches.json").read_text())
    ours, loader = found["measurements"]
    assert table_rows(ran.stdout) == [ours["what"], loader["what"]]
    assert ours["images_per_second"] > loader["images_per_second"]


def test_fit(output):
    ran = run("benchmarks.fit", "--images", "500", "--repeats", "1", "--write")
    assert ran.returncode in (0, 1)
    found = json.loads((output / "results" / "benchmarks" / "fit.json").read_text())
    *ways, utilisation = found["measurements"]
    assert table_rows(ran.stdout) == [way["what"] for way in ways]
    bare, fit, batches = (way["seconds_a_step"] for way in ways)
    assert 0 < batches < 0.5 * bare
    assert 0.3 < fit / bare < 3
    assert 0 < utilisation["share"] < 1.5
    assert found["note"] in ran.stdout


def test_recipe(output):
    ran = run("benchmarks.recipe", "--batches", "2", "--repeats", "1", "--write")
    assert ran.returncode in (0, 1)
    found = json.loads((output / "results" / "benchmarks" / "recipe.json").read_text())
    rates = {row["what"]: row["images_per_second"] for row in found["measurements"]}
    assert table_rows(ran.stdout) == [*rates]
    ours, same_network, resnet = rates.values()
    assert ours > same_network > resnet > 0
    assert found["note"] in ran.stdout


def test_ablations_keep_a_run_of_the_same_values(output, monkeypatch):
    """The notebook runs once for each set of values, on the stand-in here; the second time its record is there."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CIFAR10_ROOT": data.STAND_IN}
    values = {"TRANSLATE": 0, "EPOCHS": 1, "TRAIN_IMAGES": 500, "VALIDATION_IMAGES": 200, "TEST_IMAGES": 200}
    record = ablations.run("no-shifts", values, "smoke", environment)
    kept = output / "results" / "ablations" / "no-shifts.json"
    assert json.loads(kept.read_text()) == record
    assert values.items() <= record["hyperparameters"].items()
    assert 0 <= record["history"][-1]["validation_accuracy"] <= 1

    def no_second_run(*words, **options):
        raise RuntimeError("the notebook was started")

    monkeypatch.setattr(ablations.subprocess, "run", no_second_run)
    assert ablations.run("no-shifts", values, "smoke", environment) == record
    with pytest.raises(RuntimeError, match="was started"):
        ablations.run("no-shifts", values | {"EPOCHS": 2}, "smoke", environment)


def test_every_ablation_changes_the_recipe():
    recipe = notebooks.build(notebooks.CNN, "full", torch.device("cpu"), torch.float32)
    for name, values in ablations.WITHOUT.items():
        assert all(recipe[key] != value for key, value in values.items()), name


def real_folder() -> Path | None:
    """The folder above the real `cifar-10-batches-py`, where there is one."""
    files = [f"{data.FOLDER}/{name}" for name in data.FILE_MD5]
    return next((place for place, _ in data._places(None) if all((place / file).is_file() for file in files)), None)


def test_loading(cifar, output):
    folder = real_folder()
    if folder is None:
        pytest.skip(f"needs {data.FOLDER}: CIFAR-10 is here in another container")
    ran = run("benchmarks.loading", "--data", folder, "--repeats", "1", "--write", KERAS_BACKEND="torch")
    assert ran.returncode in (0, 1)
    rows = json.loads((output / "results" / "benchmarks" / "loading.json").read_text())["measurements"]
    assert table_rows(ran.stdout) == [row["what"].removesuffix(", load") for row in rows[::2]]
    assert rows[0]["what"] == "load_cifar10, load"
    assert all(row["seconds"] > rows[0]["seconds"] for row in rows[1:])
    pixels = cifar.train_images.size + cifar.test_images.size
    assert rows[0]["peak_bytes"] < 0.1 * pixels  # mapped, not read
    assert all(row["peak_bytes"] > 0.9 * pixels for row in rows[1:])


def test_loading_without_the_data_is_one_clear_line(tmp_path):
    ran = run("benchmarks.loading", "--data", tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.startswith("no CIFAR-10 in ")
    assert "Traceback" not in ran.stderr
