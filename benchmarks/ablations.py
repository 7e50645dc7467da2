"""What each choice of notebook 2's recipe is worth: the notebook with and without it, on the validation images.

    python -m benchmarks.ablations [--data FOLDER] [--seeds 1] [--write]

Every run is the notebook itself in its full profile with one choice undone, in miniature: few enough images that a
dozen epochs are affordable, as what a network gains by regularisation does not show in two or three; and more
images to validate on, so that smaller differences do. The records are kept in results/ablations/; a run of the same
values is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.notebooks import CNN, build
from benchmarks.report import markdown, save
from helpers import data, results
from helpers.metrics import accuracy_interval
from helpers.training import parameter_count

MINIATURE = {"EPOCHS": 12, "TRAIN_IMAGES": 15_000, "VALIDATION_IMAGES": 10_000, "TEST_IMAGES": 1_000}
WITHOUT = {
    "Muon for the filters (instead of SGD)": {"OPTIMIZER": "sgd", "LEARNING_RATE": 0.75, "MOMENTUM": 0.85},
    "the shortcut in each block": {"SHORTCUT": False},
    "biases learn faster than the last layer": {"BIAS_LEARNING_RATE": 0.01},
    "label smoothing": {"LABEL_SMOOTHING": 0.0},
    "flips": {"FLIP": False},
    "alternating flips (instead of a coin)": {"FLIP": True},
    "shifts": {"TRANSLATE": 0},
    "cutout": {"CUTOUT": 0},
}


def run(name: str, values: dict, profile: str, environment: dict) -> dict:
    """The record of notebook 2 with these values, from results/ablations/ or from a run now."""
    stand_in = environment.get("CIFAR10_ROOT") == data.STAND_IN
    kept = data.output_folder("results", stand_in=stand_in, smoke=profile == "smoke") / "ablations" / f"{name}.json"
    if kept.exists():
        recipe = build(CNN, profile, torch.device("cpu"), torch.float32)
        expected = results.hyperparameters(recipe) | values
        record = json.loads(kept.read_text(encoding="utf-8"))
        if record["hyperparameters"] == expected and record["parameter_count"] == parameter_count(recipe["model"]):
            return record
    output = data.REPOSITORY / "runs" / "ablations" / name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    flags = [word for key, value in values.items() for word in ("-y", json.dumps({key: value}))]
    command = [sys.executable, "-m", "papermill", CNN, str(output / CNN), "-k", "python3", *flags]
    environment = environment | {"CIFAR10_OUTPUT": str(output), "CIFAR10_PROFILE": profile}
    with open(output / "log.txt", "w", encoding="utf-8") as log:
        subprocess.run(command, cwd=data.REPOSITORY, env=environment, check=True,
                       stdout=log, stderr=subprocess.STDOUT)  # fmt: skip
    made = next((output / "results").glob("*.json"))
    kept.parent.mkdir(exist_ok=True)
    data.write_text(kept, made.read_text(encoding="utf-8"))
    return json.loads(kept.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="folder that holds CIFAR-10 (the usual places)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with seeds 0, 1, ... (1)")
    parser.add_argument("--write", action="store_true", help="save the table to results/benchmarks/ablations.json")
    arguments = parser.parse_args()
    environment = os.environ | {"PYTHONPATH": str(data.REPOSITORY)}
    if arguments.data:
        environment["CIFAR10_ROOT"] = str(Path(arguments.data).resolve())
    accuracies: dict[str, list[float]] = {}
    for name, values in ({"": {}} | WITHOUT).items():
        for seed in range(arguments.seeds):
            changed = "-".join(f"{key}={value}" for key, value in values.items()) or "recipe"
            record = run(f"{changed}-seed{seed}", MINIATURE | values | {"SEED": seed}, "full", environment)
            accuracies.setdefault(name, []).append(record["history"][-1]["validation_accuracy"])
            print(f"{changed}, seed {seed}: {accuracies[name][-1]:.2%}", flush=True)
    recipe = accuracies.pop("")
    table = [{
        "choice": name,
        "with it": f"{statistics.mean(recipe):.1%}",
        "without": f"{statistics.mean(without):.1%}",
        "worth, points": f"{100 * (statistics.mean(recipe) - statistics.mean(without)):+.1f}",
    } for name, without in accuracies.items()]  # fmt: skip
    print(f"\n{markdown(table)}\n")
    seeds = f"mean of {arguments.seeds} seeds" if arguments.seeds > 1 else "one seed"
    epochs, images = len(record["history"]), record["train_images"]
    validated = record["hyperparameters"]["VALIDATION_IMAGES"]
    low, high = accuracy_interval(round(statistics.mean(recipe) * validated), validated)
    chance = 50 * (high - low) * 2**0.5  # a difference of two; more seeds see the same images
    note = (
        f"Accuracy on {validated:,} validation images after {epochs} epochs on {images:,}, {seeds}. "
        f"Differences below {chance:.1f} points may be chance (95 %, from the number of images)."
    )
    print(note)
    if arguments.write:
        rows = [{"choice": "recipe", "accuracies": recipe}]
        rows += [{"choice": name, "accuracies": without} for name, without in accuracies.items()]
        save("ablations", table, rows, ["torch"], note, medians=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
