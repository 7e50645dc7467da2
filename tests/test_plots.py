"""helpers.plots and figures: every figure says what it shows, and each is saved where it belongs."""

from __future__ import annotations

import re

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import LABELS, LOGITS, SCORES, begin, end, named
from torch import nn

from helpers import data, figures, files, metrics, plots, records, tables

NAMES = data.CLASS_NAMES
TABLE = metrics.per_class(LOGITS, LABELS, NAMES)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
TRAINED = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [2.0, 1.5, 1.2], "train_accuracy": [0.2, 0.4, 0.5]})
HISTORY = TRAINED.assign(validation_loss=[1.9, 1.6, 1.4], validation_accuracy=[0.25, 0.42, 0.48])


@pytest.fixture(autouse=True)
def fresh():
    """No mark left by another test, no figure left open."""
    plots.use(named("CIFAR-10"), {})
    yield
    plt.close("all")


def labels(texts) -> list[str]:
    return [text.get_text() for text in texts]


def test_image_rows_shows_each_picture_with_names_and_captions():
    fig = plots.image_rows(IMAGES[:6].reshape(2, 3, 32, 32, 3), ["up", "down"], "Six images", captions=list("abcdef"))
    assert fig.get_suptitle() == "Six images"
    for ax, image, caption in zip(fig.axes, IMAGES[:6], "abcdef", strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
        assert ax.get_xlabel() == caption
    assert [ax.get_ylabel() for ax in fig.axes] == ["up", "", "", "down", "", ""]


def test_confident_errors_names_both_classes_and_the_probability():
    errors = pd.DataFrame({"index": [7, 3], "true": [3, 0], "predicted": [5, 2], "probability": [0.987, 0.9]})
    fig = plots.confident_errors(IMAGES, errors, NAMES, "The most confident errors")
    assert fig.get_suptitle() == "The most confident errors"
    first, second = (ax for ax in fig.axes if ax.images)
    np.testing.assert_array_equal(first.images[0].get_array(), IMAGES[7])
    assert first.get_title() == 'says "dog" (98.70%)\nis labelled "cat"'
    assert second.get_title() == 'says "bird" (90.00%)\nis labelled "airplane"'
    for count in (0, 1, 7):
        some = plots.confident_errors(IMAGES, pd.concat([errors] * 4)[:count], NAMES, "Errors")
        assert sum(bool(ax.images) for ax in some.axes) == count


def test_training_curves_draw_train_dashed_and_validation_solid_a_colour_a_run():
    fig = plots.training_curves({"augmented": HISTORY, "plain": TRAINED}, "Training ends at 48 %")
    assert fig.get_suptitle() == "Training ends at 48 %"
    for ax, score in zip(fig.axes, ("loss", "accuracy"), strict=True):
        assert (ax.get_title(loc="left"), ax.get_xlabel()) == (score.capitalize(), "epoch")
        train, validation, other = ax.lines
        np.testing.assert_array_equal(train.get_xydata(), HISTORY[["epoch", f"train_{score}"]])
        np.testing.assert_array_equal(validation.get_xydata(), HISTORY[["epoch", f"validation_{score}"]])
        assert (train.get_linestyle(), validation.get_linestyle()) == ("--", "-")
        assert train.get_color() == validation.get_color() != other.get_color()
    assert "nats" in fig.axes[0].get_ylabel()
    assert labels(fig.axes[1].get_legend().get_texts())[1:] == ["augmented: validation", "plain: train"]
    alone = plots.training_curves({"custom CNN": TRAINED}, "Two epochs")
    assert alone.get_suptitle() == "Two epochs (no images set aside for validation)"


@pytest.mark.parametrize(("sides", "shown"), [([16, 16, 32], ["16 px", "32 px"]), (32, [])])
def test_changes_of_the_images_size_are_marked(sides, shown):
    history = HISTORY.assign(resolution=sides)
    for ax in plots.training_curves({"ResNet-18": history}, "Small images first").axes:
        assert labels(ax.texts) == shown
        assert [2.5, 2.5] in [list(line.get_xdata()) for line in ax.lines] or not shown, "between epochs 2 and 3"


def test_a_run_without_validation_images_shows_the_curve_of_the_run_that_had_them():
    fig = plots.training_curves({"CNN": TRAINED}, "CNN", choice=HISTORY)
    assert fig.get_suptitle() == "CNN"
    for ax, score in zip(fig.axes, ("loss", "accuracy")):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), TRAINED[f"train_{score}"])
        np.testing.assert_array_equal(ax.lines[1].get_ydata(), HISTORY[f"validation_{score}"])
    assert labels(fig.axes[1].get_legend().get_texts()) == ["train", "validation (its own run)"]
    assert f"{HISTORY['validation_accuracy'].iloc[-1]:.1%} in the end" in fig.get_supxlabel()
    own = plots.training_curves({"CNN": HISTORY}, "CNN", choice=HISTORY * 2)
    np.testing.assert_array_equal(own.axes[0].lines[1].get_ydata(), HISTORY["validation_loss"])
    assert own.get_supxlabel() == ""


def test_learning_rates_are_drawn_over_epochs():
    (ax,) = plots.learning_rates([0.1, 0.2, 0.3, 0.2, 0.1, 0.0], 2, "Up, then down").axes
    np.testing.assert_allclose(ax.lines[0].get_xydata().T, [[0, 0.5, 1, 1.5, 2, 2.5], [0.1, 0.2, 0.3, 0.2, 0.1, 0.0]])
    assert (ax.get_title(loc="left"), ax.get_xlabel()) == ("Up, then down", "epoch")


def test_confusion_matrix_shows_true_rows_and_predicted_columns_and_colours_the_errors():
    fig = plots.confusion_matrix(SCORES, NAMES, "Where it errs")
    ax, matrix = fig.axes[0], np.array(SCORES["confusion_matrix"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert labels(ax.get_xticklabels()) == labels(ax.get_yticklabels()) == list(NAMES)
    assert ax.yaxis_inverted(), "the first class is at the top"
    shown = {(int(text.get_position()[1]), int(text.get_position()[0])): int(text.get_text()) for text in ax.texts}
    assert shown == dict(np.ndenumerate(matrix))
    colours = ax.collections[0]
    assert colours.get_clim()[1] == (matrix - np.diag(matrix.diagonal())).max()
    assert np.ma.getmaskarray(colours.get_array()).reshape(10, 10).diagonal().all()
    perfect = plots.confusion_matrix({"confusion_matrix": np.eye(3, dtype=int)}, NAMES[:3], "No errors")
    assert labels(perfect.axes[0].texts).count("0") == 6


def test_class_scores_put_the_hardest_class_at_the_bottom():
    (ax,) = plots.class_scores(TABLE, "Which classes are hard").axes
    order = TABLE.sort_values("f1")
    assert labels(ax.get_yticklabels()) == list(order.index)
    assert labels(ax.get_legend().get_texts()) == ["precision", "recall", "F1"]
    dots = [dot.get_offsets() for dot in ax.collections if not dot.get_label().startswith("_")]
    for drawn, score in zip(dots, ("precision", "recall", "f1"), strict=True):
        np.testing.assert_allclose(drawn, np.column_stack([order[score], range(10)]))


def test_feature_map_stacks_name_every_slab():
    conv, relu = nn.Conv2d(3, 4, 5), nn.ReLU()
    maps = [(16, 64, [conv, nn.BatchNorm2d(4), relu]), (8, 176, [nn.MaxPool2d(2), nn.Dropout(0.1)]), (4, 192, [relu])]
    (ax,) = plots.feature_map_stacks(maps, "Three blocks").axes
    assert {"conv 5×5\nReLU", "max-pool", "ReLU"} <= set(labels(ax.texts))
    slabs = ["image\n32×32×3", "block 1\n16×16×64", "block 2\n8×8×176", "block 3\n4×4×192", "max over 4×4\n192"]
    assert {*slabs, "linear\n10 logits"} <= set(labels(ax.texts))


def test_gradient_sizes_have_a_panel_a_depth_and_one_for_the_loss():
    pairs = [(depth, skip) for depth in (18, 66) for skip in (True, False)]
    sizes = {(*pair, step): [0.1] * pair[0] for pair in pairs for step in (0, 80)}
    fig = plots.gradient_sizes(sizes, {pair: [2.0, 1.0, 0.9] for pair in pairs}, "Skip connections help")
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["18 layers", "66 layers", "Loss"]
    assert "without skip, after 80 steps" in labels(fig.axes[0].get_legend().get_texts())


def test_model_comparison_shows_what_was_measured_and_what_was_claimed(repository):
    paths = [end(begin(model), accuracy) for model, accuracy in (("custom_cnn", 0.9), ("resnet18", 0.8))]
    claims = {"custom_cnn": (0.933, 15, 1.8), "resnet18": (0.884, 30, 11.2)}
    fig = plots.model_comparison(tables.headline(records.load(paths[0].parent)), claims, "one CPU")
    shown = ["Custom CNN: 90.0% (full)", "claimed before: 93.3%", "ResNet-18: 80.0% (full)", "claimed before: 88.4%"]
    assert labels(fig.legends[0].get_texts()) == shown
    assert "ours: one CPU" in fig.axes[1].get_xlabel()


# --------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize(
    ("first", "run", "folder"),
    [
        ({}, {}, "Images"), ({}, {"model": "resnet18"}, "Images"), ({"profile": "quick"}, {"seed": 1}, "Images"),
        ({}, {"seed": 1}, "runs/custom_cnn-full-seed1/Images"),
        ({}, {"seed": 1, "EPOCHS": 5}, "runs/custom_cnn-full-EPOCHS=5/Images"),
        ({}, {"profile": "smoke"}, "runs/smoke/Images"), ({}, {"name": "stand-in"}, "runs/stand-in/Images"),
    ],
)  # fmt: skip
def test_figures_are_saved_beside_the_record_of_their_run(repository, capsys, first, run, folder):
    end(begin(**first))
    plots.use(named(run.get("name", "CIFAR-10")), begin(**run))
    stand_in = "name" in run
    assert ("STAND-IN DATA: drawn shapes, NOT CIFAR-10" in capsys.readouterr().out) == stand_in
    fig = plots.image_rows(IMAGES[:4].reshape(2, 2, 32, 32, 3), ["a", "b"], "a heading")
    for _ in range(2):
        plots.save(fig, "rows")
    (path,) = repository.rglob("*.png")
    assert path.relative_to(repository).parent.as_posix() == folder
    assert labels(fig.texts).count("STAND-IN, NOT CIFAR-10") == stand_in, "once, however often it is saved"
    assert fig.get_suptitle() == "a heading" + "\n(EPOCHS = 5)" * ("EPOCHS" in run), "what differs from the record"


def test_figures_look_alike_everywhere_and_show_their_title_as_text_in_jupyter(repository, monkeypatch):
    plt.rcParams["text.usetex"] = True  # as a person's matplotlibrc may have it
    plots.use(named("CIFAR-10"), begin())
    assert not plt.rcParams["text.usetex"]
    shown = []
    monkeypatch.setattr(figures, "get_ipython", lambda: "there")
    monkeypatch.setattr(figures, "display", lambda fig, metadata: shown.append(metadata))
    plots.save(plots.learning_rates([0.1, 0.2], 1, "A title\nof two lines"), "rates")
    assert (shown, plt.get_fignums()) == ([{"image/png": {"alt": "A title of two lines"}}], [])


def test_file_is_a_picture_and_the_watermark_is_in_it(output):
    pictures = []
    for name in ("CIFAR-10", "stand-in"):
        plots.use(named(name), begin(name=name))
        plots.save(plots.learning_rates([0.1, 0.2], 1, "A figure"), name)
        pictures.append(matplotlib.image.imread(next(output.rglob(f"{name}.png")))[..., :3])
    plain, marked = pictures
    assert plain.shape[1] == pytest.approx(7 * 130, abs=2)  # inches times dots an inch
    assert plain.std() > 0.01 < (abs(marked - plain).max(-1) > 0.05).mean(), "neither is empty, and they differ"


def test_figure_that_cannot_be_saved_costs_one_line(output, capsys):
    files.write_text(output / "Images", "a file in the way")
    plots.save(plots.learning_rates([0.1, 0.2], 1, "A figure"), "rates")
    said = r"rates\.png was not saved \(.+\); the figure is unaffected\.\n"
    assert re.fullmatch(said, capsys.readouterr().out)


def test_looks():
    assert len(set(plots.COLORS)) == len(set(plots.MARKERS)) == 10, "a class differs in colour and in shape"
    assert plots.short(("stand-in disc", "cat", "a" * 30)) == ["disc", "cat", "a" * 23 + "…"], "for crowded axes"
