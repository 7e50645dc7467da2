"""Notebook 2's recipe against the plain one of most tutorials: images a second of training, on this machine.

    python -m benchmarks.recipe [--repeats 3] [--write]

Plain is: an image at a time through PIL transforms in a DataLoader with two workers, batches of 128, float32, SGD with
momentum, the usual memory order; once with notebook 2's network and once with ResNet-18. Ours is the notebook's
network, optimizer, batches and precision in training.fit. All take turns; the table has medians, and what an epoch and
the notebook's number of epochs take at that rate. The pixels do not matter, so this runs on the stand-in.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.batches import BATCH_SIZE, WORKERS, Images
from benchmarks.notebooks import CNN, RESNET, build
from benchmarks.report import markdown, save, take_turns
from helpers import data, training
from helpers.batches import Batches

IMAGES = 50_000  # of an epoch


def plain_rate(notebook: str, loader: DataLoader, device: torch.device) -> float:
    """Images a second of one pass with a notebook's network and nothing else of its recipe."""
    model = build(notebook, "full", device, torch.float32)["model"].to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    batches, seen, loss = iter(loader), 0, torch.zeros(())
    next(batches)  # the workers have started
    began = time.perf_counter()
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x.to(device)), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(y)
    loss.item()  # waits for a GPU
    return seen / (time.perf_counter() - began)


def our_rate(images: int, device: torch.device) -> float:
    """Images a second of one pass with all of notebook 2's recipe."""
    precision = training.choose_precision(device)
    recipe = build(CNN, "full", device, precision)
    drawn = data.stand_in(images, 100)
    train = Batches(
        drawn.train_images, drawn.train_labels, batch_size=min(recipe["BATCH_SIZE"], images), device=device,
        augment=True, flip=recipe["FLIP"], translate=recipe["TRANSLATE"], cutout=recipe["CUTOUT"],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # the estimate, which warms up, and the progress bar
        history = training.fit(
            recipe["model"], train, optimizer=recipe["optimizer"], schedule=recipe["schedule"], epochs=1,
            precision=precision, loss_function=nn.CrossEntropyLoss(label_smoothing=recipe["LABEL_SMOOTHING"]),
        )  # fmt: skip
    return train.images / history["seconds"].sum()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe", description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=16, help="of 128 images in a pass (16; ResNet-18: a quarter)")
    parser.add_argument("--repeats", type=int, default=3, help="passes of each; the table shows medians (3)")
    parser.add_argument("--write", action="store_true", help="save the numbers to results/benchmarks/recipe.json")
    arguments = parser.parse_args()
    device = training.choose_device("auto")
    epochs = build(CNN, "full", device, torch.float32)["EPOCHS"]

    def loader(batches: int) -> DataLoader:
        drawn = data.stand_in((batches + 1) * BATCH_SIZE, 100)
        return DataLoader(Images(drawn.train_images, drawn.train_labels), BATCH_SIZE, shuffle=True, num_workers=WORKERS)

    few = max(arguments.batches // 4, 1)
    ways = {
        "notebook 2": lambda: our_rate(arguments.batches * BATCH_SIZE, device),
        "its network, plain recipe": lambda: plain_rate(CNN, loader(arguments.batches), device),
        "ResNet-18, plain recipe": lambda: plain_rate(RESNET, loader(few), device),
    }
    runs = take_turns(ways, arguments.repeats)
    rates = {way: statistics.median(found) for way, found in runs.items()}
    ours = rates["notebook 2"]
    rows = [
        {"what": way, "images_per_second": round(rate, 1), "all": [round(one, 1) for one in runs[way]]}
        for way, rate in rates.items()
    ]
    table = [{
        "training": way,
        "images/s": f"{rate:,.0f}",
        "range": f"{min(runs[way]):,.0f} to {max(runs[way]):,.0f}",
        "an epoch": training.duration(IMAGES / rate),
        f"{epochs} epochs": training.duration(epochs * IMAGES / rate),
        "times ours": f"{ours / rate:.1f}",
    } for way, rate in rates.items()]  # fmt: skip
    print(f"\n{markdown(table)}\n")
    name = f"{training.device_name(device)}; ours in {str(training.choose_precision(device)).removeprefix('torch.')}"
    note = f"Epochs of {IMAGES:,} images at the measured rate ({name})."
    print(note)
    faster = ours > max(rates["its network, plain recipe"], rates["ResNet-18, plain recipe"])
    print(f"Goal: faster than both plain recipes: {'yes' if faster else 'no'}")
    if arguments.write:
        save("recipe", table, rows, ["torch", "torchvision"], note)
    return int(not faster)


if __name__ == "__main__":
    sys.exit(main())
