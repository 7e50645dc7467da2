"""CIFAR-10: find it, fetch it, check it, read it; splits and subsets; the stand-in for places without it.

    cifar = load_cifar10()               # or load_cifar10("some/folder"), or load_cifar10("stand-in")
    train, validation = split(cifar.train_labels, validation_size=5_000, seed=0)

    python -m helpers.data               # says where CIFAR-10 is and whether it is the official data

Data set: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import pickle
import sys
import tarfile
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN_FILES = [f"data_batch_{k}" for k in range(1, 6)]
FILE_MD5 = {  # as published with the data set
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
ARRAY_SHA256 = {  # of the raw bytes: images NHWC uint8, labels uint8
    "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Per-channel mean and standard deviation of the 50,000 training images, pixels in 0..1 (notebook 1 computes them).
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

STAND_IN = "stand-in"
STAND_IN_CLASSES = (
    "disc", "square", "triangle", "ring", "cross",
    "stripes across", "stripes down", "stripes diagonal", "checkerboard", "dots",
)  # fmt: skip


class InputError(ValueError):
    """A value, file or folder that a person gave does not fit; the message says what was found and what to do."""

    def _render_traceback_(self) -> list[str]:
        """In Jupyter: the message alone, since the mistake is not in the code that a traceback would show."""
        return [f"{type(self).__name__}: {self}"]


class DataError(InputError):
    """CIFAR-10 is missing, incomplete or altered."""


@dataclass(frozen=True)
class Cifar10:
    """The whole data set in memory, in the official order.

    train_images: (50000, 32, 32, 3) uint8, train_labels: (50000,) uint8 in 0..9,
    test_images: (10000, 32, 32, 3) uint8, test_labels: (10000,) uint8.
    fingerprint: "sha256:..." over the four arrays' digests, or "stand-in:..." for the stand-in.
    official: whether every array is, byte for byte, the published one.
    source: where it was found, in words, without a path of this machine.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str
    official: bool
    source: str

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
        shapes = f"train {self.train_images.shape}, test {self.test_images.shape}, {self.train_images.dtype}"
        kind = {True: "official, SHA-256 checked", False: "NOT the official arrays"}[self.official]
        if self.is_stand_in:
            kind = "NOT CIFAR-10: drawn shapes for places without the data"
        return f"{self.name}: {shapes}; {kind}; from {self.source}"


# ------------------------------------------------------------------------------------------- loading


def load_cifar10(root: str | os.PathLike | None = None, *, verify: bool = True, download: bool = True) -> Cifar10:
    """CIFAR-10 from disk, or downloaded through torchvision when it is nowhere to be found.

    root: a folder that holds `cifar-10-batches-py` or `cifar-10-python.tar.gz` (or is that folder); None looks in
        $CIFAR10_ROOT, ./data, and where torchvision and Keras keep theirs; "stand-in" gives `stand_in()`.
    verify: raise `DataError` when the arrays are not the official ones; False returns them with official=False.
    download: fetch into ./data what is not on disk.

    Raises DataError, naming what was found, what was expected and what to do.
    """
    if root is None and os.environ.get("CIFAR10_ROOT") == STAND_IN:
        root = STAND_IN
    if root is not None and str(root) == STAND_IN:
        return stand_in()
    for place, source in _places(root):
        if (place / FOLDER).is_dir():
            return _read(place / FOLDER, source, verify)
        if (place / TRAIN_FILES[0]).is_file():
            return _read(place, source, verify)
        if (place / ARCHIVE).is_file():
            return _read(_extract(place / ARCHIVE), source, verify)
        if source == "$CIFAR10_ROOT":
            print(f"$CIFAR10_ROOT holds neither {FOLDER} nor {ARCHIVE}: looking elsewhere.")
    looked = "\n".join(dict.fromkeys(f"  {source}" for _, source in _places(root)))
    if root is not None:
        raise DataError(
            f"no CIFAR-10 in {root}: expected {FOLDER} or {ARCHIVE} there.\n"
            'Name the folder that holds it, or None to look in the usual places, or "stand-in" to go on without it.'
        )
    if not download:
        raise DataError(f"CIFAR-10 was not found. Looked in:\n{looked}\n{WAYS_OUT}")
    _download(REPOSITORY / "data", looked)
    return _read(REPOSITORY / "data" / FOLDER, "./data (downloaded)", verify)


WAYS_OUT = (
    f"Ways out: put {ARCHIVE} (170 MB, www.cs.toronto.edu/~kriz/cifar.html) into ./data and run again;\n"
    f"or name a folder that has it: export CIFAR10_ROOT=/path/to/folder (Windows: set CIFAR10_ROOT=...);\n"
    f'or go on without it, on drawn shapes: DATA_ROOT = "{STAND_IN}" in the parameters cell.'
)


def _places(root: str | os.PathLike | None) -> list[tuple[Path, str]]:
    """Where CIFAR-10 may lie, best first, each with its name for people (no path of this machine)."""
    if root is not None:
        return [(Path(root).expanduser(), "the folder named in DATA_ROOT")]
    places = []
    if os.environ.get("CIFAR10_ROOT"):
        place = Path(os.environ["CIFAR10_ROOT"]).expanduser()
        if not place.is_dir():
            raise DataError(
                f"CIFAR10_ROOT is {place}, and there is no such folder: expected one with {FOLDER} or {ARCHIVE}.\n"
                "Set it to the folder that holds CIFAR-10, or unset it."
            )
        places.append((place, "$CIFAR10_ROOT"))
    keras = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    torch = Path(os.environ.get("TORCH_HOME", Path.home() / ".cache" / "torch"))
    places += [
        (Path.cwd() / "data", "./data"),
        (REPOSITORY / "data", "./data beside the notebooks"),
        (torch / "vision" / "datasets", "torchvision's cache"),
        (Path.home() / "data", "~/data"),
        (keras, "Keras's cache"),
        (keras / "cifar-10-batches-py-target", "Keras's cache"),  # where keras.datasets extracts it
    ]
    return places


def _read(folder: Path, source: str, verify: bool) -> Cifar10:
    files = [*TRAIN_FILES, "test_batch"]
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} is incomplete: {', '.join(missing)} missing; expected {', '.join(files)}.\n"
            f"Delete the folder and unpack {ARCHIVE} again."
        )
    try:
        with ThreadPoolExecutor() as pool:  # reading and transposing release the interpreter lock
            parts = list(pool.map(_read_batch, [folder / name for name in files]))
    except DataError:
        if verify:
            _name_altered_file(folder, files)
        raise
    images = np.concatenate([part[0] for part in parts[:-1]])
    labels = np.concatenate([part[1] for part in parts[:-1]])
    cifar = from_arrays(images, labels, *parts[-1], source=source)
    if verify and not cifar.official:
        _name_altered_file(folder, files)
        raise DataError(f"the arrays in {folder} are not CIFAR-10's. Delete the folder and unpack {ARCHIVE} again.")
    return cifar


class _NumpyOnly(pickle.Unpickler):
    """Reads the six files and nothing else: a pickle from the network could otherwise run any code."""

    ALLOWED = frozenset({("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str):
        if (module, name) in self.ALLOWED:
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 file needs")


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One file -> images (n, 32, 32, 3) uint8, labels (n,) uint8."""
    try:
        batch = _NumpyOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # an altered pickle can fail in any way
        raise DataError(f"{path.name} is not a CIFAR-10 file ({error})") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072 or labels.shape != (len(pixels),):
        raise DataError(
            f"{path.name} holds {pixels.dtype} {pixels.shape} and {labels.size} labels: expected uint8 (n, 3072) and n"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() <= 9:
        raise DataError(f"{path.name} has labels from {labels.min()} to {labels.max()}: expected 0 to 9")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.uint8)


def _name_altered_file(folder: Path, files: list[str]) -> None:
    for name in files:
        found = hashlib.md5((folder / name).read_bytes()).hexdigest()
        if found != FILE_MD5[name]:
            raise DataError(
                f"{folder / name} is altered: its MD5 is {found}, expected {FILE_MD5[name]}.\n"
                f"Delete the folder and unpack {ARCHIVE} again (load_cifar10(..., verify=False) reads it as it is)."
            ) from None


def from_arrays(train_images, train_labels, test_images, test_labels, *, class_names=CLASS_NAMES, source="arrays"):
    """`Cifar10` over your own arrays: images (n, 32, 32, 3) uint8, labels (n,) integers in 0..len(class_names)-1.

    Raises DataError for another shape, dtype or label.
    """
    arrays = {}
    for part, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        images, labels = np.ascontiguousarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
            raise DataError(f"{part} images are {images.dtype} {images.shape}: expected uint8 (n, 32, 32, 3)")
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"{part} labels are {labels.dtype} {labels.shape}: expected integers ({len(images)},)")
        if labels.size and not 0 <= labels.min() <= labels.max() < len(class_names):
            raise DataError(
                f"{part} labels run from {labels.min()} to {labels.max()}: expected 0 to {len(class_names) - 1}"
            )
        arrays |= {f"{part}_images": images, f"{part}_labels": labels.astype(np.uint8)}
    with ThreadPoolExecutor() as pool:
        hashes = dict(zip(arrays, pool.map(lambda a: hashlib.sha256(a.data).hexdigest(), arrays.values())))
    return Cifar10(
        **arrays,
        class_names=tuple(class_names),
        fingerprint="sha256:" + hashlib.sha256("".join(hashes.values()).encode()).hexdigest(),
        official=hashes == ARRAY_SHA256,
        source=source,
    )


def _extract(archive: Path) -> Path:
    """Unpack the six batch files beside the archive, or into a temporary folder where that is read-only."""
    for parent in (archive.parent, Path(tempfile.gettempdir())):
        try:
            part = Path(tempfile.mkdtemp(prefix=FOLDER + ".part-", dir=parent))
        except OSError as error:
            reason = error.strerror
            continue
        try:
            with tarfile.open(archive) as tar:
                for name in FILE_MD5:
                    (part / name).write_bytes(tar.extractfile(f"{FOLDER}/{name}").read())
            os.replace(part, parent / FOLDER)
            return parent / FOLDER
        except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
            for left in part.glob("*"):
                left.unlink()
            part.rmdir()
            if (parent / FOLDER).is_dir():  # another process was first
                return parent / FOLDER
            if getattr(error, "errno", None) is None:
                raise DataError(
                    f"{archive} is damaged ({error}): expected {ARCHIVE}, 170,498,071 bytes, "
                    f"found {archive.stat().st_size:,}.\nDelete it and download it again."
                ) from None
            reason = error.strerror
    raise DataError(f"{archive} could not be unpacked ({reason}): free 200 MB, or unpack it yourself.")


def _download(folder: Path, looked: str) -> None:
    from torchvision.datasets import CIFAR10

    print(f"CIFAR-10 is not on this machine; downloading 170 MB into ./{folder.name} (its server can be slow).")
    try:
        folder.mkdir(exist_ok=True)
        CIFAR10(str(folder), train=True, download=True)
    except Exception as error:  # torchvision raises URLError, RuntimeError or OSError, by the stage that failed
        reason = getattr(error, "reason", error)
        raise DataError(
            f"CIFAR-10 was not found, and the download failed ({reason}). Looked in:\n{looked}\n{WAYS_OUT}"
        ) from None


# ------------------------------------------------------------------------------------ splits, subsets


def split(labels: np.ndarray, *, validation_size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stratified, disjoint (train, validation) index arrays, int64, ascending; every class in equal proportion.

    labels: (n,) integers. Raises InputError unless 0 <= validation_size < n.
    """
    if not 0 <= validation_size < len(labels):
        raise InputError(
            f"validation size {validation_size:,} does not fit: expected 0 to {len(labels) - 1:,} "
            f"of the {len(labels):,} training images"
        )
    validation = subset(labels, size=validation_size, seed=seed)
    train = np.setdiff1d(np.arange(len(labels)), validation, assume_unique=True)
    return train, validation


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


# --------------------------------------------------------------------------------------- the stand-in


def stand_in(train_size: int = 50_000, test_size: int = 10_000, *, seed: int = 0) -> Cifar10:
    """Ten classes of drawn shapes and textures with CIFAR-10's shapes and types, for places without CIFAR-10.

    Deterministic for a seed, made in seconds, never stored. Place, size, angle, colours and noise are random, and
    colours carry no information, so a linear model gets little of it and a small CNN most.
    """
    total = train_size + test_size
    generator = np.random.default_rng(seed)
    labels = np.empty(total, np.uint8)
    for part in (slice(0, train_size), slice(train_size, total)):
        labels[part] = generator.permutation(np.arange(part.stop - part.start) % 10)
    images = np.empty((total, 32, 32, 3), np.uint8)
    for start in range(0, total, 2_000):  # in blocks, to keep the memory small
        images[start : start + 2_000] = _draw(labels[start : start + 2_000], generator)
    cifar = from_arrays(
        images[:train_size], labels[:train_size], images[train_size:], labels[train_size:],
        class_names=[f"{STAND_IN} {name}" for name in STAND_IN_CLASSES],
        source="a generator, not from photographs",
    )  # fmt: skip
    return replace(cifar, fingerprint=cifar.fingerprint.replace("sha256", STAND_IN), official=False)


def _draw(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One image a label, (n, 32, 32, 3) uint8: a mask of the class's shape mixes two random colours."""
    n = len(labels)

    def uniform(low, high):
        return generator.uniform(low, high, (n, 1, 1)).astype(np.float32)

    grid = np.arange(32, dtype=np.float32) - 15.5
    angle, size = uniform(-0.35, 0.35), uniform(7, 12)
    dx, dy = grid[None, None, :] - uniform(-5, 5), grid[None, :, None] - uniform(-5, 5)
    x, y = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    period, phase = uniform(5, 9), uniform(0, 6.28)
    radius, side = np.hypot(x, y), np.maximum(abs(x), abs(y))
    wave_x, wave_y = np.sin(6.28 * x / period + phase), np.sin(6.28 * y / period)
    shapes = [
        lambda i: size[i] - radius[i],
        lambda i: 0.9 * size[i] - side[i],
        lambda i: np.minimum(0.7 * size[i] - y[i], y[i] + size[i] - 1.7 * abs(x[i])),
        lambda i: 0.22 * size[i] - abs(radius[i] - 0.8 * size[i]),
        lambda i: np.minimum(0.25 * size[i] - np.minimum(abs(x[i]), abs(y[i])), size[i] - side[i]),
        lambda i: 2 * wave_y[i],
        lambda i: 2 * wave_x[i],
        lambda i: 2 * np.sin(4.44 * (x[i] + y[i]) / period[i] + phase[i]),
        lambda i: 3 * wave_x[i] * wave_y[i],
        lambda i: 2.5 * (wave_x[i] + wave_y[i]) - 2.2,
    ]
    mask = np.empty((n, 32, 32, 1), np.float32)
    for label, shape in enumerate(shapes):
        chosen = np.flatnonzero(labels == label)
        mask[chosen, :, :, 0] = np.clip(shape(chosen) + 0.5, 0, 1)
    ground, figure = generator.uniform(0, 255, (2, n, 1, 1, 3)).astype(np.float32)
    figure = np.where(abs(figure - ground).mean(-1, keepdims=True) < 60, (ground + 128) % 256, figure)
    noise = generator.normal(0, 22, (n, 32, 32, 3)).astype(np.float32)
    return np.clip(ground + mask * (figure - ground) + noise, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------- where outputs may go


def output_folder(kind: str, *, stand_in: bool, smoke: bool = False, experiment: bool = False) -> Path:
    """The folder for `kind` ("Images" or "results"), made if missing.

    The repository's own; $CIFAR10_OUTPUT/kind where that is set; and never the repository's for the stand-in, the
    smoke profile or an experiment, which go to runs/stand-in, runs/smoke and runs/experiment.
    """
    base = Path(os.environ.get("CIFAR10_OUTPUT") or REPOSITORY).resolve()
    if base == REPOSITORY and (stand_in or smoke or experiment):
        base = REPOSITORY / "runs" / (STAND_IN if stand_in else "smoke" if smoke else "experiment")
    (base / kind).mkdir(parents=True, exist_ok=True)
    return base / kind


def relative(path: Path) -> str:
    """`path` as a reader of the notebook would name it: below the repository, or its name alone."""
    path = Path(path)
    return path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else path.name


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.data", description="Find or fetch CIFAR-10 and check it.")
    parser.add_argument("--root", help="the folder to look in (default: the usual places, then download)")
    parser.add_argument("--no-download", action="store_true", help="look on this machine only")
    arguments = parser.parse_args()
    try:
        cifar = load_cifar10(arguments.root, download=not arguments.no_download)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    print(cifar)
    print(cifar.fingerprint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
