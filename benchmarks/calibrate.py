"""Probabilities that mean something, and pictures of other things: the numbers beside each file of weights.

    python -m benchmarks.calibrate [--quick] [--write]

The network of the profile full-validation answers its 5,000 validation images, which it did not learn from. On them a
temperature is fitted (Guo et al. 2017), five scores are compared by how well they tell CIFAR-10 from pictures of other
things, and a threshold is set that 95 % of them pass. All that is then measured with the network of the full profile on
the test images. --write puts temperature and threshold into weights/<model>-full-seed0.json, too, and where the best
score needs them, the mean features of each class, of 5,000 training images.
"""

import hashlib
import json
from collections.abc import Callable

import numpy as np
import skimage.data
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score

from benchmarks.report import options, publish
from helpers import data, metrics, predict
from helpers.files import relative, write_text
from helpers.records import MODELS, STURDY, choice, load, title

SCORES: dict[str, Callable] = {  # of logits, features (n, f) and the classes' mean features (10, f)
    "highest probability": lambda logits, features, means: softmax(logits, 1).max(1),
    "length of the features": lambda logits, features, means: np.linalg.norm(features, axis=1),
    "likeness to a class": lambda logits, features, means: (unit(features) @ unit(means).T).max(1),
    "highest logit": lambda logits, features, means: logits.max(1),  # the flag uses neither this one
    "energy": lambda logits, features, means: logsumexp(logits, 1),  # nor this one
}
PHOTOGRAPHS = {"astronaut": "", "camera": "", "chelsea": "cat", "coffee": "", "coins": "", "hubble_deep_field": "",
               "rocket": "", "horse": "horse"}  # scikit-image's, and those of the ten classes  # fmt: skip


def foreign(seed: int = 0) -> dict[str, np.ndarray]:
    """Pictures of other things that come with packages, or are drawn here, by kind: (n, 32, 32, 3) uint8."""
    random = np.random.default_rng(seed)
    photographs = [getattr(skimage.data, name)() for name, label in PHOTOGRAPHS.items() if not label]
    photographs += [skimage.data.stereo_motorcycle()[0], *load_sample_images().images]
    textures = [
        getattr(skimage.data, name)() for name in ("brick", "grass", "gravel", "text", "page", "moon", "retina")
    ]
    return {
        "digits": np.stack([predict.pixels(image / 16) for image in load_digits().images[:1000]]),
        "faces": np.stack([predict.pixels(face.clip(0, 1)) for face in skimage.data.lfw_subset()[:100]]),
        "parts of photographs": _parts(photographs, random),
        "textures and text": _parts(textures, random),
        "drawn shapes": data.stand_in(100, 1_000).test_images,
        "one colour": np.tile(random.integers(0, 256, (1_000, 1, 1, 3), dtype=np.uint8), (1, 32, 32, 1)),
        "noise": random.integers(0, 256, (1_000, 32, 32, 3), dtype=np.uint8),
    }


def _parts(pictures: list[np.ndarray], random: np.random.Generator, each: int = 40) -> np.ndarray:
    """Squares cut from each picture anywhere, from 64 pixels a side to all of it."""
    found = []
    for picture in pictures:
        for _ in range(each):
            side = int(random.integers(64, min(picture.shape[:2]) + 1))
            top, left = (int(random.integers(0, edge - side + 1)) for edge in picture.shape[:2])
            found.append(predict.pixels(picture[top : top + side, left : left + side]))
    return np.stack(found)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def asked(classifier: predict.Classifier, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 10), not divided by a temperature, and features (n, f)."""
    found = []
    for start in range(0, len(pictures), 250):
        part = pictures[start : start + 250]
        if classifier.name == "keras_baseline":
            found.append([np.asarray(one) for one in classifier.module(part, training=False)])
            continue
        with torch.inference_mode():
            features = classifier.module.described(torch.from_numpy(np.ascontiguousarray(part)).permute(0, 3, 1, 2))
            found.append((classifier.module.head(features).numpy(), features.numpy()))
    return tuple(np.concatenate(part) for part in zip(*found))


def class_means(classifier: predict.Classifier, cifar: data.Cifar10, index: np.ndarray) -> np.ndarray:
    """The mean features of each class of these training images, (10, f)."""
    chosen = index[data.subset(cifar.train_labels[index], size=min(5_000, len(index)))]
    _, features = asked(classifier, cifar.train_images[chosen])
    return np.stack([features[cifar.train_labels[chosen] == k].mean(0) for k in range(10)])


def _area(own: np.ndarray, others: np.ndarray) -> float:
    """Under the ROC curve between CIFAR-10's scores and others: 1 tells all of them apart, 0.5 none."""
    return roc_auc_score([1] * len(own) + [0] * len(others), [*own, *others])


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """By which the logits are divided for the lowest loss on these images."""

    def loss(log: float) -> float:
        return -log_softmax(logits / np.exp(log), 1)[np.arange(len(labels)), labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def main() -> None:
    arguments = options("calibrate", __doc__).parse_args()
    cifar = data.load_cifar10(download=False)
    trained, validation = data.split(cifar.train_labels, validation_size=5_000, seed=0)
    known = {(r["model"], r["profile"], r["seed"]): r for r in load(predict.REPOSITORY / "results")}
    others, images, tests = foreign(), cifar.train_images[validation], cifar.test_images
    labels, test_labels = cifar.train_labels[validation], cifar.test_labels
    if arguments.quick:
        others = {kind: pictures[:20] for kind, pictures in others.items()}
        images, labels, tests, test_labels = images[:200], labels[:200], tests[:200], test_labels[:200]
    before, scores, rates, measured = [], [], [], []
    for name in (*MODELS, *STURDY):
        full = predict.weights_path(name)
        chosen = full.with_name(f"{name}-full-validation-seed0.safetensors")
        headline = known.get((name, "full", 0))
        if not (headline and full.exists() and chosen.exists()) or choice(headline) is None:
            print(f"{title(name)}: skipped, without the weights of both its full runs of one recipe.")
            continue
        network = predict.load(name, chosen)
        (logits, features), means = asked(network, images), class_means(network, cifar, trained)
        there = {kind: asked(network, pictures) for kind, pictures in others.items()}
        scale, averages = temperature(logits, labels), {}
        for score, value in SCORES.items():
            own, row = value(logits / scale, features, means), {"model": title(name), "score": score}
            areas = {kind: _area(own, value(found[0] / scale, found[1], means)) for kind, found in there.items()}
            averages[score] = np.mean([*areas.values()])
            scores.append(row | {kind: f"{area:.3f}" for kind, area in (areas | {"mean": averages[score]}).items()})
        usable = [one for one in predict.SCORES if name != "keras_baseline" or one != "likeness to a class"]
        score = max(usable, key=averages.get)
        least = float(np.quantile(SCORES[score](logits / scale, features, means), 0.05))
        network = predict.load(name, full)
        (logits, features), means = asked(network, tests), class_means(network, cifar, np.arange(50_000))
        error = {part: metrics.expected_calibration_error(logits / by, test_labels)
                 for part, by in (("before", 1), ("after", scale))}  # fmt: skip
        nll = {part: -log_softmax(logits / by, 1)[np.arange(len(tests)), test_labels].mean()
               for part, by in (("before", 1), ("after", scale))}  # fmt: skip
        before.append({"model": title(name), "temperature": f"{scale:.3f}",
                       "calibration error": f"{error['before']:.4f}", "with the temperature": f"{error['after']:.4f}",
                       "loss": f"{nll['before']:.4f}", "with the temperature ": f"{nll['after']:.4f}"})  # fmt: skip

        def passed(logits: np.ndarray, features: np.ndarray, score=score, scale=scale, least=least, means=means):
            return float((SCORES[score](logits / scale, features, means) >= least).mean())

        refused = 1 - passed(logits, features)
        accepted = {kind: passed(*asked(network, pictures)) for kind, pictures in others.items()}
        rates.append({"model": title(name), "by": score, "CIFAR-10's test images refused": f"{refused:.1%}"}
                     | {f"{kind} accepted": f"{rate:.0%}" for kind, rate in accepted.items()})  # fmt: skip
        measured.append({"model": name, "temperature": scale, "score": score, "least": least,
                         "calibration_error": error, "refused": refused, "accepted": accepted})  # fmt: skip
        if arguments.write and not arguments.quick:
            digits = hashlib.sha256(full.read_bytes()).hexdigest()
            assert headline.get("weights_sha256", digits) == digits, f"{relative(full)} is not its record's"
            content = {"sha256": digits, "temperature": round(scale, 4), "score": score, "least": round(least, 4)}
            if score == "likeness to a class":
                content["means"] = (1_000 * unit(means)).round().astype(int).tolist()
            write_text(full.with_suffix(".json"), json.dumps(content) + "\n")
    counts = ", ".join(f"{len(pictures):,} {kind}" for kind, pictures in others.items())
    packages, script = ["torch", "keras", "scikit-image", "scikit-learn"], {"script": "calibrate"}
    note = "Temperature fitted on validation images; calibration error (15 bins) and loss on the test images."
    publish("calibration", before, measured, note, packages, write=arguments.write, **script)
    note = (f"Area under the ROC curve between 5,000 validation images and {counts}: 1 tells all of them apart, "
            "0.5 none.")  # fmt: skip
    publish("scores", scores, [], note, packages, write=arguments.write, **script)
    note = "The threshold lets 95 % of the validation images pass; measured with the networks of the full profile."
    publish("foreign", rates, [], note, packages, write=arguments.write, **script)
    photographs = []
    for name in predict.at_hand():
        ask = predict.load(name)
        for picture, label in PHOTOGRAPHS.items():
            row = ask(getattr(skimage.data, picture)()).iloc[0]
            best = row[list(data.CLASS_NAMES)].astype(float).nlargest(2)
            answer = ", ".join(f"{k} {v:.0%}" for k, v in best.items())
            flag = {True: "yes", False: "no", None: "not measured"}[row[predict.UNLIKE]]
            photographs.append({"model": title(name), "picture": picture,
                                "is a": label or "none of the ten", "answer": answer, "flagged": flag})  # fmt: skip
    note = "Photographs of scikit-image through `predict`, as they are, cropped to the square in the middle."
    publish("photographs", photographs, [], note, packages, write=arguments.write, **script)


if __name__ == "__main__":
    main()
