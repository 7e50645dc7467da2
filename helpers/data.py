"""CIFAR-10: find it, fetch it, read it, check every byte of it; splits and subsets.

    cifar = load_cifar10()               # or load_cifar10("some/folder"), or load_cifar10("stand-in")
    train, validation = split(cifar.train_labels, validation_size=5_000, seed=0)

Data set: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers import fetch
from helpers import stand_in as drawing
from helpers.fetch import ARCHIVE, DataError
from helpers.files import REPOSITORY, STAND_IN, InputError, first_line

FOLDER = "cifar-10-batches-py"
TRAIN_FILES = [f"data_batch_{k}" for k in range(1, 6)]
FILES = [*TRAIN_FILES, "test_batch"]
FILE_MD5 = {  # as published with the data set
    "data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e",
}  # fmt: skip
OFFICIAL = "sha256:82e0267fb55400d74bc3b66b6f79d073f8e09170d44291368b1d163f7fcdc550"  # the arrays' fingerprint
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Per-channel mean and standard deviation of the 50,000 training images, pixels in 0..1 (notebook 1 computes them).
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Cifar10:
    """The whole data set in memory, in the official order.

    train_images: (50000, 32, 32, 3) uint8, train_labels: (50000,) uint8 in 0..9,
    test_images: (10000, 32, 32, 3) uint8, test_labels: (10000,) uint8.
    fingerprint: "sha256:..." over the four arrays' digests, or "stand-in:..." for the stand-in.
    source: where it was found, in words, without a path of this machine.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str
    source: str

    @property
    def official(self) -> bool:
        """Whether every array is, byte for byte, the published one."""
        return self.fingerprint == OFFICIAL

    @property
    def is_stand_in(self) -> bool:
        return self.fingerprint.startswith(STAND_IN)

    @property
    def name(self) -> str:
        """What figures and records call it: "CIFAR-10", "CIFAR-10 (altered)", "own images" or "stand-in"."""
        if self.is_stand_in:
            return STAND_IN
        if self.class_names != CLASS_NAMES:
            return "own images"
        return "CIFAR-10" if self.official else "CIFAR-10 (altered)"

    def __repr__(self) -> str:
        what = f"train {self.train_images.shape}, test {self.test_images.shape}, {self.train_images.dtype}"
        kind = "official, SHA-256 checked" if self.official else "NOT the official arrays"
        if self.is_stand_in:
            kind = "NOT CIFAR-10: drawn shapes for places without the data"
        return f"{self.name}: {what};\n{kind}; from {self.source}"


def load_cifar10(root: str | os.PathLike | None = None, *, download: bool = True) -> Cifar10:
    """CIFAR-10 from this machine, every byte verified, or fetched when it is nowhere to be found.

    root: the folder that holds `cifar-10-batches-py` or its archive (unpacked once, beside it), or to fetch it into;
        None looks in $CIFAR10_ROOT, ./data, where torchvision and Keras keep theirs, and in the machine's shared
        folders, and fetches into $CIFAR10_ROOT or the repository's data folder; "stand-in" gives `stand_in()`.

    Raises DataError, naming what was found, what was expected and what to do.
    """
    named = os.environ.get("CIFAR10_ROOT") if root is None else str(root)
    if named == STAND_IN:
        return stand_in()
    if root is not None and not named:
        raise DataError("the folder's name is empty (a variable that is not set?): name one, or leave it out.")
    target, problems = Path(os.path.expanduser(named or REPOSITORY / "data")), []
    if named and not os.path.exists(target):
        origin = "CIFAR10_ROOT" if root is None else "the folder you named"
        missing = f"{origin} is {target}, and there is no such folder: expected one with {FOLDER} or {ARCHIVE}."
        raise DataError(f"{missing}\nName one that holds CIFAR-10 (or make it, to download into it), or none.")
    places = {target: "the folder you named" if root is not None else "$CIFAR10_ROOT"} if named else {}
    places |= _usual_places() if root is None else {}
    for place, name in places.items():
        try:
            if folder := _folder(place):
                cifar = _read(folder, name)
                print("".join(f"{str(problem).splitlines()[0]}\n" for problem in problems), end="", flush=True)
                return cifar
        except DataError as error:
            problems.append(error)
        except OSError as error:
            problems.append(DataError(f"{error.filename or place} cannot be read ({first_line(error)})."))
    if problems:
        raise DataError("\n".join(map(str, problems)))
    failure = "."
    try:
        if download:
            source = places[target] + fetch.fetch(target)
            return _read(_folder(target), source)
    except fetch.FetchError as error:
        failure = f", and the download failed: {error}"
    found = "\n  ".join([f"CIFAR-10 was not found{failure}\nLooked in:", *dict.fromkeys(places.values())])
    if root is not None:
        found = f"no CIFAR-10 in {root}: expected {FOLDER} or {ARCHIVE} there{failure}"
    archive = Path(os.path.relpath(target)) if target.absolute().is_relative_to(Path.cwd()) else target.absolute()
    error = DataError(
        f"{found}\nWays out, then the same again:\n"
        f"  where there is a network: curl -L -C - --create-dirs -o '{archive / ARCHIVE}' '{fetch.MIRRORS[0]}'\n"
        "  a folder, or a mirror, that has it: export CIFAR10_ROOT=/its/path, or CIFAR10_URL=address "
        "(PowerShell: $env:CIFAR10_ROOT = ...)\n"
        f'  without it, on drawn shapes: export CIFAR10_ROOT={STAND_IN}, or DATA_ROOT = "{STAND_IN}" in the notebook'
    )
    error.missing = True
    raise error


def _usual_places() -> dict[Path, str]:
    """Where CIFAR-10 may lie, best first, each with its name for people (no path of this machine)."""
    home = Path(os.path.expanduser("~"))
    keras = Path(os.environ.get("KERAS_HOME", home / ".keras")) / "datasets"
    torch = Path(os.environ.get("TORCH_HOME", home / ".cache" / "torch"))
    shared = os.environ.get("XDG_DATA_DIRS") or os.environ.get("PROGRAMDATA") or "/usr/local/share:/usr/share"
    return {
        Path.cwd() / "data": "./data",
        REPOSITORY / "data": "./data beside the notebooks",
        torch / "vision" / "datasets": "torchvision's cache",
        home / "data": "~/data",
        keras: "Keras's cache",
        keras / FOLDER: "Keras's cache",  # Keras 3.0 to 3.5 extract it into a folder of the same name
        keras / "cifar-10-batches-py-target": "Keras's cache",  # later ones into this one
        **{Path(folder) / "cifar10": "the shared data folders" for folder in shared.split(os.pathsep)},
    }


def _folder(place: Path) -> Path | None:
    """The folder at `place` with the six files, unpacked from the archive where there is none yet."""
    archive = place if os.path.isfile(place) else place / ARCHIVE
    for folder in (archive.parent / FOLDER, archive.parent):
        if any(os.path.isfile(folder / name) for name in FILES):
            return folder
    return fetch.unpack(archive, FOLDER, REPOSITORY / "data") if os.path.isfile(archive) else None


def _read(folder: Path, source: str) -> Cifar10:
    """The official arrays from the six files, or a DataError that names those that are missing or damaged."""
    advice = "Move that folder away and run the same again, which unpacks or fetches it anew."
    if missing := [name for name in FILES if not os.path.isfile(folder / name)]:
        raise DataError(f"{folder} is incomplete: {', '.join(missing)} missing of {', '.join(FILES)}.\n{advice}")
    with ThreadPoolExecutor() as pool:
        contents = list(pool.map(lambda name: (folder / name).read_bytes(), FILES))
        found = list(pool.map(lambda one: hashlib.md5(one, usedforsecurity=False).hexdigest(), contents))
    named = [f"{name} is damaged: its MD5 is {md5}, expected {FILE_MD5[name]}"
             for name, md5 in zip(FILES, found) if md5 != FILE_MD5[name]]  # fmt: skip
    if named:  # and not read: a pickle of other content could run any code
        raise DataError(f"{folder}: {', '.join(named)}.\n{advice}")
    batches = [pickle.loads(one, encoding="bytes") for one in contents]
    images = [batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for batch in batches]
    labels = [batch[b"labels"] for batch in batches]
    arrays = (np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1], labels[-1])
    return from_arrays(*arrays, source=source)


def from_arrays(train_images, train_labels, test_images, test_labels, *, class_names=CLASS_NAMES, source="arrays"):
    """`Cifar10` over your own arrays: images (n, 32, 32, 3) uint8, labels (n,) integers in 0..len(class_names)-1.

    Raises DataError for another shape, dtype or label, and unless there are 2 to 256 classes.
    """
    if not 2 <= len(class_names) <= 256:
        raise DataError(f"class_names has {len(class_names)}: expected 2 to 256, since a label is kept in one byte")
    arrays = {}
    for part, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        images, labels = np.ascontiguousarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
            raise DataError(f"{part} images are {images.dtype} {images.shape}: expected uint8 (n, 32, 32, 3)")
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"{part} labels are {labels.dtype} {labels.shape}: expected integers ({len(images)},)")
        if labels.size and not 0 <= labels.min() <= labels.max() < len(class_names):
            last = len(class_names) - 1
            raise DataError(f"{part} labels run from {labels.min()} to {labels.max()}: expected 0 to {last}")
        arrays |= {f"{part}_images": images, f"{part}_labels": labels.astype(np.uint8)}
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(lambda array: hashlib.sha256(array.data).hexdigest(), arrays.values())
    fingerprint = "sha256:" + hashlib.sha256("".join(hashes).encode()).hexdigest()
    return Cifar10(**arrays, class_names=tuple(class_names), fingerprint=fingerprint, source=source)


def stand_in(train_size: int = 50_000, test_size: int = 10_000, *, seed: int = 0) -> Cifar10:
    """Ten classes of drawn shapes with CIFAR-10's shapes and types; deterministic for a seed, never stored."""
    arrays, source = drawing.draw(train_size, test_size, seed=seed), "a generator, not from photographs"
    cifar = from_arrays(*arrays, class_names=drawing.CLASS_NAMES, source=source)
    return replace(cifar, fingerprint=cifar.fingerprint.replace("sha256", STAND_IN))


def split(labels: np.ndarray, *, validation_size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stratified, disjoint (train, validation) index arrays, int64, ascending; every class in equal proportion.

    labels: (n,) integers. Raises InputError unless 0 <= validation_size < n.
    """
    if not 0 <= validation_size < len(labels):
        expected = f"0 to {len(labels) - 1:,} of the {len(labels):,} training images"
        raise InputError(f"VALIDATION_IMAGES is {validation_size:,}: expected {expected}.")
    validation = subset(labels, size=validation_size, seed=seed)
    return np.setdiff1d(np.arange(len(labels)), validation, assume_unique=True), validation


def subset(labels: np.ndarray, *, size: int, seed: int = 0) -> np.ndarray:
    """Stratified indices of `size` of the labels, int64, ascending: each class in its proportion, to one image.

    Raises InputError unless 0 <= size <= len(labels).
    """
    if not 0 <= size <= len(labels):
        raise InputError(f"a subset of {size:,} does not fit: expected 0 to {len(labels):,} images")
    generator = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    share = counts * size / max(len(labels), 1)
    take = np.floor(share).astype(int)
    take[np.argsort(take - share, kind="stable")[: size - take.sum()]] += 1  # largest remainders first
    chosen = [generator.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(classes, take)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
