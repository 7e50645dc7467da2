"""Every figure of more than a few lines.

plots.use(cifar, run)                # once a notebook: the style, and the stand-in's watermark where it is due
fig = plots.training_curves({"with augmentation": history}, "Augmentation helps")
plots.save(fig, "training_curves")   # Images/training_curves.png
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter

from helpers import records
from helpers.figures import COLORS, MARKERS, headed, short
from helpers.figures import confident_errors as confident_errors
from helpers.figures import image_rows as image_rows
from helpers.figures import save as save
from helpers.figures import use as use
from helpers.tables import quickest


def _percent(axis) -> None:
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


# ------------------------------------------------------------------------------------- training, scores


def training_curves(histories: dict[str, pd.DataFrame], title: str, choice: pd.DataFrame | None = None) -> Figure:
    """Loss and accuracy by epoch, train dashed and validation solid; one colour a run.

    histories: run name -> columns epoch, train_loss, train_accuracy, and if any validation_loss, validation_accuracy,
    resolution. choice: of `records.choice`, for a run without validation images.
    """
    if any("validation_loss" in history for history in histories.values()):
        choice = None
    elif choice is None:
        title += " (no images set aside for validation)"
    fig, axes = headed(title, 1, 2, figsize=(10, 3.8))
    for color, (name, history) in zip(COLORS, histories.items()):
        prefix = f"{name}: " if len(histories) > 1 else ""
        for ax, score in zip(axes, ("loss", "accuracy")):
            _curve(ax, history, score, prefix, color, choice)
            if len(histories) == 1:
                _mark_resolutions(ax, history)
    axes[0].set(ylabel="cross-entropy (nats)", title="Loss")
    axes[1].set(ylabel="accuracy", title="Accuracy")
    _percent(axes[1].yaxis)
    axes[1].legend(fontsize=9)
    if choice is not None:
        last = choice["validation_accuracy"].iloc[-1]
        fig.supxlabel("This run learned from all images; the validation curve is of a run of the same recipe with some "
                      f"set aside: {last:.1%} in the end.", fontsize=9, color="0.35")  # fmt: skip
    return fig


def _curve(ax: Axes, history: pd.DataFrame, score: str, prefix: str, color: str, choice: pd.DataFrame | None) -> None:
    """One score by epoch: train dashed, and validation solid where there is one, or of the run `choice`."""
    for part, line, alpha in (("train", "--", 0.6), ("validation", "-", 1)):
        lent = choice is not None and part == "validation"
        source, label = (choice, "validation (its own run)") if lent else (history, part)
        if f"{part}_{score}" in source:
            ax.plot(source["epoch"], source[f"{part}_{score}"], line, alpha=alpha, label=prefix + label,
                    color=color, marker="o", markersize=3.5)  # fmt: skip
    ax.set_xlabel("epoch")
    ax.set_xlim(0.5, ax.dataLim.x1 + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.grid(axis="y", alpha=0.3)


def _mark_resolutions(ax: Axes, history: pd.DataFrame) -> None:
    """Where the side of the images changes between two epochs, if it does: a line, and the pixels of each stretch."""
    sides = history.get("resolution", pd.Series(dtype=int)).to_list()
    ends = [k for k in range(1, len(sides)) if sides[k] != sides[k - 1]]
    if ends:
        ax.margins(y=0.12)  # room for the words below
        for end in ends:
            ax.axvline(end + 0.5, color="0.6", linewidth=1)
        for start, end in zip([0, *ends], [*ends, len(sides)]):
            ax.annotate(f"{sides[start]} px", ((start + end + 1) / 2, 0.02), xycoords=ax.get_xaxis_transform(),
                        ha="center", va="bottom", fontsize=9, color="0.4")  # fmt: skip


def learning_rates(rates: list[float], steps_per_epoch: int, title: str) -> Figure:
    """The learning rate at every step, with epochs below."""
    fig, ax = plt.subplots(figsize=(7, 2.6))
    ax.plot(np.arange(len(rates)) / steps_per_epoch, rates, color=COLORS[0])
    ax.set(xlabel="epoch", ylabel="learning rate", title=title)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.grid(axis="y", alpha=0.3)
    return fig


def confusion_matrix(test: dict, class_names: tuple[str, ...], title: str) -> Figure:
    """The confusion matrix of a record's `test`, in images; colours show the errors only, so that they stand out."""
    matrix = np.asarray(test["confusion_matrix"])
    names = short(class_names)
    errors = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
    few = len(matrix) <= 25  # else nobody could read the numbers
    fig, ax = plt.subplots(figsize=(7.6, 6.4) if few else (11, 9.4))
    sns.heatmap(errors, annot=False, cmap="cividis", square=True, linewidths=0.5, xticklabels=names, yticklabels=names,
                cbar_kws={"label": "colours: misclassified images", "shrink": 0.8}, ax=ax)  # fmt: skip
    dark = np.nanmax(errors) * 0.55 if errors.size > 1 else 0
    for (row, column), value in np.ndenumerate(matrix if few else np.empty((0, 0))):
        right = row == column
        color = "black" if right or value > dark else "white"
        ax.text(column + 0.5, row + 0.5, value, ha="center", va="center", color=color, fontsize=9,
                weight="bold" if right else "normal")  # fmt: skip
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    ax.tick_params(axis="x", rotation=40)
    plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    return fig


def class_scores(table: pd.DataFrame, title: str) -> Figure:
    """Precision, recall and F1 by class as dots on one line a class, the hardest class at the bottom.

    table: `metrics.per_class(...)`.
    """
    table = table.sort_values("f1")
    fig, ax = plt.subplots(figsize=(7, max(3.6, 0.25 * len(table))))
    ax.hlines(range(len(table)), table[["precision", "recall"]].min(axis=1), table[["precision", "recall"]].max(axis=1),
              color="0.75", linewidth=2, zorder=1)  # fmt: skip
    for color, marker, score in zip(COLORS, "<>o", ("precision", "recall", "f1")):
        ax.scatter(
            table[score], range(len(table)), color=color, marker=marker, label=score.replace("f1", "F1"), zorder=2
        )
    ax.set_yticks(range(len(table)), short(table.index))
    _percent(ax.xaxis)
    ax.set(xlabel="score on the test set", title=title)
    ax.grid(axis="x", alpha=0.3)
    ax.legend(loc="upper left")
    return fig


def feature_map_stacks(maps: list[tuple], title: str, classes: int = 10) -> Figure:
    """Notebook 2's network: each slab a stack of feature maps, as high as the map and as thick as it has channels.

    maps: of each block, the pixels and channels behind it, and its layers, which are named above the arrow.
    """
    fig, ax = plt.subplots(figsize=(11, 3.9))

    def slab(x: float, side: float, depth: int, color: str, label: str) -> float:
        """A cuboid with its left edge at x, seen from the left and above; returns its right edge."""
        h, d, skew = side / 16, 0.35 + depth / 110, 0.35
        front = [(x, -h), (x + d, -h), (x + d, h), (x, h)]
        top = [(x, h), (x + skew, h + skew), (x + d + skew, h + skew), (x + d, h)]
        right = [(x + d, -h), (x + d + skew, -h + skew), (x + d + skew, h + skew), (x + d, h)]
        for shape, alpha in ((front, 0.85), (top, 0.5), (right, 0.65)):
            ax.add_patch(Polygon(shape, facecolor=color, alpha=alpha, edgecolor="white", linewidth=1.2))
        ax.text(x + d / 2, -h - 0.25, label, ha="center", va="top", fontsize=10)
        return x + d + skew

    def arrow(length: float, label: str = "") -> None:
        ax.annotate("", (right + length, 0), (right + 0.15, 0), arrowprops={"arrowstyle": "->", "color": "0.3"})
        ax.text(right + 0.8, 0.15, label, ha="center", va="bottom", fontsize=9, color="0.3")

    right = slab(0, 32, 3, "0.55", "image\n32×32×3")
    for number, (side, width, layers) in enumerate(maps):
        arrow(1.5, "\n".join(filter(None, map(_layer_name, layers))))
        right = slab(right + 1.6, side, width, COLORS[number % 4], f"block {number + 1}\n{side}×{side}×{width}")
    for label, depth in ((f"max over {side}×{side}\n{width}", width), (f"linear\n{classes} logits", classes)):
        arrow(0.9)
        right = slab(right + 1.0, 2, depth, COLORS[4], label)
    ax.set(xlim=(-0.3, right + 0.2), ylim=(-2.9, 2.5), aspect="equal", title=title)
    ax.set_axis_off()
    return fig


def _layer_name(layer) -> str:
    """In a word or two; "" for those that only steady the others."""
    name = type(layer).__name__
    if name == "Conv2d":
        return "conv {}×{}".format(*layer.kernel_size)
    return "" if "Norm" in name or "Dropout" in name else {"MaxPool2d": "max-pool"}.get(name, name)


def gradient_sizes(sizes: dict[tuple, list[float]], losses: dict[tuple, list[float]], title: str) -> Figure:
    """Notebook 3's experiment on skip connections.

    sizes: (depth, skip, step) -> relative gradient of each layer; losses: (depth, skip) -> loss of each step.
    """
    fig, axes = headed(title, 1, 3, figsize=(12.5, 3.9))
    panels = dict(zip(dict.fromkeys(depth for depth, *_ in sizes), axes))
    for (depth, skip, step), values in sizes.items():
        when = f"after {step} steps" if step else "at initialisation"
        panels[depth].plot(range(1, len(values) + 1), values, ":" if step else "-", color=COLORS[not skip], linewidth=2,
                           label=f"{'with' if skip else 'without'} skip, {when}")  # fmt: skip
        panels[depth].set(yscale="log", xlabel="layer, from the image to the output", title=f"{depth} layers")
    for (depth, skip), values in losses.items():
        smooth = pd.Series(values).rolling(10, min_periods=1).mean()
        axes[2].plot(smooth, "-" if panels[depth] is axes[0] else "--", color=COLORS[not skip],
                     label=f"{depth} layers, {'with' if skip else 'without'} skip")  # fmt: skip
    axes[1].sharey(axes[0])
    axes[0].set_ylabel("‖gradient‖ / ‖weights‖")
    axes[2].set(xlabel="step", ylabel="training loss, mean of 10 steps", title="Loss")
    axes[0].legend(fontsize=9)
    axes[2].legend(fontsize=9)
    return fig


# ---------------------------------------------------------------------------------------- comparisons


def model_comparison(groups: list[list[dict]], claims: dict[str, tuple[float, float, float]], device: str) -> Figure:
    """Test accuracy of each model against its size and its training time, with 95 % intervals.

    groups: `tables.shown(...)`. claims: model -> accuracy, minutes and million parameters claimed elsewhere, hollow.
    """
    title = "Test accuracy of the models, against their size and their training time"
    fig, axes = headed(title, 1, 2, figsize=(11, 4.6), sharey=True)
    handles = []
    for group in groups:
        key = group[0]["model"]
        place = [*records.MODELS, key].index(key)  # a model keeps its colour, whichever others are there
        accuracy = np.mean([r["test"]["accuracy"] for r in group])
        bounds = np.mean([r["test"]["accuracy_interval_95"] for r in group], axis=0)
        minutes = quickest(group) / 60
        style, label = {"color": COLORS[place], "markersize": 9}, f"{records.title(key)}: {accuracy:.1%}"
        for ax, mine in zip(axes, (group[0]["parameter_count"] / 1e6, minutes)):
            bar = ax.errorbar(mine, accuracy, np.abs(bounds - accuracy)[:, None], fmt=MARKERS[place], capsize=4,
                              label=f"{label} ({group[0]['profile']})", **style)  # fmt: skip
        handles.append(bar)
        if key in claims and group[0]["profile"] != "long":
            claimed, *theirs = claims[key]
            for ax, other in zip(axes, reversed(theirs)):
                hollow = ax.plot(other, claimed, MARKERS[place], fillstyle="none", **style,
                                 label=f"claimed before: {claimed:.1%}")  # fmt: skip
            handles += hollow
    for ax in axes:
        ax.set_xscale("log")
        ax.margins(0.2)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        _percent(ax.yaxis)
        ax.grid(alpha=0.3)
    axes[0].set(xlabel="parameters (millions)", ylabel="test accuracy")
    axes[1].set_xlabel(f"training time (minutes)\nours: {device}; claimed: on an unnamed GPU")
    fig.legend(handles=handles, loc="outside lower center", ncols=3)
    return fig
