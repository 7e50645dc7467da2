"""helpers.plots: every figure says what it shows, and each is saved where it belongs."""

from __future__ import annotations

import errno
import os

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from helpers import data, metrics, plots

NAMES = data.CLASS_NAMES
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, 200)
LOGITS = np.random.default_rng(2).normal(0, 1, (200, 10)) + 2 * np.eye(10)[LABELS]
HISTORY = pd.DataFrame({
    "epoch": [1, 2, 3],
    "train_loss": [2.0, 1.5, 1.2],
    "train_accuracy": [0.2, 0.4, 0.5],
    "validation_loss": [1.9, 1.6, 1.4],
    "validation_accuracy": [0.25, 0.42, 0.48],
})  # fmt: skip


@pytest.fixture
def real_like() -> data.Cifar10:
    """Ten images that pass for CIFAR-10: what they are called decides, not what they show."""
    return data.from_arrays(IMAGES, np.arange(20) % 10, IMAGES[:10], np.arange(10))


@pytest.fixture(autouse=True)
def fresh(real_like):
    """No mark left by another test, no figure left open."""
    plots.use(real_like, "quick")
    yield
    plt.close("all")
    plots.use(real_like, "quick")


def texts(fig: Figure) -> list[str]:
    fig.draw_without_rendering()
    return [text.get_text() for text in fig.findobj(plt.Text) if text.get_text()]


def assert_labelled(ax, title: str | None = None) -> None:
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    if title:
        assert ax.get_title(loc="left") == title


# -------------------------------------------------------------------------------------------- figures


def test_image_rows_shows_each_picture_with_names_and_captions():
    fig = plots.image_rows(IMAGES[:6].reshape(2, 3, 32, 32, 3), ["up", "down"], "Six images", captions=list("abcdef"))
    assert isinstance(fig, Figure)
    assert fig.get_suptitle() == "Six images"
    assert len(fig.axes) == 6
    for ax, image, caption in zip(fig.axes, IMAGES, "abcdef"):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
        assert ax.get_xlabel() == caption
        assert list(ax.get_xticks()) == list(ax.get_yticks()) == []
    assert [ax.get_ylabel() for ax in fig.axes] == ["up", "", "", "down", "", ""]


def test_image_rows_of_one_picture_without_captions():
    fig = plots.image_rows(IMAGES[:1][None], ["only"], "One image")
    assert [ax.get_ylabel() for ax in fig.axes] == ["only"]


def test_confident_errors_names_both_classes_and_the_probability():
    errors = pd.DataFrame({"index": [7, 3], "true": [3, 0], "predicted": [5, 2], "probability": [0.987, 0.9]})
    fig = plots.confident_errors(IMAGES, errors, NAMES, "The most confident errors")
    assert fig.get_suptitle() == "The most confident errors"
    shown = [ax for ax in fig.axes if ax.images]
    assert len(shown) == 2
    np.testing.assert_array_equal(shown[0].images[0].get_array(), IMAGES[7])
    np.testing.assert_array_equal(shown[1].images[0].get_array(), IMAGES[3])
    assert shown[0].get_title() == 'says "dog" (99%)\nis labelled "cat"'
    assert shown[1].get_title() == 'says "bird" (90%)\nis labelled "airplane"'
    assert not any(ax.axison for ax in fig.axes)


@pytest.mark.parametrize("count", [0, 1, 5, 7, 10])
def test_confident_errors_of_any_number(count):
    errors = metrics.confident_errors(LOGITS, LABELS, top=count)
    errors["index"] %= len(IMAGES)
    fig = plots.confident_errors(IMAGES, errors, NAMES, "Errors")
    assert sum(bool(ax.images) for ax in fig.axes) == count


def test_training_curves_draw_train_dashed_and_validation_solid():
    fig = plots.training_curves({"custom CNN": HISTORY}, "Training ends at 48 %")
    assert fig.get_suptitle() == "Training ends at 48 %"
    for ax, score in zip(fig.axes, ("loss", "accuracy"), strict=True):
        assert_labelled(ax, score.capitalize())
        train, validation = ax.lines
        np.testing.assert_array_equal(train.get_xydata(), HISTORY[["epoch", f"train_{score}"]])
        np.testing.assert_array_equal(validation.get_xydata(), HISTORY[["epoch", f"validation_{score}"]])
        assert (train.get_linestyle(), validation.get_linestyle()) == ("--", "-")
        assert train.get_color() == validation.get_color()
    assert "nats" in fig.axes[0].get_ylabel()
    assert [text.get_text() for text in fig.axes[1].get_legend().get_texts()] == ["train", "validation"]


def test_training_curves_tell_runs_apart():
    runs = {"with augmentation": HISTORY, "without": HISTORY.drop(columns=["validation_loss", "validation_accuracy"])}
    fig = plots.training_curves(runs, "Two runs")
    legend = [text.get_text() for text in fig.axes[1].get_legend().get_texts()]
    assert legend == ["with augmentation: train", "with augmentation: validation", "without: train"]
    colors = [line.get_color() for line in fig.axes[1].lines]
    assert colors[0] == colors[1] != colors[2]


def test_training_curves_say_why_there_is_no_validation_curve():
    alone = HISTORY.drop(columns=["validation_loss", "validation_accuracy"])
    fig = plots.training_curves({"custom CNN": alone}, "Two epochs", floor=0.87)
    assert fig.get_suptitle() == "Two epochs (no images set aside for validation)"
    assert list(fig.axes[0].lines[-1].get_ydata()) == [0.87, 0.87]
    assert "lowest training loss" in fig.axes[0].get_legend().get_texts()[-1].get_text()
    assert plots.training_curves({"custom CNN": HISTORY}, "Two epochs").get_suptitle() == "Two epochs"


def test_training_curves_mark_where_the_images_change_size():
    fig = plots.training_curves({"ResNet-18": HISTORY.assign(resolution=[16, 16, 32])}, "Small images first")
    for ax in fig.axes:
        assert [text.get_text() for text in ax.texts] == ["16 px", "32 px"]
        assert list(ax.lines[-1].get_xdata()) == [2.5, 2.5], "between epochs 2 and 3"
    same = plots.training_curves({"ResNet-18": HISTORY.assign(resolution=32)}, "One size")
    assert not [text for ax in same.axes for text in ax.texts]


def test_learning_rates_are_drawn_over_epochs():
    fig = plots.learning_rates([0.1, 0.2, 0.3, 0.2, 0.1, 0.0], 2, "Up, then down")
    (ax,) = fig.axes
    assert_labelled(ax, "Up, then down")
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0, 0.5, 1, 1.5, 2, 2.5])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.1, 0.2, 0.3, 0.2, 0.1, 0.0])
    assert ax.get_xlabel() == "epoch"
    assert ax.get_ylim()[0] == 0


def test_confusion_matrix_shows_true_rows_and_predicted_columns():
    test = metrics.summary(LOGITS, LABELS, NAMES)
    matrix = np.array(test["confusion_matrix"])
    assert (matrix != matrix.T).any()
    fig = plots.confusion_matrix(test, NAMES, "Where it errs")
    ax = fig.axes[0]
    assert_labelled(ax, "Where it errs")
    assert ax.get_xlabel() == "predicted class"
    assert ax.get_ylabel() == "true class"
    assert [label.get_text() for label in ax.get_xticklabels()] == list(NAMES)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(NAMES)
    shown = np.full((10, 10), -1)
    for text in ax.texts:
        column, row = (int(place) for place in text.get_position())
        shown[row, column] = int(text.get_text())
    np.testing.assert_array_equal(shown, matrix)
    assert ax.yaxis_inverted()  # the first class is at the top
    assert fig.axes[1].get_ylabel() == "misclassified images"


def test_confusion_matrix_colours_the_errors_only():
    matrix = 90 * np.eye(3, dtype=int)
    matrix[0, 1] = 7
    fig = plots.confusion_matrix({"confusion_matrix": matrix.tolist()}, ("a", "b", "c"), "One kind of error")
    colours = fig.axes[0].collections[0]
    assert colours.get_clim()[1] == 7
    assert np.ma.getmaskarray(colours.get_array()).reshape(3, 3).diagonal().all()


def test_confusion_matrix_of_a_perfect_classifier():
    test = metrics.summary(10 * np.eye(10)[LABELS], LABELS, NAMES)
    assert "0" in texts(plots.confusion_matrix(test, NAMES, "No errors"))


def test_class_scores_put_the_hardest_class_at_the_bottom():
    table = metrics.per_class(LOGITS, LABELS, NAMES)
    fig = plots.class_scores(table, "Which classes are hard")
    (ax,) = fig.axes
    assert ax.get_title(loc="left") == "Which classes are hard"
    assert ax.get_xlabel()
    order = table.sort_values("f1")
    assert [label.get_text() for label in ax.get_yticklabels()] == list(order.index)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["precision", "recall", "F1"]
    dots = {dot.get_label(): dot.get_offsets() for dot in ax.collections if not dot.get_label().startswith("_")}
    for label, score in (("precision", "precision"), ("recall", "recall"), ("F1", "f1")):
        np.testing.assert_allclose(dots[label][:, 0], order[score])
        np.testing.assert_allclose(dots[label][:, 1], range(10))


def test_colours_and_markers_are_all_different():
    assert len(set(plots.COLORS)) == len(set(plots.MARKERS)) == 10


# --------------------------------------------------------------------------------------------- saving


def figure() -> Figure:
    return plots.learning_rates([0.1, 0.2], 1, "A figure")


def test_save_writes_a_png_into_images(output):
    fig = figure()
    plots.save(fig, "rates")
    path = output / "Images" / "rates.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = matplotlib.image.imread(path)
    assert picture.shape[1] == pytest.approx(7 * 130, abs=2)  # inches times dots an inch
    assert picture[..., :3].std() > 0.01, "the picture is empty"
    assert not any("STAND-IN" in text for text in texts(fig))


def test_figures_of_real_data_go_into_the_repositorys_images(tmp_path, monkeypatch):
    monkeypatch.delenv("CIFAR10_OUTPUT")
    monkeypatch.setattr(data, "REPOSITORY", tmp_path.resolve())
    for experiment, folder in ((False, "Images"), (True, "runs/experiment/Images")):
        monkeypatch.setitem(plots._where, "experiment", experiment)
        plots.save(figure(), f"rates-{experiment}")
        path = next(tmp_path.rglob(f"rates-{experiment}.png"))
        assert path.relative_to(tmp_path).parent.as_posix() == folder


def test_stand_in_is_announced_and_watermarked_and_kept_out_of_images(small, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CIFAR10_OUTPUT")
    monkeypatch.setattr(data, "REPOSITORY", tmp_path.resolve())
    plots.use(small, "quick")
    assert "STAND-IN DATA: drawn shapes, NOT CIFAR-10" in capsys.readouterr().out
    fig = figure()
    plots.save(fig, "rates")
    assert "STAND-IN, NOT CIFAR-10" in texts(fig)
    (path,) = tmp_path.rglob("*.png")
    assert path.relative_to(tmp_path).as_posix() == "runs/stand-in/Images/rates.png"
    assert not (tmp_path / "Images").exists()

    plain = figure()  # the watermark is in the file as well
    plain.savefig(tmp_path / "plain.png")
    marked, unmarked = (matplotlib.image.imread(p)[..., :3] for p in (path, tmp_path / "plain.png"))
    assert (abs(marked - unmarked).max(-1) > 0.05).mean() > 0.01


def test_smoke_figures_are_kept_out_of_images(real_like, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CIFAR10_OUTPUT")
    monkeypatch.setattr(data, "REPOSITORY", tmp_path.resolve())
    capsys.readouterr()
    plots.use(real_like, "smoke")
    assert capsys.readouterr().out == ""
    plots.save(figure(), "rates")
    (path,) = tmp_path.rglob("*.png")
    assert path.relative_to(tmp_path).as_posix() == "runs/smoke/Images/rates.png"


def test_folder_that_cannot_be_written_costs_one_line(output, monkeypatch, capsys):
    output.mkdir()
    (output / "Images").write_text("a file in the way")
    plots.save(figure(), "rates")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def savefig(*_, **__):
        raise full

    monkeypatch.setattr(Figure, "savefig", savefig)
    (output / "Images").unlink()
    plots.save(figure(), "curves")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Images/rates.png was not saved (")
    assert second == f"Images/curves.png was not saved ({full.strerror}); the figure below is unaffected."


def test_short_names_drop_the_stand_ins_prefix(small):
    assert plots.short(small.class_names) == list(data.STAND_IN_CLASSES)
    assert plots.short(NAMES) == list(NAMES)


def test_watermark_stands_once_also_on_a_figure_with_a_heading(small, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_OUTPUT", str(tmp_path))
    plots.use(small, "smoke")
    fig = plots.image_rows(small.train_images[:4].reshape(2, 2, 32, 32, 3), ["a", "b"], "a heading")
    for _ in range(2):
        plots.save(fig, "rows")
    assert [text.get_text() for text in fig.texts].count(plots.WATERMARK) == 1
