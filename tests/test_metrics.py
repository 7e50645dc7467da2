"""helpers.metrics: against scikit-learn, against torch, and against examples worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from helpers import metrics
from helpers.data import CLASS_NAMES

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 10, 500)
LOGITS = GENERATOR.normal(0, 1, (500, 10)) + 2 * np.eye(10)[LABELS]
NAMES = ("a", "b", "c")


def logits_for(predicted, classes: int = 3, height: float = 5.0) -> np.ndarray:
    return height * np.eye(classes)[predicted]


# ------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (9330, 10_000, 0.927931, 0.937736),  # Wilson's formula, to six digits
        (5, 10, 0.236593, 0.763407),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
    ],
)
def test_wilson_interval_of_known_values(correct, total, low, high):
    assert metrics.accuracy_interval(correct, total) == pytest.approx((low, high), abs=1e-6)


def test_wilson_interval_agrees_with_scipy():
    from scipy.stats import binomtest

    for correct in (0, 1, 137, 499, 500):
        expected = binomtest(correct, 500).proportion_ci(0.95, method="wilson")
        assert metrics.accuracy_interval(correct, 500) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(("correct", "total"), [(11, 10), (-1, 10), (0, 0)])
def test_wilson_interval_refuses_what_is_no_accuracy(correct, total):
    with pytest.raises(ValueError, match=rf"{correct} correct of {total}: expected 0 <= correct <= total, total > 0"):
        metrics.accuracy_interval(correct, total)


# -------------------------------------------------------------------------------------------- summary


def test_summary_agrees_with_scikit_learn():
    test = metrics.summary(LOGITS, LABELS, CLASS_NAMES)
    predicted = LOGITS.argmax(1)
    assert 0.3 < test["accuracy"] < 0.9  # neither perfect nor chance, so that the rest says something
    assert test["images"] == 500
    assert test["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(LABELS, predicted))
    correct = int((predicted == LABELS).sum())
    assert test["accuracy_interval_95"] == pytest.approx(metrics.accuracy_interval(correct, 500))
    macro = {"average": "macro"}
    assert test["macro_precision"] == pytest.approx(sklearn_metrics.precision_score(LABELS, predicted, **macro))
    assert test["macro_recall"] == pytest.approx(sklearn_metrics.recall_score(LABELS, predicted, **macro))
    assert test["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(LABELS, predicted, **macro))
    assert test["confusion_matrix"] == sklearn_metrics.confusion_matrix(LABELS, predicted).tolist()
    report = sklearn_metrics.classification_report(LABELS, predicted, target_names=CLASS_NAMES, output_dict=True)
    for name in CLASS_NAMES:
        expected = report[name]
        assert test["per_class"][name] == pytest.approx(
            {
                "precision": expected["precision"],
                "recall": expected["recall"],
                "f1": expected["f1-score"],
                "images": expected["support"],
            }
        )


def test_loss_is_torchs_cross_entropy():
    import torch

    loss = torch.nn.functional.cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(LABELS)).item()
    assert metrics.summary(LOGITS, LABELS, CLASS_NAMES)["loss"] == pytest.approx(loss, rel=1e-9)


def test_loss_of_undecided_logits_is_the_logarithm_of_the_classes():
    test = metrics.summary(np.zeros((10, 10)), np.arange(10), CLASS_NAMES)
    assert test["loss"] == pytest.approx(np.log(10))


def test_loss_of_huge_logits_is_finite():
    test = metrics.summary(np.array([[1e4, 0, 0], [0, 1e4, 0]], np.float32), [0, 2], NAMES)
    assert test["loss"] == pytest.approx(5000)


def test_summary_of_a_hand_worked_example():
    # true a a a b b c, predicted a a b b a a: c is never predicted
    test = metrics.summary(logits_for([0, 0, 1, 1, 0, 0]), [0, 0, 0, 1, 1, 2], NAMES)
    assert test["confusion_matrix"] == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]  # rows true, columns predicted
    assert test["accuracy"] == 0.5
    assert test["per_class"]["a"] == pytest.approx({"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7, "images": 3})
    assert test["per_class"]["b"] == pytest.approx({"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "images": 2})
    assert test["per_class"]["c"] == pytest.approx({"precision": 0, "recall": 0, "f1": 0, "images": 1})
    assert test["macro_f1"] == pytest.approx((4 / 7 + 1 / 2) / 3)


def test_summary_counts_classes_without_images():
    test = metrics.summary(logits_for([0, 0]), [0, 0], NAMES)
    assert test["confusion_matrix"] == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert list(test["per_class"]) == list(NAMES)


def test_perfect_classifier():
    test = metrics.summary(logits_for(LABELS, 10, height=50.0), LABELS, CLASS_NAMES)
    for score in ("accuracy", "macro_precision", "macro_recall", "macro_f1"):
        assert test[score] == 1.0
    assert test["accuracy_interval_95"][1] == 1.0
    assert test["accuracy_interval_95"][0] < 1.0
    assert test["loss"] == pytest.approx(0, abs=1e-9)
    assert test["expected_calibration_error"] == pytest.approx(0, abs=1e-9)
    assert metrics.error_sentence(test, CLASS_NAMES) == "None of the 500 images is misclassified."
    assert metrics.confident_errors(logits_for(LABELS, 10), LABELS).empty
    assert metrics.confused_pairs(test["confusion_matrix"], CLASS_NAMES)["errors"].sum() == 0


def test_summary_holds_plain_values_only():
    test = metrics.summary(LOGITS.astype(np.float32), LABELS.astype(np.uint8), CLASS_NAMES)
    assert json.loads(json.dumps(test)) == test


def test_per_class_is_a_table_with_a_row_a_class():
    table = metrics.per_class(LOGITS, LABELS, CLASS_NAMES)
    assert tuple(table.index) == CLASS_NAMES
    assert list(table.columns) == ["precision", "recall", "f1", "images"]
    assert table["images"].sum() == 500


@pytest.mark.parametrize("score", [metrics.confident_errors, metrics.expected_calibration_error])
@pytest.mark.parametrize(
    ("logits", "labels", "shapes"),
    [
        (LOGITS, LABELS[:-1], r"\(500, 10\) and labels \(499,\)"),
        (LOGITS[:, 0], LABELS, r"\(500,\) and labels \(500,\)"),
        (LOGITS, LABELS[:, None], r"\(500, 10\) and labels \(500, 1\)"),
        (LOGITS[:0], LABELS[:0], r"\(0, 10\) and labels \(0,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(score, logits, labels, shapes):
    message = rf"logits are {shapes}: expected \(n, classes\) and \(n,\), n > 0"
    for call in (score, lambda *a: metrics.summary(*a, CLASS_NAMES), lambda *a: metrics.per_class(*a, CLASS_NAMES)):
        with pytest.raises(ValueError, match=message):
            call(logits, labels)


# ----------------------------------------------------------------------------------------- confusions

MATRIX = [[90, 7, 3], [1, 95, 4], [5, 5, 90]]


def test_confused_pairs_of_a_hand_worked_matrix():
    pairs = metrics.confused_pairs(MATRIX, NAMES)
    assert list(pairs["pair"]) == ["b / c", "a / b", "a / c"]  # 9, 8 and 8: equals stay in the order of the classes
    assert list(pairs["errors"]) == [9, 8, 8]
    assert list(pairs["share"]) == pytest.approx([9 / 25, 8 / 25, 8 / 25])
    assert list(pairs["more"]) == [
        "5 c taken for b, 4 the other way",
        "7 a taken for b, 1 the other way",
        "5 c taken for a, 3 the other way",
    ]
    assert len(metrics.confused_pairs(MATRIX, NAMES, top=2)) == 2


def matrix_with(**errors) -> list[list[int]]:
    """Ten classes of 100 images with the given errors, as true_predicted=number."""
    matrix = 100 * np.eye(10, dtype=int)
    for pair, number in errors.items():
        true, predicted = (CLASS_NAMES.index(name) for name in pair.split("_"))
        matrix[true, predicted] += number
        matrix[true, true] -= number
    return matrix.tolist()


def test_error_sentence_when_cats_and_dogs_lead():
    matrix = matrix_with(cat_dog=10, dog_cat=8, bird_airplane=5, ship_truck=2)
    assert metrics.error_sentence({"images": 1000, "confusion_matrix": matrix}, CLASS_NAMES) == (
        "25 of 1,000 images are misclassified. The most confused pair is cat / dog: 18 errors, 72% of all "
        "(10 cat taken for dog, 8 the other way). Next come airplane / bird (5), ship / truck (2)."
    )


def test_error_sentence_when_others_lead():
    matrix = matrix_with(automobile_truck=9, truck_automobile=1, deer_horse=6, cat_dog=3, frog_cat=2, bird_airplane=1)
    sentence = metrics.error_sentence({"images": 1000, "confusion_matrix": matrix}, CLASS_NAMES)
    assert "The most confused pair is automobile / truck: 10 errors, 45% of all" in sentence
    assert "Next come deer / horse (6), cat / dog (3), cat / frog (2)." in sentence
    assert "cat / dog, which one might expect first, is number 3 of 45 (3)." in sentence
    assert "airplane / bird, which one might expect among these, is number 5 of 45 (1)." in sentence


def test_error_sentence_names_only_pairs_that_are_confused():
    sentence = metrics.error_sentence({"images": 10, "confusion_matrix": [[5, 1], [0, 4]]}, ("a", "b"))
    assert sentence == (
        "1 of 10 images are misclassified. The most confused pair is a / b: 1 errors, 100% of all "
        "(1 a taken for b, 0 the other way)."
    )
    three = metrics.error_sentence({"images": 10, "confusion_matrix": [[5, 1, 0], [0, 3, 0], [0, 0, 1]]}, NAMES)
    assert "(0)" not in three


def test_confident_errors_come_most_confident_first():
    logits = np.array([[4.0, 0, 0], [0, 2.0, 0], [3.0, 0, 0], [0, 0, 9.0], [0, 1.0, 0]])
    labels = np.array([1, 0, 0, 2, 2])  # the third and fourth are right
    errors = metrics.confident_errors(logits, labels)
    assert list(errors.columns) == ["index", "true", "predicted", "probability"]
    assert errors[["index", "true", "predicted"]].to_numpy().tolist() == [[0, 1, 0], [1, 0, 1], [4, 2, 1]]
    assert list(errors["probability"]) == pytest.approx([np.exp(a) / (np.exp(a) + 2) for a in (4, 2, 1)])
    assert list(metrics.confident_errors(logits, labels, top=1)["index"]) == [0]


# ---------------------------------------------------------------------------------------- calibration


def confident(*probabilities) -> np.ndarray:
    """Logits of two classes in which the first has the given probability."""
    return np.log([[p, 1 - p] for p in probabilities])


def test_calibration_error_of_a_hand_worked_example():
    # Bins of a tenth. 0.95 (right), 0.93 (wrong): |1/2 - 0.94|, weight 2/4. 0.65 (right): 0.35, 0.72 (wrong): 0.72.
    logits, labels = confident(0.95, 0.93, 0.65, 0.72), [0, 1, 0, 1]
    expected = 0.44 * 2 / 4 + 0.35 / 4 + 0.72 / 4
    assert metrics.expected_calibration_error(logits, labels, bins=10) == pytest.approx(expected)
    # One bin: |2/4 - mean confidence|.
    assert metrics.expected_calibration_error(logits, labels, bins=1) == pytest.approx(abs(0.5 - 0.8125))


def test_calibration_error_of_certain_and_wrong_answers_is_one():
    assert metrics.expected_calibration_error(logits_for([0, 1], height=1000.0), [1, 0]) == pytest.approx(1)


def test_calibrated_answers_have_a_small_error():
    generator = np.random.default_rng(0)
    probabilities = generator.uniform(0.5, 1, 20_000)
    labels = (generator.uniform(size=20_000) > probabilities).astype(int)
    assert metrics.expected_calibration_error(confident(*probabilities), labels) < 0.02
