"""Scores of a classifier from its logits: accuracy with its interval, per-class scores, confusions, calibration.

Everything takes NumPy arrays, so PyTorch and Keras models are scored by the same code. Scores are fractions (0..1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from helpers.files import InputError


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy, as fractions (E. B. Wilson, JASA 1927)."""
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} correct of {total}: expected 0 <= correct <= total, total > 0")
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def refuse_infinite(loss: float, part: str, epoch: int) -> None:
    """Raise InputError for a loss of this part ("training", say) that is not finite; epochs count from 0."""
    if not np.isfinite(loss):
        raise InputError(f"the {part} loss is {loss} in epoch {epoch + 1}: try a lower LEARNING_RATE.")


def packed(correct: np.ndarray) -> str:
    """(n,) bool, in hexadecimal digits: which images are right, small enough for a record."""
    return np.packbits(correct).tobytes().hex()


def unpacked(digits: str) -> np.ndarray:
    """(n,) bool of `packed`, with up to seven more that are False."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8)).astype(bool)


def paired(ours: str, theirs: str) -> float:
    """How likely chance alone sets two `packed` answers to the same images at least as far apart (McNemar's test,
    1947, in its exact form)."""
    a, b = unpacked(ours), unpacked(theirs)
    won, lost = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def summary(logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict:
    """The `test` object of a record: every score of one evaluation, as plain numbers and lists.

    logits: (n, classes) float; labels: (n,) integers. loss is the mean cross-entropy in nats without smoothing;
    the confusion matrix has true classes as rows and predicted ones as columns.
    """
    logits, labels = _checked(logits, labels)
    predicted = logits.argmax(1)
    correct = int((predicted == labels).sum())
    table = per_class(logits, labels, class_names)
    return {
        "images": len(labels),
        "accuracy": correct / len(labels),
        "accuracy_interval_95": list(accuracy_interval(correct, len(labels))),
        "loss": float(-log_softmax(logits, 1)[np.arange(len(labels)), labels].mean()),
        "macro_precision": float(table["precision"].mean()),
        "macro_recall": float(table["recall"].mean()),
        "macro_f1": float(table["f1"].mean()),
        "expected_calibration_error": expected_calibration_error(logits, labels),
        "per_class": {name: row.to_dict() for name, row in table.iterrows()},
        "confusion_matrix": confusion_matrix(labels, predicted, labels=range(len(class_names))).tolist(),
    }


def views(answer: Callable[[np.ndarray], np.ndarray], images: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy when the logits for several views of each image are averaged, which published records often count.

    answer: images (n, 32, 32, 3) uint8 -> logits (n, classes). "flips": the image and its mirror image.
    "flips_and_shifts": half of that, and half of both views shifted by one pixel up and left, and down and right (the
    border is mirrored): the six views of airbench (Jordan 2024, arXiv 2404.00498).
    """
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    plain, *shifted = (answer(view) + answer(view[:, :, ::-1])
                       for view in (images, padded[:, :-2, :-2], padded[:, 2:, 2:]))  # fmt: skip
    averaged = {"flips": plain, "flips_and_shifts": 2 * plain + sum(shifted)}
    return {name: float((logits.argmax(1) == labels).mean()) for name, logits in averaged.items()}


def per_class(logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> pd.DataFrame:
    """Precision, recall and F1 of each class (scikit-learn), with the number of images: one row a class."""
    logits, labels = _checked(logits, labels)
    precision, recall, f1, images = precision_recall_fscore_support(
        labels, logits.argmax(1), labels=range(len(class_names)), zero_division=0.0
    )
    table = pd.DataFrame(
        {"precision": precision, "recall": recall, "f1": f1}, index=pd.Index(class_names, name="class")
    )
    return table.assign(images=images)


def confused_pairs(matrix: np.ndarray | list, class_names: tuple[str, ...], top: int = 5) -> pd.DataFrame:
    """Unordered pairs of classes by the number of images taken for one another, both ways, most first.

    Columns: pair ("cat / dog"), errors (both ways), share (of all errors), more (the commoner way, in words).
    """
    matrix, names = np.asarray(matrix), np.asarray(class_names)
    a, b = np.triu_indices(len(matrix), 1)
    first, second = np.where(matrix[a, b] >= matrix[b, a], (a, b), (b, a))
    one, other = matrix[first, second], matrix[second, first]
    table = pd.DataFrame({"pair": [f"{x} / {y}" for x, y in zip(names[a], names[b])], "errors": one + other})
    table["share"] = table["errors"] / max(matrix.sum() - np.trace(matrix), 1)
    table["more"] = [f"{n} {x} taken for {y}, {m} the other way"
                     for n, x, y, m in zip(one, names[first], names[second], other)]  # fmt: skip
    return table.sort_values("errors", ascending=False, kind="stable").head(top).reset_index(drop=True)


def error_sentence(test: dict, class_names: tuple[str, ...]) -> str:
    """Which classes are confused, in words."""
    pairs, matrix = confused_pairs(test["confusion_matrix"], class_names), np.asarray(test["confusion_matrix"])
    wrong = int(matrix.sum() - matrix.trace())
    if not wrong:
        return f"None of the {test['images']:,} images is misclassified."
    top = pairs.iloc[0]
    text = (f"{wrong:,} of {test['images']:,} images are misclassified. The most confused pair is {top['pair']}: "
            f"{top['errors']} errors, {top['share']:.0%} of all ({top['more']}).")  # fmt: skip
    rest = ", ".join(f"{row['pair']} ({row['errors']})" for _, row in pairs.iloc[1:4].iterrows() if row["errors"])
    return f"{text} Next come {rest}." if rest else text


def confident_errors(logits: np.ndarray, labels: np.ndarray, top: int = 10) -> pd.DataFrame:
    """The wrong answers given with the highest probability: columns index, true, predicted, probability."""
    logits, labels = _checked(logits, labels)
    probabilities = softmax(logits, 1)
    predicted = probabilities.argmax(1)
    table = pd.DataFrame({"index": np.arange(len(labels)), "true": labels, "predicted": predicted})
    table = table.assign(probability=probabilities.max(1))[predicted != labels]
    return table.sort_values("probability", ascending=False, kind="stable").head(top).reset_index(drop=True)


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence (Guo et al., ICML 2017)."""
    logits, labels = _checked(logits, labels)
    probabilities = softmax(logits, 1)
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(hit[place == k].mean() - confidence[place == k].mean()) * (place == k).mean() for k in np.unique(place)]
    return float(sum(gaps))


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels).astype(np.int64)
    if logits.ndim != 2 or labels.shape != (len(logits),) or len(logits) == 0:
        raise ValueError(f"logits are {logits.shape} and labels {labels.shape}: expected (n, classes) and (n,), n > 0")
    return logits, labels
