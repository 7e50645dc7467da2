"""What each choice of notebook 2's recipe is worth: the notebook with and without it, on the validation images.

    python -m benchmarks.ablations [--seeds 1] [--write]

Every run is the notebook's full profile with one choice undone, in miniature: so few images that a dozen epochs are
affordable, as what regularisation gains does not show in three, and more to validate on, so that smaller differences
do. The records are kept in results/ablations/; a run of the same values is not made again.
"""

import json
import os
import shutil
import subprocess
import sys
from statistics import mean

from benchmarks.notebooks import CNN, build
from benchmarks.report import options, publish
from helpers.files import REPOSITORY, STAND_IN, output_folder, write_text
from helpers.metrics import accuracy_interval

MINIATURE = {"EPOCHS": 12, "TRAIN_IMAGES": 45_000, "VALIDATION_IMAGES": 5_000, "TEST_IMAGES": 1_000}
TRIED = {
    "recipe": {},
    "flips by a coin instead of alternating": {"FLIP": True},
    "biases as slow as the last layer": {"BIAS_LEARNING_RATE": 0.01},
    "no label smoothing": {"LABEL_SMOOTHING": 0.0},
    "label smoothing of 0.1": {"LABEL_SMOOTHING": 0.1},
    "no cutout": {"CUTOUT": 0},
    "dropout of 0.1 in the blocks": {"DROPOUT": 0.1},
    "dropout of 0.2 before the last layer": {"HEAD_DROPOUT": 0.2},
    "brightness and contrast": {"JITTER": 0.1},
    "SiLU for GELU": {"SILU": True},  # not a parameter: the cell is edited
}


def record(name: str, values: dict) -> dict:
    """The record of notebook 2 with these values, from results/ablations/ or from a run now."""
    output = REPOSITORY / "runs" / "ablations" / name  # with the executed copy and a log
    stand_in = STAND_IN if os.environ.get("CIFAR10_ROOT") == STAND_IN else ""
    kept = output_folder("results", own=stand_in) / "ablations" / f"{name}.json"
    if kept.exists():
        recipe, found = build(CNN, "full"), json.loads(kept.read_text(encoding="utf-8"))
        expected = {"hyperparameters": recipe["hyperparameters"] | values, "parameter_count": recipe["parameters"]}
        if expected.items() <= found.items():
            return found
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    flags = [word for key, value in values.items() for word in ("-y", json.dumps({key: value}))]
    command = [sys.executable, "-m", "papermill", CNN, str(output / CNN), "-k", "python3", *flags]
    own = {"PYTHONPATH": str(REPOSITORY), "CIFAR10_PROFILE": "full", "CIFAR10_OUTPUT": str(output)}
    with open(output / "log.txt", "w", encoding="utf-8") as log:
        subprocess.run(command, cwd=REPOSITORY, env=os.environ | own, check=True, stdout=log, stderr=log)
    made = next((output / "results").glob("*.json")).read_text(encoding="utf-8")
    write_text(kept, made)
    return json.loads(made)


def main(words: list[str] | None = None) -> None:
    parser = options("ablations", __doc__, quick=False)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with seeds 0, 1, ... (1)")
    arguments = parser.parse_args(words)
    rows = []
    for choice, values in ({"recipe": {}} | WITHOUT).items():
        name = "-".join(f"{key}={value}" for key, value in values.items()) or "recipe"
        found = [record(f"{name}-seed{seed}", MINIATURE | values | {"SEED": seed}) for seed in range(arguments.seeds)]
        rows.append({"choice": choice, "accuracies": [one["history"][-1]["validation_accuracy"] for one in found]})
        print(f"{name}: {rows[-1]['accuracies']}", flush=True)
    recipe, *others = [mean(row["accuracies"]) for row in rows]
    table = [{"choice": choice, "with it": f"{recipe:.1%}", "without": f"{without:.1%}",
              "worth, points": f"{100 * (recipe - without):+.1f}"}
             for choice, without in zip(WITHOUT, others)]  # fmt: skip
    epochs, images, validated, _ = MINIATURE.values()
    low, high = accuracy_interval(round(recipe * validated), validated)
    chance = 50 * (high - low) * 2**0.5  # a difference of two; more seeds see the same images
    seeds = f"mean of {arguments.seeds} seeds" if arguments.seeds > 1 else "one seed"
    note = (f"Accuracy on {validated:,} validation images after {epochs} epochs on {images:,}, {seeds}. Differences "
            f"below {chance:.1f} points may be chance (95 %, from the number of images).")  # fmt: skip
    publish("ablations", table, rows, note, ["torch"], script="ablations", write=arguments.write)


if __name__ == "__main__":
    main()
