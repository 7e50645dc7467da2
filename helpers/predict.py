"""A picture of one's own, classified: one way for Python, the shell, torch.hub, ONNX and the page (docs/predict.md).

    classifier = predict.load("resnet18")         # or "custom_cnn", ...; the best at hand without a name
    classifier(["cat.jpg", picture, array])       # a table: a row a picture, the probabilities of the ten classes

python run.py predict cat.jpg photos/ --top 3     # the same in a shell
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import importlib.util
import json
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy.special import softmax

from helpers.data import CLASS_NAMES, MEAN
from helpers.files import REPOSITORY, InputError, first_line, relative
from helpers.records import title

WEIGHTS = REPOSITORY / "weights"
BEST_FIRST = ("resnet18-augmix", "custom_cnn-augmix", "resnet18", "custom_cnn", "keras_baseline")  # for own pictures
UNLIKE = "none of the ten"  # the column that flags a picture unlike the training images
SCORES = {  # low for such a picture: which one tells most of them apart was measured for each network
    "highest probability": lambda logits, closeness: softmax(logits, 1).max(1),
    "length of the features": lambda logits, closeness: closeness,
    "likeness to a class": lambda logits, closeness: closeness,  # the cosine to its mean features
}
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # Pillow opens others with outside programs
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".heic")  # taken from a folder
LARGEST_FILE, LARGEST_PICTURE, MOST_SCANS = 20_000_000, 50_000_000, 100  # bytes, pixels, passes of a JPEG over those
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # ours is the lower limit

# ------------------------------------------------------------------------------------ a picture of any kind


def pixels(picture: object, fit: str = "crop") -> np.ndarray:
    """What a network sees of a picture: (32, 32, 3) uint8.

    picture: a path, a Pillow image, or an array (height, width[, 1, 3 or 4]) of uint8, uint16, bool, or floats in 0..1.
    fit: "crop" takes the square in the middle, "pad" the whole picture with bars of CIFAR-10's mean colour.
    Raises InputError for what is no picture, or too large a one.
    """
    return reduced(opened(picture), fit)


def reduced(image: Image.Image, fit: str = "crop") -> np.ndarray:
    """The last step of `pixels`, for what `opened` gave."""
    if fit not in ("crop", "pad"):
        raise InputError(f'fit is "{fit}": expected "crop" or "pad".')
    width, height = image.size
    side = min(width, height)
    if fit == "pad" and width != height:
        long = max(width, height)
        size = tuple(max(1, round(32 * edge / long)) for edge in image.size)
        small = image.resize(size, _filter(long))
        image = Image.new("RGB", (32, 32), tuple(round(255 * mean) for mean in MEAN))
        image.paste(small, ((32 - size[0]) // 2, (32 - size[1]) // 2))
        return np.asarray(image)
    left, top = (width - side) / 2, (height - side) / 2
    return np.asarray(image.resize((32, 32), _filter(side), box=(left, top, left + side, top + side)))


def opened(picture: object) -> Image.Image:
    """A picture of `pixels`, whole, upright and in RGB."""
    if isinstance(picture, Image.Image):
        return _rgb(picture)
    if hasattr(picture, "__array__"):
        return _rgb(_from_array(np.asarray(picture)))
    return _read(Path(picture))


def _filter(side: int) -> Image.Resampling:
    """Means over areas, or between neighbours for what is smaller than 32 pixels."""
    return Image.Resampling.BOX if side >= 32 else Image.Resampling.BILINEAR


def _read(path: Path) -> Image.Image:
    """The first frame of a file, upright and in RGB."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path.name} has {path.stat().st_size:,} bytes: expected at most {LARGEST_FILE:,}.")
        with Image.open(path, formats=FORMATS) as image:
            if image.format in ("JPEG", "MPO") and path.read_bytes().count(b"\xff\xda") > MOST_SCANS:
                raise InputError(f"{path.name} takes too long to decode: more than {MOST_SCANS} scans of the picture.")
            return _rgb(image, path.name)
    except InputError:
        raise
    except UnidentifiedImageError:
        found = "HEIC, which Pillow does not read" if path.suffix.lower() in (".heic", ".heif") else "no picture"
        raise InputError(f"{path.name} is {found}: expected one of {', '.join(FORMATS)}.") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path.name} has too many pixels: expected 1 to {LARGEST_PICTURE:,}.") from None
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {first_line(error)}.") from None
    except Exception as error:  # a damaged file can fail in any way
        raise InputError(f"{path.name} is damaged: {first_line(error)}.") from None


def _rgb(image: Image.Image, name: str = "the picture") -> Image.Image:
    """Upright, transparency on white, and any mode as 8 bits of red, green and blue."""
    if math.prod(image.size) > LARGEST_PICTURE or not all(image.size):
        found = f"{image.width:,}×{image.height:,} pixels"
        raise InputError(f"{name} has {found}: expected 1 to {LARGEST_PICTURE // 1_000_000} million.")
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # 16 bits, or 32
        values = np.asarray(image)
        image = _from_array(values if image.mode == "F" else values.clip(0, 65_535).astype(np.uint16))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    expected = "expected (height, width), or with 1, 3 or 4 channels behind them"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or not array.size:
        raise InputError(f"an array has the shape {array.shape}: {expected}.")
    kind = array.dtype
    if kind == np.uint16:
        return Image.fromarray((array >> 8).astype(np.uint8))
    if kind.kind == "b" or np.issubdtype(kind, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # not a number is neither
            raise InputError(f"floats from {array.min():.4g} to {array.max():.4g}: expected 0 to 1, or uint8.")
    elif kind != np.uint8:
        raise InputError(f"an array of {kind}: expected uint8, uint16, bool or floats from 0 to 1.")
    return Image.fromarray(array if kind == np.uint8 else (255 * array.astype(np.float32) + 0.5).astype(np.uint8))


# -------------------------------------------------------------------------------------------- the classifier


class Classifier:
    """Pictures -> a table: a row a picture, a column a class (its probability), and whether it is none of the ten.

    answer: images (n, 32, 32, 3) uint8 -> logits over the temperature (n, 10), and the length of the features, or their
        likeness to the nearest class (n,).
    module: the network itself (PyTorch: `pretrained.Pretrained`; Keras: images -> logits and features).
    score, least: a picture of which this one of `SCORES` is lower is unlike CIFAR-10's; None where not measured.
    """

    def __init__(self, name: str, answer: Callable, module: object, known: dict):
        self.name, self.answer, self.module, self.temperature = name, answer, module, known.get("temperature", 1.0)
        self.score, self.least = known.get("score"), known.get("least")

    def __call__(self, pictures: object, fit: str = "crop") -> pd.DataFrame:
        """pictures: one of `pixels`, a list of them, or an array (n, height, width, channels)."""
        several = isinstance(pictures, list | tuple) or (hasattr(pictures, "ndim") and pictures.ndim == 4)
        return self.table([pixels(picture, fit) for picture in (pictures if several else [pictures])])

    def table(self, images: list[np.ndarray]) -> pd.DataFrame:
        """The answers to what `pixels` gave."""
        if not len(images):
            return pd.DataFrame(columns=[*CLASS_NAMES, UNLIKE])
        logits, closeness = self.answer(np.stack(images))
        table = pd.DataFrame(softmax(logits.astype(np.float64), 1), columns=CLASS_NAMES)
        unlike = None if self.least is None else SCORES[self.score](logits, closeness) < self.least
        return table.assign(**{UNLIKE: unlike})


def at_hand() -> list[str]:
    """The models whose weights are here, the best for pictures of one's own first."""
    here = [name for name in BEST_FIRST if weights_path(name).exists()]
    return [name for name in here if name != "keras_baseline" or importlib.util.find_spec("keras")]


def weights_path(name: str) -> Path:
    return WEIGHTS / f"{name}-full-seed0.safetensors"


def calibration(path: Path) -> dict:
    """What stands beside a file of weights: its "sha256", "temperature", and the "least" value of a "score".

    "means": of each class's features, thousandths of a vector of length 1, for the likeness to a class.

    Raises InputError where the file is missing, or another one than that.
    """
    advice = "git checkout weights, or, after a training of your own, python -m benchmarks.calibrate --write"
    if not path.exists():
        raise InputError(f"{relative(path)} is not here: {advice}.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{relative(path.with_suffix('.json'))} is missing or damaged: {advice}.") from None
    if known.get("sha256") != found:
        raise InputError(f"{relative(path)} has the SHA-256 {found[:12]}…, expected {str(known.get('sha256'))[:12]}…: "
                         f"{advice}.")  # fmt: skip
    return known


def load(name: str = "", path: Path | None = None) -> Classifier:
    """The classifier of a trained network, in evaluation mode, on the CPU in float32.

    name: "resnet18", "custom_cnn", with "-augmix" behind it for one that learned from distorted images, too, or
        "keras_baseline"; "" takes the best for pictures of one's own whose weights are here.
    path: other weights of that network, without a calibration (temperature 1, no flag).
    Raises InputError for another name and for weights that are missing, damaged or others than pinned.
    """
    if not name and not (here := at_hand()):
        raise InputError("there are no trained weights in weights/: git checkout weights.")
    name = name or here[0]
    if name not in BEST_FIRST:
        raise InputError(f'there is no model "{name}": expected {", ".join(BEST_FIRST)}.')
    known = {} if path else calibration(weights_path(name))
    path, temperature = path or weights_path(name), known.get("temperature", 1.0)
    if name == "keras_baseline":
        from helpers import keras_runs

        return Classifier(name, *keras_runs.answering(path, temperature), known)
    from helpers import pretrained

    return Classifier(name, *pretrained.answering(name, path, temperature, known.get("means")), known)


# -------------------------------------------------------------------------------------------- in a shell


def files(words: list[str]) -> list[Path]:
    """The files that are named, also as *.jpg, and the pictures in the folders that are named, in their order."""
    found = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS and p.name[0] != ".")
            if not inside:
                raise InputError(f"{word} holds no pictures: expected files that end in {', '.join(ENDINGS)}.")
            found += inside
        else:  # Windows leaves it to the program what a star stands for
            found += [path] if path.exists() else [Path(one) for one in sorted(glob.glob(word))] or [path]
    return found


def options(words: list[str]) -> argparse.Namespace:
    """The command line, checked before a network is loaded."""
    parser = argparse.ArgumentParser("python run.py predict", description="What is in these pictures?")
    parser.add_argument("pictures", nargs="+", help="files, or folders of them")
    parser.add_argument("--model", choices=BEST_FIRST, default="", help="default: the first of them that is here")
    parser.add_argument("--top", type=int, choices=range(1, 11), default=3, metavar="N", help="classes to show (3)")
    parser.add_argument("--fit", choices=("crop", "pad"), default="crop", help="the middle, or all with bars")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    """The exit status: 1 if any picture could not be read."""
    chosen = options(words)
    pictures, classifier, failed = files(chosen.pictures), load(chosen.model), False
    if not chosen.json:
        print(f"{title(classifier.name)}:")
    for path in pictures:
        try:
            row = classifier(path, chosen.fit).iloc[0]
        except InputError as error:
            failed, said = True, str(error).replace(path.name, str(path), 1)
            print(json.dumps({"picture": str(path), "error": said}) if chosen.json else said,
                  file=sys.stdout if chosen.json else sys.stderr)  # fmt: skip
            continue
        top = row[list(CLASS_NAMES)].astype(float).nlargest(chosen.top)
        if chosen.json:
            flag = None if row[UNLIKE] is None else bool(row[UNLIKE])
            answer = {"picture": str(path), "model": classifier.name, "classes": top.round(6).to_dict(), "unlike": flag}
            print(json.dumps(answer, ensure_ascii=False))
        else:
            said = "   ".join(f"{label} {share:.1%}" for label, share in top.items())
            print(f"{path}: {said}{'   (unlike CIFAR-10: perhaps none of these)' * bool(row[UNLIKE])}")
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (InputError, OSError) as problem:
        sys.exit(str(problem))
