"""How long a fresh download takes when the first mirror is slow: helpers.download against torchvision.

    python -m benchmarks.download [--write]

An archive with CIFAR-10's files and exactly its size, but random pixels, is served on this machine by two processes
that know Range: one gives each connection 60 kB/s, the other 20 MB/s. Each download runs in a fresh process and into
an empty folder; the clock starts after the imports and stops when the file is there and its MD5 is right. torchvision
would need 47 minutes from the throttled server, so it is stopped after a minute, and the table says so.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import multiprocessing
import os
import pickle
import re
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from tqdm import tqdm

from helpers.data import ARCHIVE, ARCHIVE_SIZE, CLASS_NAMES, FOLDER, TRAIN_FILES
from helpers.download import download, file_md5

THROTTLED, FAST = 60_000, 20_000_000  # bytes a second, for each connection
BURST = 2_000_000  # bytes that the server sends at once when asked for /burst/..., before its rate holds
BURST_SHARE = 0.1  # but no more than so much of a smaller archive
LONGEST = 150  # seconds, after which helpers.download is stopped, too
GOAL = 5  # seconds that a throttled mirror may cost
GREY_LEVELS = 156  # so many random values of a pixel compress a little better than photographs do
context = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Archive:
    path: Path
    size: int
    md5: str
    files: dict[str, str]  # the MD5 of each file in it


def make_archive(folder: Path, size: int) -> Archive:
    """An archive of CIFAR-10's structure and of `size` bytes: gzip, then zeros, which gzip allows behind its stream."""
    images = 10_000 * size // ARCHIVE_SIZE  # a file
    generator = np.random.default_rng(0)
    contents = {"batches.meta": {"label_names": list(CLASS_NAMES), "num_cases_per_batch": images, "num_vis": 3072}}
    files, path = {}, folder / ARCHIVE
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name in ("batches.meta", *TRAIN_FILES, "test_batch"):
            content = pickle.dumps(contents.get(name) or {
                "batch_label": name,
                "labels": generator.integers(0, 10, images).tolist(),
                "data": generator.integers(0, GREY_LEVELS, (images, 3072), dtype=np.uint8),
                "filenames": [f"{name}_{k:06}.png" for k in range(images)],
            }, protocol=3)  # fmt: skip
            files[name] = hashlib.md5(content).hexdigest()
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert path.stat().st_size <= size, f"{path.stat().st_size:,} bytes, more than {size:,}"
    os.truncate(path, size)
    return Archive(path, size, file_md5(path), files)


# ----------------------------------------------------------------------------------------- the servers


def serve(path: Path, rate: int, burst: float, ports: Connection) -> None:
    """Serve the file at `rate` bytes a second for each connection, from a free port, which is sent to `ports`."""
    size = path.stat().st_size

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Type", "application/x-gzip")
            self.send_header("Content-Length", str(size - start))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.end_headers()
            began, sent = time.monotonic(), -burst if self.path.startswith("/burst/") else 0
            # who has what it wants, closes
            with open(path, "rb") as file, contextlib.suppress(ConnectionError):
                file.seek(start)
                while piece := file.read(min(1 << 16, rate // 10)):
                    self.wfile.write(piece)
                    sent += len(piece)
                    time.sleep(max(0, sent / rate - (time.monotonic() - began)))

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ports.send(server.server_port)
    server.serve_forever()


@contextlib.contextmanager
def server(archive: Archive, rate: int):
    """The address of a server of `archive` in a process of its own, which ends with the block."""
    receiver, sender = context.Pipe(duplex=False)
    burst = min(BURST, BURST_SHARE * archive.size)
    process = context.Process(target=serve, args=(archive.path, rate, burst, sender), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}"
    finally:
        process.terminate()
        process.join()


# ---------------------------------------------------------------------------------------- the downloads


def ours(folder: Path, archive: Archive, urls: list[str]) -> Callable[[], str]:
    def fetch() -> str:
        served = download(folder / ARCHIVE, urls, size=archive.size, md5=archive.md5, title="CIFAR-10")
        slow, fast = (served.mirrors.get(urlsplit(url).netloc, 0) / 1e6 for url in (urls[0], urls[-1]))
        share = f"{slow:.1f} MB from the slow one, {fast:.1f} MB" if slow else "all"
        return f"{share} from the fast one" if len(urls) > 1 else ""

    return fetch


def torchvision(folder: Path, archive: Archive, urls: list[str]) -> Callable[[], str]:
    from torchvision.datasets import CIFAR10

    class Local(CIFAR10):
        url, tgz_md5 = f"{urls[0]}/{ARCHIVE}", archive.md5
        train_list = tuple((name, archive.files[name]) for name in TRAIN_FILES)
        test_list = (("test_batch", archive.files["test_batch"]),)
        meta = CIFAR10.meta | {"md5": archive.files["batches.meta"]}

    def fetch() -> str:
        Local(folder, download=True)
        return "with unpacking and loading"

    return fetch


def run(client: Callable, folder: Path, archive: Archive, urls: list[str], result: Connection) -> None:
    """Send None at the start of the download, and at its end (seconds, note)."""
    tqdm.set_lock(threading.RLock())  # its own is one of the system's, which a stopped process leaves behind
    fetch = client(folder, archive, urls)
    result.send(None)
    began = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # progress bars
        note = fetch()
    result.send((time.monotonic() - began, note))


def measure(client: Callable, archive: Archive, urls: list[str], longest: float | None) -> tuple[float, int, str]:
    """Seconds, bytes that had come, and a note, of one download, stopped after `longest` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(client, Path(folder), archive, urls, sender), daemon=True)
        process.start()
        sender.close()  # so that its end is seen here
        receiver.recv()
        if receiver.poll(longest):
            seconds, note = receiver.recv()
            process.join()
            return seconds, archive.size, note
        process.terminate()
        process.join()
        came = max((path.stat().st_size for path in Path(folder).rglob("*")), default=0)
        whole = longest * archive.size / max(came, 1)
        return longest, came, f"stopped after {longest:g} s; the whole would take {whole / 60:.0f} min at this rate"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.download", description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=ARCHIVE_SIZE / 1e6, help="the archive's size (CIFAR-10's)")
    parser.add_argument("--torchvision-seconds", type=float, default=60, help="its time with the throttled server (60)")
    parser.add_argument("--repeats", type=int, default=3, help="of all others; the table shows medians (3)")
    parser.add_argument("--write", action="store_true", help="save the numbers to results/benchmarks/download.json")
    arguments = parser.parse_args()
    from benchmarks.report import markdown, save  # not above, which every measured process runs

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        archive = make_archive(folder, round(1e6 * arguments.megabytes))
        slow, fast = (stack.enter_context(server(archive, rate)) for rate in (THROTTLED, FAST))
        cases = {
            "this project, fast mirror": functools.partial(measure, ours, archive, [fast], LONGEST),
            "this project, throttled and fast mirror": functools.partial(measure, ours, archive, [slow, fast], LONGEST),
            "this project, one that throttles after a burst, and fast one": functools.partial(
                measure, ours, archive, [f"{slow}/burst/{ARCHIVE}", fast], LONGEST
            ),
            "torchvision, throttled server": functools.partial(
                measure, torchvision, archive, [slow], arguments.torchvision_seconds
            ),
            "torchvision, fast server": functools.partial(measure, torchvision, archive, [fast], None),
        }
        runs: dict[str, list[tuple[float, int, str]]] = {what: [] for what in cases}
        for repeat in range(arguments.repeats):
            for what, case in cases.items():
                if repeat and "stopped" in runs[what][0][2]:
                    continue
                runs[what].append(case())
                print(f"{what}: {runs[what][-1][0]:.1f} s", flush=True)

    rows = []
    for what, found in runs.items():
        times = [seconds for seconds, _, _ in found]
        seconds, came, note = found[times.index(statistics.median_low(times))]
        rows.append({
            "what": what, "seconds": round(seconds, 3), "bytes": came,
            "megabytes_per_second": round(came / 1e6 / seconds, 3), "note": note,
            "all_seconds": [round(one, 3) for one in times],
        })  # fmt: skip
    table = [
        {
            "download of 170 MB, loopback": row["what"],
            "seconds": f"{row['seconds']:.1f}",
            "range": f"{min(row['all_seconds']):.1f} to {max(row['all_seconds']):.1f}",
            "MB": f"{row['bytes'] / 1e6:.1f}",
            "MB/s": f"{row['megabytes_per_second']:.2f}",
            "note": row["note"],
        }
        for row in rows
    ]
    print(f"\n{markdown(table)}\n")
    lost = rows[1]["seconds"] - rows[0]["seconds"]
    goals = {
        f"a throttled mirror costs at most {GOAL} s ({lost:+.1f} s)": lost <= GOAL,
        "one that throttles after a burst is left for the fast one": rows[2]["bytes"] == archive.size,
    }
    for goal, reached in goals.items():
        print(f"Goal: {goal}: {'yes' if reached else 'no'}")
    if arguments.write:
        save("download", table, rows, ["requests", "urllib3", "torch", "torchvision"])
    return int(not all(goals.values()))


if __name__ == "__main__":
    sys.exit(main())
