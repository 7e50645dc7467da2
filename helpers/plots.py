"""Every figure that more than one notebook draws, in one colour-blind safe style, and where figures are saved.

    plots.use(cifar, PROFILE)            # once a notebook: the style, and the stand-in's watermark where it is due
    fig = plots.training_curves({"with augmentation": history})
    plots.save(fig, "training_curves")   # Images/training_curves.png

Colours: M. Okabe and K. Ito, "Color Universal Design", 2008; heat maps use cividis, which is safe as well.
"""

from __future__ import annotations

import textwrap

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from helpers.data import STAND_IN, Cifar10, output_folder

COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442", "#7F7F7F", "#8B5A2B"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">"]  # classes differ in shape as well as in colour
WATERMARK = "STAND-IN, NOT CIFAR-10"
_where = {"stand_in": False, "smoke": False, "experiment": False}


def use(cifar: Cifar10, profile: str, *, experiment: bool = False) -> None:
    """Set the style of all figures, and mark them from now on if `cifar` is the stand-in (with a banner in print).

    experiment: save below runs/experiment instead of Images/, as for images of one's own.
    """
    experiment = experiment or cifar.name in ("CIFAR-10 (altered)", "own images")
    _where.update(stand_in=cifar.is_stand_in, smoke=profile == "smoke", experiment=experiment)
    sns.set_theme(style="ticks", palette=COLORS)
    mpl.rcParams.update({
        "figure.dpi": 80, "savefig.dpi": 130, "figure.constrained_layout.use": True, "savefig.facecolor": "white",
        "font.size": 11, "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.labelsize": 11, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
        "figure.titlesize": 13, "figure.titleweight": "bold", "image.cmap": "cividis", "axes.grid": False,
    })  # fmt: skip
    if cifar.is_stand_in:
        print("*" * 78)
        print("*  STAND-IN DATA: drawn shapes, NOT CIFAR-10. No number or figure below is a   *")
        print('*  result; nothing is written to results/ or Images/. See the README, "Data".   *')
        print("*" * 78)


def save(fig: Figure, name: str) -> None:
    """Save as Images/<name>.png, watermarked for the stand-in (which, like smoke and experiments, goes below runs/).

    A full disk or a read-only folder costs the file, not the run: it is said in a line.
    """
    if _where["stand_in"] and WATERMARK not in [text.get_text() for text in fig.texts]:
        mark = fig.text(0.5, 0.5, WATERMARK, rotation=20, ha="center", va="center", fontsize=26,
                        color="#D55E00", alpha=0.5, weight="bold", zorder=1000)  # fmt: skip
        mark.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white", alpha=0.5)])
        mark.set_in_layout(False)
    try:
        fig.savefig(output_folder("Images", **_where) / f"{name}.png")
    except OSError as error:
        print(f"Images/{name}.png was not saved ({error.strerror}); the figure below is unaffected.")


def short(class_names: tuple[str, ...]) -> list[str]:
    """Class names for crowded axes: without the prefix that every name of the stand-in carries."""
    return [name.removeprefix(STAND_IN + " ") for name in class_names]


# --------------------------------------------------------------------------------------------- images


def image_rows(images: np.ndarray, row_names: list[str], title: str, captions: list[str] | None = None) -> Figure:
    """A grid of pictures with a name before each row.

    images: (rows, columns, height, width, 3) uint8; captions: one below each picture, row by row.
    """
    rows, columns = images.shape[:2]
    height = 0.86 if captions else 0.66
    width = 0.66 * columns + 1.4
    title = textwrap.fill(title, int(8.2 * width))  # characters of a heading in this many inches
    size = (width, height * rows + 0.35 + 0.25 * len(title.splitlines()))
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    fig.suptitle(title, x=0.01, ha="left")
    for (row, column), ax in np.ndenumerate(axes):
        ax.imshow(images[row, column])
        ax.set(xticks=[], yticks=[])
        sns.despine(ax=ax, left=True, bottom=True)
        if captions:
            ax.set_xlabel(captions[row * columns + column], fontsize=8)
        if column == 0:
            ax.set_ylabel(row_names[row], rotation=0, ha="right", va="center")
    return fig


def confident_errors(images: np.ndarray, errors: pd.DataFrame, class_names: tuple[str, ...], title: str) -> Figure:
    """The images of `metrics.confident_errors`, each with its true and predicted class and the probability."""
    columns = 5
    names = short(class_names)
    count = max(len(errors), 1)
    fig, axes = plt.subplots(
        -(-count // columns), columns, figsize=(9, 2.35 * -(-count // columns) + 0.5), squeeze=False
    )
    fig.suptitle(title, x=0.01, ha="left")
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, error in zip(axes.flat, errors.itertuples()):
        ax.imshow(images[error.index])
        said = f'says "{names[error.predicted]}" ({error.probability:.0%})\nis labelled "{names[error.true]}"'
        ax.set_title(said, fontsize=9, weight="normal", loc="center")
    return fig


# ------------------------------------------------------------------------------------- training, scores


def training_curves(histories: dict[str, pd.DataFrame], title: str, floor: float = 0.0) -> Figure:
    """Loss and accuracy by epoch, train dashed and validation solid; one colour a run.

    histories: run name -> columns epoch, train_loss, train_accuracy, and if any validation_loss, validation_accuracy,
    resolution. floor: the lowest training loss that there can be, where that is not zero (label smoothing).
    """
    if not any("validation_loss" in history for history in histories.values()):
        title += " (no images set aside for validation)"
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    fig.suptitle(title, x=0.01, ha="left")
    for color, (name, history) in zip(COLORS, histories.items()):
        prefix = f"{name}: " if len(histories) > 1 else ""
        for ax, score in zip(axes, ("loss", "accuracy")):
            style = {"color": color, "marker": "o", "markersize": 3.5}
            ax.plot(history["epoch"], history[f"train_{score}"], "--", alpha=0.6, label=f"{prefix}train", **style)
            if f"validation_{score}" in history:
                ax.plot(history["epoch"], history[f"validation_{score}"], label=f"{prefix}validation", **style)
            if len(histories) == 1:
                mark_resolutions(ax, history)
    if floor > 0:
        axes[0].axhline(floor, color="0.4", linestyle=":", label="lowest training loss that smoothed labels allow")
        axes[0].legend(fontsize=9)
    axes[0].set(xlabel="epoch", ylabel="cross-entropy (nats)", title="Loss")
    axes[1].set(xlabel="epoch", ylabel="accuracy", title="Accuracy")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y", alpha=0.3)
    axes[1].legend(fontsize=9)
    return fig


def mark_resolutions(ax: Axes, history: pd.DataFrame) -> None:
    """Where the side of the images changes between two epochs, if it does: a line, and the pixels of each stretch.

    history: columns epoch and, if any, resolution.
    """
    sides = history.get("resolution", pd.Series(dtype=int))
    changes = [k for k in range(1, len(sides)) if sides.iloc[k] != sides.iloc[k - 1]]
    if changes:
        ax.margins(y=0.12)  # room for the words below
    for k in changes:
        ax.axvline(history["epoch"].iloc[k] - 0.5, color="0.6", linewidth=1)
    for start, end in zip([0, *changes], [*changes, len(sides)]) if changes else ():
        middle = (history["epoch"].iloc[start] + history["epoch"].iloc[end - 1]) / 2
        ax.annotate(f"{sides.iloc[start]} px", (middle, 0.02), xycoords=ax.get_xaxis_transform(),
                    ha="center", va="bottom", fontsize=9, color="0.4")  # fmt: skip


def learning_rates(rates: list[float], steps_per_epoch: int, title: str) -> Figure:
    """The learning rate at every step, with epochs below."""
    fig, ax = plt.subplots(figsize=(7, 2.6))
    ax.plot(np.arange(len(rates)) / steps_per_epoch, rates, color=COLORS[0])
    ax.set(xlabel="epoch", ylabel="learning rate", title=title)
    ax.set_ylim(bottom=0)
    ax.grid(axis="y", alpha=0.3)
    return fig


def confusion_matrix(test: dict, class_names: tuple[str, ...], title: str) -> Figure:
    """The confusion matrix of a record's `test`, in images; colours show the errors only, so that they stand out."""
    matrix = np.asarray(test["confusion_matrix"])
    names = short(class_names)
    errors = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
    fig, ax = plt.subplots(figsize=(7.6, 6.4))
    sns.heatmap(errors, annot=False, cmap="cividis", square=True, linewidths=0.5, xticklabels=names, yticklabels=names,
                cbar_kws={"label": "misclassified images", "shrink": 0.8}, ax=ax)  # fmt: skip
    dark = np.nanmax(errors) * 0.55 if errors.size > 1 else 0
    for (row, column), value in np.ndenumerate(matrix):
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
    fig, ax = plt.subplots(figsize=(7, 3.6))
    ax.hlines(range(len(table)), table[["precision", "recall"]].min(axis=1), table[["precision", "recall"]].max(axis=1),
              color="0.75", linewidth=2, zorder=1)  # fmt: skip
    for color, marker, score in zip(COLORS, "<>o", ("precision", "recall", "f1")):
        ax.scatter(
            table[score], range(len(table)), color=color, marker=marker, label=score.replace("f1", "F1"), zorder=2
        )
    ax.set_yticks(range(len(table)), short(table.index))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set(xlabel="score on the test set", title=title)
    ax.grid(axis="x", alpha=0.3)
    ax.legend(loc="upper left")
    return fig
