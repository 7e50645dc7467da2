"""What each choice of notebook 2's recipe is worth: the notebook with and without it, on the validation images.

    python -m benchmarks.ablations [--sets ablations] [--write]

Every run is the notebook's full profile with another value, in miniature, and leaves its record in results/<set>/. A
run whose record is there is not made again: delete the folder for that. "ablations" undoes what matters most, on few
images and without cutout; "choices" asks, with more images and two seeds, what is worth little or nothing; "biases" and
"length" ask again where that left a doubt, with more seeds and at the full length.
(Values that notebook 2 has no more are read, not run; so are the runs of notebook 3 in "resnet18".)
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import mean

import numpy as np

from benchmarks.notebooks import CNN, read
from benchmarks.report import options, publish
from helpers.files import REPOSITORY, STAND_IN, InputError, output_folder, write_text
from helpers.metrics import unpacked

FEW = {"EPOCHS": 12, "TRAIN_IMAGES": 15_000, "VALIDATION_IMAGES": 10_000, "TEST_IMAGES": 1_000, "CUTOUT": 0}
SETS = {  # the values and seeds of all runs of a set, and what each run has otherwise
    "ablations": (FEW, [0], {
        "the recipe": {},
        "SGD instead of Muon for the filters": {"OPTIMIZER": "sgd", "LEARNING_RATE": 0.75, "MOMENTUM": 0.85},
        "no shortcut in the blocks": {"SHORTCUT": False},
        "no flips": {"FLIP": False},
        "no shifts": {"TRANSLATE": 0},
    }),
    "biases": (FEW, [0, 1, 2], {
        "biases that learn faster": {},
        "biases as slow as the last layer": {"BIAS_LEARNING_RATE": 0.01},
    }),
    "length": ({"EPOCHS": 40, "TRAIN_IMAGES": 45_000, "VALIDATION_IMAGES": 5_000, "TEST_IMAGES": 10_000}, [0], {
        "the recipe": {},
        "28 epochs": {"EPOCHS": 28},
        "28 epochs, no cutout": {"EPOCHS": 28, "CUTOUT": 0},
        "28 epochs, label smoothing of 0.1": {"EPOCHS": 28, "LABEL_SMOOTHING": 0.1},
    }),
    "resnet18": ({"EPOCHS": 21, "TRAIN_IMAGES": 45_000, "VALIDATION_IMAGES": 5_000, "TEST_IMAGES": 10_000}, [0], {
        "neither": {},
        "cutout of 8 pixels and label smoothing of 0.1": {"CUTOUT": 8, "LABEL_SMOOTHING": 0.1},
    }),
    "choices": ({"EPOCHS": 12, "TRAIN_IMAGES": 45_000, "VALIDATION_IMAGES": 5_000, "TEST_IMAGES": 1_000}, [0, 1], {
        "the recipe": {},
        "flips by a coin": {"FLIP": True},
        "biases as slow as the last layer": {"BIAS_LEARNING_RATE": 0.01},
        "label smoothing of 0.1": {"LABEL_SMOOTHING": 0.1},
        "no label smoothing": {"LABEL_SMOOTHING": 0.0},
        "no cutout": {"CUTOUT": 0},
        "dropout of 0.1 in the blocks": {"DROPOUT": 0.1},
        "dropout of 0.2 before the last layer": {"HEAD_DROPOUT": 0.2},
        "brightness and contrast, ±0.1": {"JITTER": 0.1},
        "SiLU for GELU": {"GELU": "SiLU"},
    }),
}  # fmt: skip


def record(kind: str, values: dict) -> dict:
    """The record of notebook 2 with these values, from results/<kind>/ or from a run now, on one thread."""
    miniature, _, _ = SETS[kind]
    name = "-".join(f"{key}={value}" for key, value in values.items())
    stand_in = STAND_IN if os.environ.get("CIFAR10_ROOT") == STAND_IN else ""
    kept = output_folder("results", own=stand_in) / kind / f"{name}.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    known, _ = read(CNN, "full", "$nothing")
    if unknown := values.keys() - known.keys():
        raise InputError(f"{', '.join(unknown)}: no parameter of notebook 2 any more, and {kept.name} is not kept.")
    output = REPOSITORY / "runs" / kind / name  # with the executed copy and a log
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    flags = [word for key, value in (miniature | values).items() for word in ("-y", json.dumps({key: value}))]
    command = [sys.executable, "-m", "papermill", CNN, str(output / CNN), "-k", "python3"]
    own = {"PYTHONPATH": str(REPOSITORY), "CIFAR10_PROFILE": "full", "CIFAR10_OUTPUT": str(output),
           "OMP_NUM_THREADS": "1"}  # fmt: skip
    with open(output / "log.txt", "w", encoding="utf-8") as log:
        subprocess.run(command + flags, cwd=REPOSITORY, env=os.environ | own, check=True, stdout=log, stderr=log)
    write_text(kept, next((output / "results").glob("*.json")).read_text(encoding="utf-8"))
    return json.loads(kept.read_text(encoding="utf-8"))


def right(made: dict) -> np.ndarray:
    """Which validation images the run got right, (n,) of 0.0 and 1.0."""
    return unpacked(made["validation_correct"])[: made["hyperparameters"]["VALIDATION_IMAGES"]].astype(float)


def published(kind: str) -> tuple[list[dict], list[dict], str]:
    """The table of a set, the numbers behind it, and its note; what has not run before runs now."""
    miniature, seeds, tried = SETS[kind]
    epochs, images, validated = (miniature[key] for key in ("EPOCHS", "TRAIN_IMAGES", "VALIDATION_IMAGES"))
    wanted = [values | {"SEED": seed} for values in tried.values() for seed in seeds]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(partial(record, kind), wanted))
    groups = [made[k : k + len(seeds)] for k in range(0, len(made), len(seeds))]
    share = [np.mean([right(one) for one in group], axis=0) for group in groups]  # of the seeds, image by image
    table, rows = [], []
    for name, group, mine in zip(tried, groups, share):
        ends = [one["history"][-1] for one in group]
        loss = mean(end["validation_loss"] for end in ends)
        apart = 100 * (mine - share[0])
        margin = 1.96 * apart.std() / validated**0.5
        table.append({"recipe": name, "validation accuracy": f"{mine.mean():.1%}", "loss": f"{loss:.3f}",
                      "difference, points": f"{apart.mean():+.1f} ± {margin:.1f}" if rows else ""})  # fmt: skip
        rows.append({"recipe": name, "accuracies": [end["validation_accuracy"] for end in ends], "loss": loss})
    number = "one seed" if len(seeds) == 1 else f"means of {len(seeds)} seeds"
    note = (f"{validated:,} validation images after {epochs} epochs on {images:,}, {number}; ± is the 95 % interval of "
            "the difference, image by image.")  # fmt: skip
    return table, rows, note


def main(words: list[str] | None = None) -> None:
    parser = options("ablations", __doc__, quick=False)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS], help="(all)")
    arguments = parser.parse_args(words)
    for kind in arguments.sets:
        script = f"ablations --sets {kind}"
        publish(kind, *published(kind), ["torch"], script=script, write=arguments.write)


if __name__ == "__main__":
    main()
