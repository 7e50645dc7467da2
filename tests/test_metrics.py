"""helpers.metrics: against scikit-learn and SciPy, and against examples worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import LABELS, LOGITS
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics
from torch.nn import functional as F

from helpers import metrics
from helpers.data import CLASS_NAMES

NAMES = ("a", "b", "c")


def logits_for(predicted, classes: int = 3, height: float = 5.0) -> np.ndarray:
    return height * np.eye(classes)[predicted]


def test_wilson_interval_of_known_values():
    for correct, total, low, high in ((5, 10, 0.2366, 0.7634), (0, 10, 0, 0.2775), (9_330, 10_000, 0.9279, 0.9377)):
        assert metrics.accuracy_interval(correct, total) == pytest.approx((low, high), abs=5e-5)
    for correct, total in ((11, 10), (-1, 10), (0, 0)):
        message = rf"{correct} correct of {total}: expected 0 <= correct <= total, total > 0"
        with pytest.raises(ValueError, match=message):
            metrics.accuracy_interval(correct, total)


# -------------------------------------------------------------------------------------------- summary


def test_summary_agrees_with_scikit_learn():
    test, predicted = metrics.summary(LOGITS.astype(np.float32), LABELS.astype(np.uint8), CLASS_NAMES), LOGITS.argmax(1)
    report = sklearn_metrics.classification_report(LABELS, predicted, target_names=CLASS_NAMES, output_dict=True)
    assert 0.3 < test["accuracy"] < 0.9  # neither perfect nor chance, so that the rest says something
    assert (test["images"], test["accuracy"]) == (500, pytest.approx(report["accuracy"]))
    correct = int((predicted == LABELS).sum())
    assert test["accuracy_interval_95"] == pytest.approx(metrics.accuracy_interval(correct, 500))
    for macro in ("precision", "recall", "f1"):
        assert test[f"macro_{macro}"] == pytest.approx(report["macro avg"][macro.replace("f1", "f1-score")])
    assert test["confusion_matrix"] == sklearn_metrics.confusion_matrix(LABELS, predicted).tolist()
    for name in CLASS_NAMES:
        assert list(test["per_class"][name].values()) == pytest.approx(list(report[name].values()))
    assert test["loss"] == pytest.approx(sklearn_metrics.log_loss(LABELS, softmax(LOGITS, 1)), rel=1e-6)
    assert json.loads(json.dumps(test)) == test, "a record holds plain values"
    assert metrics.per_class(LOGITS, LABELS, CLASS_NAMES).to_dict("index") == test["per_class"]


def test_views_are_those_of_airbench():
    generator = np.random.default_rng(0)
    images, weights = generator.integers(0, 256, (300, 32, 32, 3), np.uint8), generator.normal(size=(3072, 10))

    def answer(views):
        return views.reshape(len(views), -1) / 255 @ weights

    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    padded = F.pad(x, (1,) * 4, "reflect")
    pairs = [(view, view.flip(-1)) for view in (x, padded[:, :, 0:32, 0:32], padded[:, :, 2:34, 2:34])]
    plain, *shifted = (sum(answer(view.permute(0, 2, 3, 1).numpy()) for view in pair) / 2 for pair in pairs)
    labels, all_six = plain.argmax(1), (0.5 * plain + 0.25 * sum(shifted)).argmax(1)
    expected = {"flips": 1.0, "flips_and_shifts": (all_six == labels).mean()}
    assert 0.2 < expected["flips_and_shifts"] < 0.8
    assert metrics.views(answer, images, labels) == expected


@pytest.mark.parametrize(
    ("logits", "labels", "loss"),
    [
        (np.zeros((3, 3)), [0, 1, 2], np.log(3)),  # undecided
        (np.array([[1e4, 0, 0], [0, 1e4, 0]], np.float32), [0, 2], 5000),  # huge, and finite
        (logits_for([0, 1], height=50.0), [0, 1], 0),
    ],
)
def test_loss_of_known_logits(logits, labels, loss):
    assert metrics.summary(logits, labels, NAMES)["loss"] == pytest.approx(loss, abs=1e-9)


def test_summary_of_a_hand_worked_example():
    # true a a a b b c, predicted a a b b a a: c is never predicted
    test = metrics.summary(logits_for([0, 0, 1, 1, 0, 0]), [0, 0, 0, 1, 1, 2], NAMES)
    assert test["confusion_matrix"] == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]  # rows true, columns predicted
    assert test["accuracy"] == 0.5
    assert test["per_class"]["a"] == pytest.approx({"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7, "images": 3})
    assert test["per_class"]["b"] == pytest.approx({"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "images": 2})
    assert test["per_class"]["c"] == pytest.approx({"precision": 0, "recall": 0, "f1": 0, "images": 1})
    assert test["macro_f1"] == pytest.approx((4 / 7 + 1 / 2) / 3)
    without = metrics.summary(logits_for([0, 0]), [0, 0], NAMES)
    assert without["confusion_matrix"] == [[2, 0, 0], [0, 0, 0], [0, 0, 0]], "classes without images count"


def test_perfect_classifier():
    test = metrics.summary(logits_for(LABELS, 10, height=50.0), LABELS, CLASS_NAMES)
    for score in ("accuracy", "macro_precision", "macro_recall", "macro_f1"):
        assert test[score] == 1.0
    assert test["accuracy_interval_95"][0] < test["accuracy_interval_95"][1] == 1.0
    assert test["expected_calibration_error"] == pytest.approx(0, abs=1e-9)
    assert metrics.error_sentence(test, CLASS_NAMES) == "None of the 500 images is misclassified."
    assert metrics.confident_errors(logits_for(LABELS, 10), LABELS).empty
    assert metrics.confused_pairs(test["confusion_matrix"], CLASS_NAMES)["errors"].sum() == 0


@pytest.mark.parametrize(
    ("logits", "labels", "shapes"),
    [
        (LOGITS, LABELS[:-1], r"\(500, 10\) and labels \(499,\)"),
        (LOGITS[:, 0], LABELS, r"\(500,\) and labels \(500,\)"),
        (LOGITS, LABELS[:, None], r"\(500, 10\) and labels \(500, 1\)"),
        (LOGITS[:0], LABELS[:0], r"\(0, 10\) and labels \(0,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits, labels, shapes):
    for score, *more in ((metrics.summary, CLASS_NAMES), (metrics.per_class, CLASS_NAMES), (metrics.confident_errors,)):
        with pytest.raises(ValueError, match=rf"logits are {shapes}: expected \(n, classes\) and \(n,\), n > 0"):
            score(logits, labels, *more)


def test_confused_pairs_of_a_hand_worked_matrix():
    pairs = metrics.confused_pairs([[90, 7, 3], [1, 95, 4], [5, 5, 90]], NAMES)
    assert pairs.to_dict("list") == {
        "pair": ["b / c", "a / b", "a / c"],  # equals stay in the order of the classes
        "errors": [9, 8, 8],
        "share": pytest.approx([9 / 25, 8 / 25, 8 / 25]),
        "more": [
            "5 c taken for b, 4 the other way",
            "7 a taken for b, 1 the other way",
            "5 c taken for a, 3 the other way",
        ],
    }


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ({"cat_dog": 10, "dog_cat": 8, "bird_airplane": 5, "ship_truck": 2},
         "25 of 1,000 images are misclassified. The most confused pair is cat / dog: 18 errors, 72% of all "
         "(10 cat taken for dog, 8 the other way). Next come airplane / bird (5), ship / truck (2)."),
        ({"automobile_truck": 9, "truck_automobile": 1, "deer_horse": 6, "cat_dog": 3, "frog_cat": 2,
          "bird_airplane": 1},
         "22 of 1,000 images are misclassified. The most confused pair is automobile / truck: 10 errors, 45% of all "
         "(9 automobile taken for truck, 1 the other way). Next come deer / horse (6), cat / dog (3), cat / frog (2)."),
    ],
)  # fmt: skip
def test_error_sentence(errors, expected):
    matrix = 100 * np.eye(10, dtype=int)
    for pair, number in errors.items():
        true, predicted = (CLASS_NAMES.index(name) for name in pair.split("_"))
        matrix[true, [predicted, true]] += [number, -number]
    assert metrics.error_sentence({"images": 1000, "confusion_matrix": matrix.tolist()}, CLASS_NAMES) == expected


def test_confident_errors_come_most_confident_first():
    logits = np.array([[4.0, 0, 0], [0, 2.0, 0], [3.0, 0, 0], [0, 0, 9.0], [0, 1.0, 0]])
    errors = metrics.confident_errors(logits, np.array([1, 0, 0, 2, 2]))  # the third and fourth are right
    assert errors[["index", "true", "predicted"]].to_numpy().tolist() == [[0, 1, 0], [1, 0, 1], [4, 2, 1]]
    assert list(errors["probability"]) == pytest.approx([np.exp(a) / (np.exp(a) + 2) for a in (4, 2, 1)])
    assert len(metrics.confident_errors(logits, np.array([1, 0, 0, 2, 2]), top=1)) == 1


# ---------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize(
    ("bins", "expected"),
    [
        (10, 0.44 * 2 / 4 + 0.35 / 4 + 0.72 / 4),  # 0.95 right and 0.93 wrong share a bin; 0.65 right; 0.72 wrong
        (1, abs(2 / 4 - 0.8125)),  # the accuracy and the mean confidence
    ],
)
def test_calibration_error_of_a_hand_worked_example(bins, expected):
    logits = np.log([[p, 1 - p] for p in (0.95, 0.93, 0.65, 0.72)])
    assert metrics.expected_calibration_error(logits, [0, 1, 0, 1], bins=bins) == pytest.approx(expected)
    assert metrics.expected_calibration_error(logits_for([0, 1], height=1e3), [1, 0]) == pytest.approx(1), "certain"
