"""What batches, the training loop and notebook 2's whole recipe cost, beside the plain ways of most tutorials.

    python -m benchmarks.speed [--quick] [--write]

Tables: `batches`, an epoch of augmented batches alone; `fit`, a step of notebook 2; `recipe`, images a second of
training; `steps`, what spares a CPU work in a training step. Plain is a DataLoader that does as torchvision's CIFAR10
with transforms (an image at a time, as a PIL image, in two worker processes), float32, SGD, the usual memory order.
Pixels do not matter, so all run on the stand-in.
"""

import contextlib
import ctypes
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from types import SimpleNamespace

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, default_collate
from torchvision import transforms

from benchmarks.notebooks import CNN, RESNET, build
from benchmarks.report import options, publish, spread, take_turns
from helpers import data, devices, files, training
from helpers.batches import Batches
from helpers.stand_in import draw

EPOCH = 50_000
FULL = SimpleNamespace(batches=EPOCH, batch=128, cnn=2_048, resnet=512, ours=5_000, repeats=5)  # images
QUICK = SimpleNamespace(batches=200, batch=4, cnn=8, resnet=4, ours=4, repeats=1)
TRANSFORM = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(),
                                transforms.ToTensor(), transforms.Normalize(data.MEAN, data.STD)])  # fmt: skip


def collate(samples: list) -> list[torch.Tensor]:
    return default_collate([(TRANSFORM(Image.fromarray(image)), int(label)) for image, label in samples])


def loader(count: int, size: int) -> DataLoader:
    samples, workers = [*zip(*draw(count, 0, seed=0)[:2])], {"num_workers": 2, "persistent_workers": True}
    batches = DataLoader(samples, size, shuffle=True, drop_last=True, collate_fn=collate, **workers)
    batches_alone(batches)  # starts the workers
    return batches


def batches_alone(batches) -> float:
    """Seconds of one pass in which nothing is trained."""
    began = time.perf_counter()
    for x, _ in batches:
        x[0, 0, 0, 0].item()  # waits for a GPU
    return time.perf_counter() - began


def bare_loop(model: nn.Module, batches, optimizer, loss_function, device, precision=torch.float32) -> float:
    """Seconds of one pass of training as one would write it by hand."""
    began = time.perf_counter()
    for x, y in batches:
        with devices.autocast(device, precision):
            loss = loss_function(model(x.to(device)).float(), y.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    loss.item()
    return time.perf_counter() - began


def plain(notebook: str, batches: DataLoader, device: torch.device) -> float:
    """Seconds of one pass with a notebook's network and nothing else of its recipe."""
    model = build(notebook, "full", device, torch.float32)["model"].to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    return bare_loop(model, batches, optimizer, nn.functional.cross_entropy, device)


def save(name: str, what: str, unit: str, runs: dict, note: str, write: bool, **columns: Callable) -> None:
    """A row for each way: median and range of its runs, and `columns` made of its median and the first way's."""
    digits, medians = {"seconds": 2, "ms a step": 1, "images/s": 0}[unit], [median(found) for found in runs.values()]
    rows, table = [], []
    for (way, found), value in zip(runs.items(), medians):
        rows.append({"what": way, unit: value, "all": found})
        more = {column: make(value, medians[0]) for column, make in columns.items()}
        table.append({what: way, unit: f"{value:,.{digits}f}", "range": spread(found, digits), **more})
    publish(name, table, rows, note, ["torch", "torchvision", "pillow"], script="speed", write=write)


def measure_batches(sizes: SimpleNamespace, write: bool) -> None:
    ours = Batches(*draw(sizes.batches, 0, seed=0)[:2], batch_size=sizes.batch, augment=True, translate=4)
    ways = {"helpers.batches": ours, "DataLoader, PIL transforms, 2 workers": loader(sizes.batches, sizes.batch)}
    runs = take_turns({way: lambda b=batches: batches_alone(b) for way, batches in ways.items()}, sizes.repeats)
    columns = {"images/s": lambda s, _: f"{ours.images / s:,.0f}", "times ours": lambda s, first: f"{s / first:.1f}"}
    note = f"Medians of {sizes.repeats}, batches of {sizes.batch}."
    save("batches", f"an epoch of {sizes.batches:,} augmented images", "seconds", runs, note, write, **columns)


def measure_training(sizes: SimpleNamespace, write: bool) -> None:
    device = devices.choose_device("auto")
    precision = devices.choose_precision(device)
    place = f"{devices.device_name(device)}, {devices.precision_name(precision)}"
    recipe = build(CNN, "full", device, precision)
    size, epochs = min(recipe["BATCH_SIZE"], sizes.ours), recipe["EPOCHS"]
    augmentation = {"augment": True} | {key: recipe[key.upper()] for key in ("flip", "translate", "cutout")}
    train = Batches(*draw(sizes.ours, 0, seed=0)[:2], batch_size=size, device=device, **augmentation)
    loss = nn.CrossEntropyLoss()
    cnn, resnet = loader(sizes.cnn, sizes.batch), loader(sizes.resnet, sizes.batch)

    def own(by_hand: bool) -> float:
        fresh = build(CNN, "full", device, precision)
        if by_hand:
            return bare_loop(fresh["model"], train, fresh["optimizer"], loss, device, precision)
        steps = {"optimizer": fresh["optimizer"], "schedule": fresh["schedule"], "loss_function": loss}
        return training.fit(fresh["model"], train, epochs=1, precision=precision, **steps)["seconds"].sum()

    own(by_hand=True)  # the first pass builds what later ones use
    ways = {"bare loop": lambda: own(True), "training.fit": lambda: own(False),
            "its batches alone": lambda: batches_alone(train)}  # fmt: skip
    others = {CNN: lambda: plain(CNN, cnn, device), RESNET: lambda: plain(RESNET, resnet, device)}
    runs = take_turns(ways | others, sizes.repeats)
    reached = 3 * recipe["flops"] * train.images / median(runs["training.fit"])  # backward: twice the forward pass
    share = reached / devices.matmul_flops(device, precision)
    note = (f"Medians of {sizes.repeats}. The network reaches {reached / 1e9:,.0f} GFLOP/s, {share:.0%} of a matrix "
            f"product's speed (model FLOPs utilisation; {place}).")  # fmt: skip
    columns = {"share of the bare loop": lambda ms, first: f"{ms / first:.1%}"}
    steps = {way: [1e3 * seconds / len(train) for seconds in runs[way]] for way in ways}
    save("fit", f"notebook 2, {size} images a step", "ms a step", steps, note, write, **columns)

    rates = {"notebook 2": [train.images / seconds for seconds in runs["training.fit"]],
             "its network, plain recipe": [sizes.cnn / seconds for seconds in runs[CNN]],
             "ResNet-18, plain recipe": [sizes.resnet / seconds for seconds in runs[RESNET]]}  # fmt: skip
    columns = {"an epoch": lambda rate, _: files.duration(EPOCH / rate),
               f"{epochs} epochs": lambda rate, _: files.duration(epochs * EPOCH / rate),
               "times ours": lambda rate, first: f"{first / rate:.1f}"}  # fmt: skip
    note = f"Medians of {sizes.repeats}; epochs of {EPOCH:,} images at the measured rate (ours: {place})."
    save("recipe", "training", "images/s", rates, note, write, **columns)


def give_memory_back() -> None:
    """Undo `devices.keep_memory`: glibc's own values."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # Windows, macOS, musl
        for option, value in ((-4, 65_536), (-1, 131_072), (-2, 131_072)):
            ctypes.CDLL(None).mallopt(option, value)


def measure_steps(sizes: SimpleNamespace, write: bool) -> None:
    """What memory that is kept and small maps side by side are worth in bfloat16 on a CPU."""

    def images_a_second(model: nn.Module, x: torch.Tensor, memory: Callable, small_maps) -> float:
        memory()
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16), small_maps():
            model(x).sum().backward()
        return len(x) / (time.perf_counter() - began)

    ways = {"as PyTorch does it": (give_memory_back, contextlib.nullcontext),
            "memory kept": (devices.keep_memory, contextlib.nullcontext),
            "and small maps side by side": (devices.keep_memory, devices.SideBySide)}  # fmt: skip
    rows, table = [], []
    for notebook, side in ((CNN, 32), (RESNET, 16), (RESNET, 24), (RESNET, 32)):
        recipe = build(notebook, "full")
        x = torch.randn(min(recipe["BATCH_SIZE"], sizes.ours), 3, side, side)
        x = x.contiguous(memory_format=torch.channels_last)
        tried = {way: partial(images_a_second, recipe["model"], x, *how) for way, how in ways.items()}
        take_turns(tried, 1)  # the first step builds what later ones use
        runs = take_turns(tried, sizes.repeats)
        name, (first, *_, last) = f"notebook {notebook[0]}, {side}×{side} pixels", map(median, runs.values())
        told = {way: f"{median(found):,.0f}" for way, found in runs.items()}
        table.append({"training, images/s": name, **told, "times as fast": f"{last / first:.2f}"})
        rows.append({"what": name, "all": runs})
    place = devices.device_name(torch.device("cpu"))
    note = f"Medians of {sizes.repeats} steps with the full profile's batches ({place}, bfloat16)."
    publish("steps", table, rows, note, ["torch"], script="speed", write=write)


if __name__ == "__main__":
    arguments = options("speed", __doc__).parse_args()
    for measure in (measure_batches, measure_training, measure_steps):
        measure(QUICK if arguments.quick else FULL, arguments.write)
