"""How every figure looks, and where it is saved: one colour-blind safe style, and the stand-in's watermark; pictures.

Colours: M. Okabe and K. Ito, "Color Universal Design", 2008; heat maps use cividis, which is safe as well.
"""

from __future__ import annotations

import textwrap
import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.display import display
from matplotlib import font_manager, patheffects
from matplotlib.figure import Figure

from helpers import profiles
from helpers.data import Cifar10
from helpers.files import STAND_IN, output_folder, relative
from helpers.records import differences, own_folder

COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442", "#7F7F7F", "#8B5A2B"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">"]  # classes differ in shape as well as in colour
FONTS = ["DejaVu Sans", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang HK", "Arial Unicode MS"]  # by letter
WATERMARK = "STAND-IN, NOT CIFAR-10"
_run: dict = {}  # of the notebook, which says where its figures go


def use(cifar: Cifar10, run: dict) -> None:
    """Set the style of all figures, and mark them from now on if `cifar` is the stand-in (with a banner in print).

    run: of `records.begin`, which may learn its architecture later; `save` asks it where to.
    """
    global _run
    _run = run
    mpl.rcdefaults()  # whatever the person's matplotlibrc says
    fonts = [font for font in FONTS if font in font_manager.get_font_names()]
    sns.set_theme(style="ticks", palette=COLORS, rc={"font.family": fonts})
    warnings.filterwarnings("ignore", "Glyph .* missing from")  # a letter that none of them has is a box
    mpl.rcParams.update({
        "figure.dpi": 80, "savefig.dpi": 130, "figure.constrained_layout.use": True, "savefig.facecolor": "white",
        "font.size": 11, "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.labelsize": 11, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
        "figure.titlesize": 13, "figure.titleweight": "bold", "image.cmap": "cividis", "axes.grid": False,
    })  # fmt: skip
    if cifar.is_stand_in:
        print("*" * 78)
        print("*  STAND-IN DATA: drawn shapes, NOT CIFAR-10. No number or figure below is a   *")
        print("*  result; nothing is written to results/ or Images/. See docs/data.md.        *")
        print("*" * 78)


def save(fig: Figure, name: str) -> None:
    """Save as <name>.png in Images/ or the run's own folder, and show it, with its title as alternative text.

    The title of a run unlike its record says what differs; the stand-in's figures are watermarked. A full disk or a
    read-only folder costs the file, not the run: it is said in a line.
    """
    title = fig.get_suptitle() or fig.axes[0].get_title(loc="left")
    changed = profiles.table(differences(_run))
    note = ", ".join(key if key == "architecture" else f"{key} = {value}" for key, value in changed.items())
    if note and f"({note})" not in title.replace("\n", " "):
        above = bool(fig.get_suptitle())  # of the whole figure; else of axes, which begin further right
        title = f"{title}\n" + textwrap.fill(f"({note})", int((9 if above else 6.5) * fig.get_figwidth()))
        if above:
            fig.suptitle(title, x=0.01, ha="left")
        else:
            fig.axes[0].set_title(title)
    if _run.get("data") == STAND_IN and WATERMARK not in [text.get_text() for text in fig.texts]:
        mark = fig.text(0.5, 0.5, WATERMARK, rotation=20, ha="center", va="center", fontsize=26,
                        color="#D55E00", alpha=0.5, weight="bold", zorder=1000)  # fmt: skip
        mark.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white", alpha=0.5)])
        mark.set_in_layout(False)
    folder = output_folder("Images", own=own_folder(_run, figures=True) if _run else "")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fig.savefig(folder / f"{name}.png")
    except OSError as error:
        print(f"{relative(folder / name)}.png was not saved ({error.strerror}); the figure is unaffected.")
    if get_ipython() is not None:
        display(fig, metadata={"image/png": {"alt": " ".join(title.split())}})
        plt.close(fig)  # or Jupyter would show it once more


def short(class_names: tuple[str, ...]) -> list[str]:
    """Class names for crowded axes: no longer than needed, without the prefix of the stand-in's."""
    names = [name.removeprefix(STAND_IN + " ") for name in class_names]
    return [name if len(name) <= 24 else f"{name[:23]}…" for name in names]


def headed(title: str, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure with its heading at the left, and its axes (`plt.subplots`)."""
    fig, axes = plt.subplots(rows, columns, **options)
    fig.suptitle(title, x=0.01, ha="left")
    return fig, axes


def image_rows(
    images: np.ndarray, row_names: list[str], title: str, captions: list[str] | None = None, inches: float = 0.66
) -> Figure:
    """A grid of pictures with a name before each row.

    images: (rows, columns, height, width, 3) uint8; captions: one below each picture, row by row; inches: a picture's.
    """
    rows, columns = images.shape[:2]
    height = inches + (0.2 * max(text.count("\n") + 1 for text in captions) if captions else 0)
    width = inches * columns + 1.4
    title = textwrap.fill(title, int(8.2 * width))  # characters of a heading in this many inches
    size = (width, height * rows + 0.35 + 0.25 * len(title.splitlines()))
    fig, axes = headed(title, rows, columns, figsize=size, squeeze=False)
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
    names, rows = short(class_names), -(-max(len(errors), 1) // 5)
    fig, axes = headed(title, rows, 5, figsize=(9, 2.1 * rows + 0.4), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, error in zip(axes.flat, errors.itertuples()):
        ax.imshow(images[error.index])
        said = f'says "{names[error.predicted]}" ({error.probability:.2%})\nis labelled "{names[error.true]}"'
        ax.set_title(said, fontsize=9, weight="normal", loc="center")
    return fig
