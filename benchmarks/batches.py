"""An epoch of augmented batches alone: helpers.batches against the DataLoader of most tutorials.

    python -m benchmarks.batches [--images 50000] [--repeats 5] [--write]

Both shuffle, shift, mirror and normalise the same images into float32 batches of 128. The DataLoader does what
torchvision's CIFAR10 and its transforms do: an image at a time, as a PIL image, in two worker processes. Nothing is
trained. The two take turns; the table has medians. The pixels do not matter, so this runs on the stand-in.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.report import markdown, save, take_turns
from helpers import data
from helpers.batches import Batches

BATCH_SIZE, WORKERS = 128, 2
GOAL = 5  # times faster


class Images(Dataset):
    """What torchvision.datasets.CIFAR10 hands out: a PIL image, transformed, and its label."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels
        self.transform = transforms.Compose([
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.MEAN, data.STD),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def seconds_of_an_epoch(batches) -> float:
    began = time.perf_counter()
    for x, _ in batches:
        assert x.shape[1:] == (3, 32, 32)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=50_000, help="in an epoch (50,000)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each; the table shows medians (5)")
    parser.add_argument("--write", action="store_true", help="save the numbers to results/benchmarks/batches.json")
    arguments = parser.parse_args()

    drawn = data.stand_in(arguments.images, 1_000)
    images, labels = drawn.train_images, drawn.train_labels
    ways = {
        "helpers.batches": Batches(images, labels, batch_size=BATCH_SIZE, augment=True, translate=4),
        f"DataLoader, PIL transforms, {WORKERS} workers": DataLoader(
            Images(images, labels),
            BATCH_SIZE,
            shuffle=True,
            drop_last=True,
            num_workers=WORKERS,
            persistent_workers=True,
        ),
    }
    for batches in ways.values():
        seconds_of_an_epoch(batches)  # starts the workers
    passes = {way: functools.partial(seconds_of_an_epoch, batches) for way, batches in ways.items()}
    runs = take_turns(passes, arguments.repeats)

    rows = [{
        "what": way,
        "seconds": round(statistics.median(seconds), 4),
        "images_per_second": round(arguments.images // BATCH_SIZE * BATCH_SIZE / statistics.median(seconds)),
        "all_seconds": [round(one, 4) for one in seconds],
    } for way, seconds in runs.items()]  # fmt: skip
    times = rows[1]["seconds"] / rows[0]["seconds"]
    table = [{
        f"an epoch of {arguments.images:,} augmented images": row["what"],
        "seconds": f"{row['seconds']:.2f}",
        "range": f"{min(row['all_seconds']):.2f} to {max(row['all_seconds']):.2f}",
        "images/s": f"{row['images_per_second']:,}",
        "times ours": f"{row['seconds'] / rows[0]['seconds']:.1f}",
    } for row in rows]  # fmt: skip
    print(f"\n{markdown(table)}\n")
    print(f"Goal: at least {GOAL} times faster than the DataLoader ({times:.1f}): {'yes' if times >= GOAL else 'no'}")
    if arguments.write:
        save("batches", table, rows, ["torch", "torchvision", "pillow"])
    return int(times < GOAL)


if __name__ == "__main__":
    sys.exit(main())
