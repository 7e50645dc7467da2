"""A training step of notebook 2's network: training.fit against a bare PyTorch loop, and where the time goes.

    python -m benchmarks.fit [--images 5000] [--repeats 5] [--write]

The network, its optimizer and its batch size are the notebook's own (its full profile). Both train from the same first
weights, in the same precision, on the same augmented batches, and take turns; the table has medians of seconds a step.
Beside it: the batches alone, and the share that the network reaches of the operations a second of a matrix product,
measured here too. The pixels do not matter for the time, so this runs on the stand-in.
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

from benchmarks.notebooks import CNN, build
from benchmarks.report import markdown, save, take_turns
from helpers import data, training
from helpers.batches import Batches

GOAL_FIT, GOAL_BATCHES = 0.03, 0.05  # shares of a step


def bare_loop(model: nn.Module, train: Batches, optimizer: torch.optim.Optimizer, precision: torch.dtype) -> float:
    """Seconds of one pass over `train` as one would write it by hand."""
    began = time.perf_counter()
    for x, y in train:
        with training.autocast(train.device, precision):
            loss = nn.functional.cross_entropy(model(x).float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    loss.item()  # waits for a GPU
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=5_000, help="in a pass (5,000)")
    parser.add_argument("--repeats", type=int, default=5, help="passes of each; the table shows medians (5)")
    parser.add_argument("--write", action="store_true", help="save the numbers to results/benchmarks/fit.json")
    arguments = parser.parse_args()
    device = training.choose_device("auto")
    precision = training.choose_precision(device)
    drawn = data.stand_in(arguments.images, 100)
    recipe = build(CNN, "full", device, precision)
    batch_size = min(recipe["BATCH_SIZE"], arguments.images)
    train = Batches(drawn.train_images, drawn.train_labels, batch_size=batch_size, device=device, augment=True)

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        again = build(CNN, "full", device, precision)
        return again["model"], again["optimizer"]

    def fit() -> float:
        model, optimizer = fresh()
        with contextlib.redirect_stdout(io.StringIO()):  # the estimate and the progress bar
            return training.fit(model, train, optimizer=optimizer, epochs=1, precision=precision)["seconds"].sum()

    def bare() -> float:
        model, optimizer = fresh()
        return bare_loop(model, train, optimizer, precision)

    def batches() -> float:
        began = time.perf_counter()
        for x, _ in train:
            x[0, 0, 0, 0].item()
        return time.perf_counter() - began

    ways = {"bare loop": bare, "training.fit": fit, "its batches alone": batches}
    bare()  # the first pass builds what later ones use
    runs = {way: [one / len(train) for one in passes] for way, passes in take_turns(ways, arguments.repeats).items()}
    steps = {way: statistics.median(seconds) for way, seconds in runs.items()}
    overhead = steps["training.fit"] / steps["bare loop"] - 1
    share = steps["its batches alone"] / steps["training.fit"]
    reached = 3 * training.forward_flops(recipe["model"]) * batch_size / steps["training.fit"]
    utilisation = reached / training.matmul_flops(device, precision)

    rows = [
        {"what": way, "seconds_a_step": seconds, "all_seconds": [round(one, 5) for one in runs[way]]}
        for way, seconds in steps.items()
    ] + [{"what": "model FLOPs utilisation", "share": round(utilisation, 4), "flops": round(reached)}]
    table = [{
        f"notebook 2, {batch_size} images a step": way,
        "ms a step": f"{1e3 * seconds:.1f}",
        "range": f"{1e3 * min(runs[way]):.1f} to {1e3 * max(runs[way]):.1f}",
        "share of the bare loop": f"{seconds / steps['bare loop']:.1%}",
    } for way, seconds in steps.items()]  # fmt: skip
    print(f"\n{markdown(table)}\n")
    device_name = f"{training.device_name(device)}, {str(precision).removeprefix('torch.')}"
    note = (
        f"The network reaches {reached / 1e9:,.0f} GFLOP/s, {utilisation:.0%} of a matrix product's speed "
        f"(model FLOPs utilisation; {device_name})."
    )
    print(note)
    goals = {
        f"fit costs at most {GOAL_FIT:.0%} more than the bare loop ({overhead:+.1%})": overhead <= GOAL_FIT,
        f"batches take at most {GOAL_BATCHES:.0%} of a step ({share:.1%})": share <= GOAL_BATCHES,
    }
    for goal, met in goals.items():
        print(f"Goal: {goal}: {'yes' if met else 'no'}")
    if arguments.write:
        save("fit", table, rows, ["torch"], note)
    return int(not all(goals.values()))


if __name__ == "__main__":
    sys.exit(main())
