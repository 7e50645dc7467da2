"""The training loop of both PyTorch notebooks, and predictions.

history = fit(model, train, validation, optimizer=optimizer, schedule=schedule, epochs=10, checkpoint=path)
logits, labels = predict(model, test)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from helpers import cells, checkpoints, profiles
from helpers.batches import Batches
from helpers.devices import autocast, choose_precision, keep_memory
from helpers.files import InputError, Stopped
from helpers.metrics import packed, refuse_infinite


def fit(
    model: nn.Module,
    train: Batches,
    validation: Batches | None = None,
    *,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    epochs: int,
    loss_function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
    precision: torch.dtype | None = None,
    checkpoint: Path | None = None,
    settings: dict | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train `model` for `epochs` passes over `train`; the history has one row an epoch.

    schedule: stepped after every step of the optimizer, not every epoch.
    precision: the type for autocast; None asks `choose_precision`. float16 scales the loss (GradScaler).
    checkpoint: a file to which each finished epoch is saved; if it exists, training carries on from it and ends with
        the weights, bit for bit on the CPU with as many threads, that an uninterrupted run gives.
    settings: plain values that a checkpoint must share, else it is refused (the hyperparameters, say).

    Columns: epoch (from 1), resolution (pixels), train_loss (nats, as optimised), train_accuracy (on augmented
    images, during the epoch), learning_rate (at its end), seconds (of training, without validation), and
    validation_loss, validation_accuracy where `validation` is given; attrs["resumed"] tells of a resume.
    attrs["validation_correct"]: which validation images it got right at the end, as hexadecimal digits of bits.

    Raises InputError for epochs < 1, a loss that is no longer finite, and a network, optimizer or schedule that was
    used before and that no checkpoint sets back; CheckpointError for a checkpoint that does not fit; Stopped at Ctrl-C.
    """
    if epochs < 1:
        raise InputError(f"EPOCHS is {epochs}: expected at least 1 pass over the training set.")
    profiles.current()
    keep_memory()
    precision = precision or choose_precision(train.device)
    scaler = torch.amp.GradScaler(train.device.type, enabled=precision == torch.float16)
    state = {"model": model, "optimizer": optimizer, "scaler": scaler}
    if schedule is not None:
        state["schedule"] = schedule
    tensors = " + ".join(str(len(group["params"])) for group in optimizer.param_groups)
    settings = {**(settings or {}), "epochs": epochs, "steps": len(train), "precision": str(precision),
                "optimizer": f"{type(optimizer).__name__} of {tensors} tensors",
                "schedule": type(schedule).__name__}  # fmt: skip
    _refuse_used(model, optimizer, schedule, begun=checkpoint is not None and checkpoint.exists())
    if cells.namespace.get("model") is model:  # the notebook's own, not one of an experiment beside it
        cells.drop(*cells.TRAINED)
    history = checkpoints.resume(checkpoint, state, settings) if checkpoint else []
    model.trained_before, saved = True, len(history) if checkpoint and checkpoint.exists() else None
    if saved is None and cells.namespace and cells.namespace.get("model") is not model:
        saved = 0  # its cell makes it anew
    resumed, correct = bool(history), None
    bar = tqdm(
        total=epochs * len(train), initial=len(history) * len(train), unit="step", file=sys.stdout, ncols=96,
        mininterval=0.5, disable=len(history) == epochs or not progress,
    )  # fmt: skip
    try:
        for epoch in range(len(history), epochs):
            bar.set_description(f"epoch {epoch + 1}/{epochs}")
            train.epoch = epoch  # order and augmentation follow from the seed and the epoch
            row = {"epoch": epoch + 1, "resolution": train.resolution}
            start = time.perf_counter()
            loss, accuracy = _train_epoch(model, train, optimizer, schedule, loss_function, precision, scaler, bar)
            row |= {"train_loss": loss, "train_accuracy": accuracy, "learning_rate": optimizer.param_groups[0]["lr"]}
            row["seconds"] = time.perf_counter() - start
            refuse_infinite(loss, "training", epoch)
            if validation is not None:
                scores, correct = _validate(model, validation, precision, epoch)
                row |= scores
                refuse_infinite(row["validation_loss"], "validation", epoch)
                bar.set_postfix_str(f"validation {row['validation_accuracy']:.1%}")
            history.append(row)
            if checkpoint and checkpoints.save(checkpoint, state, settings, history):
                saved = len(history)
    except KeyboardInterrupt:
        raise Stopped(len(history) + 1, epochs, saved) from None
    finally:
        bar.close()
    table = pd.DataFrame(history)
    table.attrs["resumed"] = resumed
    if validation is not None:
        correct = _validate(model, validation, precision, epochs - 1)[1] if correct is None else correct
        table.attrs["validation_correct"] = packed(correct.numpy())
    return table


def _refuse_used(model: nn.Module, optimizer, schedule, *, begun: bool) -> None:
    """Raise InputError for parts that do not belong together, or that were used when no checkpoint has begun."""
    again = "run again from the cell with `{} = ...` on"
    theirs = {id(w) for group in optimizer.param_groups for w in group["params"]}
    if theirs - {id(w) for w in model.parameters()}:
        raise InputError(f"the optimizer is of another network: {again.format('optimizer')}.")
    if schedule is not None and schedule.optimizer is not optimizer:
        raise InputError(f"the schedule is of another optimizer: {again.format('optimizer')}.")
    if getattr(model, "trained_before", False) and not begun:
        raise InputError(f"this network is trained already: {again.format('model')}.")
    if (optimizer.state or (schedule is not None and schedule.last_epoch > 0)) and not begun:
        raise InputError(f"the optimizer or its schedule has been used: {again.format('optimizer')}.")


def _train_epoch(model, train, optimizer, schedule, loss_function, precision, scaler, bar) -> tuple[float, float]:
    """One pass; returns mean loss and accuracy. Sums stay on the device: reading them would wait for every step."""
    model.train()
    loss_sum = torch.zeros((), device=train.device)
    correct = torch.zeros((), device=train.device, dtype=torch.int64)
    for x, y in train:
        with autocast(train.device, precision):
            logits = model(x)
            loss = loss_function(logits.float(), y)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if schedule is not None:
            schedule.step()
        loss_sum += loss.detach() * len(y)
        correct += (logits.detach().argmax(1) == (y if y.ndim == 1 else y.argmax(1))).sum()  # mixed labels: the larger
        bar.update(1)
    return loss_sum.item() / train.images, correct.item() / train.images


def predict(
    model: nn.Module, batches: Batches, precision: torch.dtype | None = None, *, progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, classes) float32 and labels (n,) int64 of every image, in order, in evaluation mode.

    progress: show a bar if it takes over two seconds.
    """
    precision = precision or choose_precision(batches.device)
    was_training = model.training
    model.eval()
    logits, labels = [], []
    with torch.no_grad(), autocast(batches.device, precision):
        for x, y in tqdm(batches, unit="batch", file=sys.stdout, ncols=80, delay=2, leave=False, disable=not progress):
            logits.append(model(x).float())
            labels.append(y)
    model.train(was_training)
    return torch.cat(logits).cpu().numpy(), torch.cat(labels).cpu().numpy()


def _validate(model: nn.Module, validation: Batches, precision: torch.dtype, epoch: int) -> tuple[dict, torch.Tensor]:
    """Loss and accuracy at this epoch's resolution, and which images are right, (n,) bool."""
    validation.epoch = epoch
    logits, labels = map(torch.from_numpy, predict(model, validation, precision, progress=False))
    correct = logits.argmax(1) == labels
    loss = F.cross_entropy(logits, labels).item()
    return {"validation_loss": loss, "validation_accuracy": correct.double().mean().item()}, correct
