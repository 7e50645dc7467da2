"""The second load of all 60,000 images: time and memory of load_cifar10, torchvision and Keras.

    python -m benchmarks.loading --data FOLDER [--repeats 5] [--write]

FOLDER holds the official `cifar-10-batches-py`, read by all three; ours has written its arrays into a temporary cache
before. Keras unpacks and hashes its archive at every load: it gets the official one where FOLDER has it, else one
packed here from the same files, with its hash; a second row has its load of the unpacked files alone. Each load runs
in a fresh process, its files in the system's file cache. Measured after the imports: seconds, and the most resident
memory over what was resident before; once for the load alone, and once for the load and the sum of all pixels, because
arrays that are mapped into memory are read only when they are used.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import multiprocessing
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

from benchmarks.report import markdown, save
from helpers import data
from helpers.results import peak_memory_bytes

KERAS_ARCHIVE = Path("datasets/cifar-10-batches-py-target_archive")
TIMES_FASTER, MEMORY_SHARE = 10, 0.5  # the goals
context = multiprocessing.get_context("spawn")
Images = tuple[np.ndarray, np.ndarray]


def ours(folder: Path, cache: Path) -> Callable[[], Images]:
    data.REPOSITORY = cache  # the user's ./data is left alone

    def load() -> Images:
        cifar = data.load_cifar10(folder / data.FOLDER, download=False)
        return cifar.train_images, cifar.test_images

    return load


def torchvision(folder: Path, cache: Path) -> Callable[[], Images]:
    from torchvision.datasets import CIFAR10

    return lambda: tuple(CIFAR10(folder, train=train).data for train in (True, False))


def keras(folder: Path, cache: Path) -> Callable[[], Images]:
    os.environ |= {"KERAS_HOME": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
    from keras.src.datasets import cifar10

    get_file, sha256 = cifar10.get_file, file_sha256(cache / KERAS_ARCHIVE)
    cifar10.get_file = lambda **given: get_file(**given | {"file_hash": sha256})

    def load() -> Images:
        (train_images, _), (test_images, _) = cifar10.load_data()
        return train_images, test_images

    return load


def keras_unpacked(folder: Path, cache: Path) -> Callable[[], Images]:
    load = keras(folder, cache)
    sys.modules["keras.src.datasets.cifar10"].get_file = lambda **_: str(folder)
    return load


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LIBRARIES = {
    "load_cifar10": ours,
    "torchvision": torchvision,
    "Keras": keras,
    "Keras without its archive": keras_unpacked,
}
NOTES = {
    "load_cifar10": "mapped: pixels are read from the file when they are used",
    "Keras": "hashes and unpacks its archive at each load",
    "Keras without its archive": "its reading alone, as no user can call it",
}


def reset_peak() -> None:
    """Make the peak memory what is resident now; only Linux can, elsewhere the imports' peak is a part of it."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most that was resident since `reset_peak`."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    return peak_memory_bytes() or 0


def measure(library: str, folder: Path, cache: Path, result: Connection) -> None:
    """Send (seconds, peak bytes) of the load, the same of the load and the sum of all pixels, and that sum."""
    load = LIBRARIES[library](folder, cache)
    gc.collect()
    reset_peak()
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    images = load()
    loaded = time.perf_counter() - began, peak_bytes() - before
    began = time.perf_counter()
    total = sum(int(array.sum()) for array in images)
    read = loaded[0] + time.perf_counter() - began, peak_bytes() - before
    result.send((*loaded, *read, total))


def in_fresh_process(library: str, folder: Path, cache: Path) -> tuple[float, int, float, int, int]:
    for path in [*(folder / data.FOLDER).iterdir(), *cache.rglob("*.npy")]:  # into the system's file cache
        path.read_bytes()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(library, folder, cache, sender), daemon=True)
    process.start()
    sender.close()  # so that its end is seen here
    measured = receiver.recv()
    process.join()
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help=f"the folder that holds {data.FOLDER}")
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes for each; the table shows medians (5)")
    parser.add_argument("--write", action="store_true", help="save the numbers to results/benchmarks/loading.json")
    arguments = parser.parse_args()
    folder = arguments.data.resolve()

    with tempfile.TemporaryDirectory() as temporary:
        cache = Path(temporary)
        repository = data.REPOSITORY
        try:
            ours(folder, cache)()  # the first load, which writes the cache
        except data.DataError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            data.REPOSITORY = repository
        (cache / KERAS_ARCHIVE).parent.mkdir()
        if (folder / data.ARCHIVE).is_file():
            shutil.copyfile(folder / data.ARCHIVE, cache / KERAS_ARCHIVE)
        else:
            with tarfile.open(cache / KERAS_ARCHIVE, "w:gz", compresslevel=6) as tar:
                tar.add(folder / data.FOLDER, data.FOLDER)
        runs: dict[str, list] = {library: [] for library in LIBRARIES}
        for _ in range(arguments.repeats):
            for library in LIBRARIES:
                runs[library].append(in_fresh_process(library, folder, cache))
    totals = {run[-1] for found in runs.values() for run in found}
    assert len(totals) == 1, f"the libraries read different pixels: sums {totals}"

    rows, table, goals = [], [], []
    for library, found in runs.items():
        cells = {"second load": library}
        for column, what in ((0, "load"), (2, "load and read all")):
            seconds = [run[column] for run in found]
            row = {
                "what": f"{library}, {what}",
                "seconds": statistics.median(seconds),
                "peak_bytes": round(statistics.median(run[column + 1] for run in found)),
                "note": NOTES.get(library, ""),
                "all_seconds": [round(one, 5) for one in seconds],
            }
            rows.append(row)
            own = rows[column // 2]
            slower, share = row["seconds"] / own["seconds"], own["peak_bytes"] / max(row["peak_bytes"], 1)
            milliseconds = 1e3 * row["seconds"]
            cells |= {
                f"{what}, ms": f"{milliseconds:,.{int(milliseconds < 100)}f}",
                f"{what}, peak MB": f"{row['peak_bytes'] / 1e6:,.0f}",
            }
            if row is not own and what == "load":
                goals.append((f"at least {TIMES_FASTER} times faster than {library}", slower >= TIMES_FASTER))
                goals.append((f"at most {MEMORY_SHARE:.0%} of the memory of {library}", share <= MEMORY_SHARE))
        cells["times ours"] = f"{slower:.1f}"  # with every pixel read
        table.append(cells | {"note": NOTES.get(library, "")})
    print(f"\n{markdown(table)}\n")
    for goal, reached in goals:
        print(f"Goal: {goal}: {'yes' if reached else 'no'}")
    if arguments.write:
        save("loading", table, rows, ["numpy", "torch", "torchvision", "keras"])
    return int(not all(reached for _, reached in goals))


if __name__ == "__main__":
    sys.exit(main())
