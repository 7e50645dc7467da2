"""A small CIFAR-10 of the official structure, and servers on loopback that hold it and misbehave on purpose."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import pickle
import re
import socketserver
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from helpers import data

FILES = [*data.TRAIN_FILES, "test_batch"]
PER_FILE = 20
PATIENCE = 60  # seconds, for what takes a fraction of one; only a test that fails waits so long


# ------------------------------------------------------------------------------------------- the data


def batch(seed: int, n: int = PER_FILE) -> dict:
    generator = np.random.default_rng(seed)
    # values and labels that compress like photographs, neither noise nor constant
    pixels = (generator.integers(0, 16, (n, 3072)) * 17).astype(np.uint8)
    return {b"data": pixels, b"labels": generator.integers(0, 10, n).tolist(), b"batch_label": b"one of six"}


def fake_files() -> dict[str, bytes]:
    """The seven files of `cifar-10-batches-py`, well formed, with 20 random images each."""
    files = {name: pickle.dumps(batch(seed), protocol=4) for seed, name in enumerate(FILES)}
    return files | {"batches.meta": pickle.dumps({b"label_names": list(data.CLASS_NAMES)}, protocol=4)}


def binary_file(seed: int) -> bytes:
    """The same batch in the binary version: a label byte before each image."""
    content = batch(seed)
    return np.column_stack([np.array(content[b"labels"], np.uint8), content[b"data"]]).tobytes()


def fake_binary_files() -> dict[str, bytes]:
    return {f"{name}.bin": binary_file(seed) for seed, name in enumerate(FILES)}


def member(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    """An entry of an archive; `fields` can make its header lie."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar_gz(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """An archive of them, each header as it is, even where it announces more than follows."""
    blocks = [info.tobuf() + content + bytes(-len(content) % 512) for info, content in members]
    return gzip.compress(b"".join(blocks) + bytes(1024), 6, mtime=0)


def archive_of(files: dict[str, bytes], folder: str = data.FOLDER) -> bytes:
    entries = [member(f"{folder}/{name}", content) for name, content in files.items()]
    return tar_gz([member(folder, type=tarfile.DIRTYPE), *entries])


def write_folder(parent: Path) -> Path:
    """`cifar-10-batches-py` below `parent`, of `fake_files`."""
    folder = parent / data.FOLDER
    folder.mkdir(parents=True)
    for name, content in fake_files().items():
        (folder / name).write_bytes(content)
    return folder


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def flipped(content: bytes, place: float = 0.5) -> bytes:
    """One bit changed, `place` of the way through."""
    changed = bytearray(content)
    changed[int(len(content) * place)] ^= 1
    return bytes(changed)


def assert_is_the_fake(cifar: data.Cifar10) -> None:
    """The five training files in order, pixels turned from planes (channel, row, column) to NHWC."""
    images, labels = [], []
    for seed in range(6):
        for pixels, label in zip(batch(seed)[b"data"], batch(seed)[b"labels"]):
            images.append([[[pixels[1024 * c + 32 * y + x] for c in range(3)] for x in range(32)] for y in range(32)])
            labels.append(label)
    count = 5 * PER_FILE
    np.testing.assert_array_equal(cifar.train_images, np.array(images[:count], np.uint8))
    np.testing.assert_array_equal(cifar.train_labels, labels[:count])
    np.testing.assert_array_equal(cifar.test_images, np.array(images[count:], np.uint8))
    np.testing.assert_array_equal(cifar.test_labels, labels[count:])
    assert {a.dtype for a in (cifar.train_images, cifar.train_labels, cifar.test_images, cifar.test_labels)} == {
        np.dtype(np.uint8)
    }


# --------------------------------------------------------------------------------------- the servers


def wait_until(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"waited {PATIENCE} s in vain: {what}"
        time.sleep(0.01)


@dataclass
class Fault:
    """How a mirror misbehaves, in its first `times` answers (None: in all of them)."""

    times: int | None = None
    status: int | None = None  # an answer without the file
    headers: dict[str, str] = field(default_factory=dict)  # instead of, or in addition to, the right ones
    page: bytes | None = None  # sent instead of the file
    rate: float | None = None  # bytes a second, from byte `rate_from` on
    rate_from: int = 0
    burst: int = 0  # bytes of each answer that come at once all the same
    hang_at: int | None = None  # sends nothing from this byte on; -1: no answer at all
    cut_at: int | None = None  # closes the connection at this byte
    cut_after: int | None = None  # or after so many
    ranges: bool = True  # answers Range with 206; False: with 200 and the whole file
    shift: int = 0  # a Range is answered from so many bytes later
    announce_shift: bool = True  # and its header says so
    content: bytes | None = None  # other bytes
    refuses: bool = False  # nobody listens


class Mirror(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """An HTTP server on loopback that holds `content`; counts what it is asked for and what it sends.

    requests: the first byte that each request asked for. sent: bytes handed to the network for each of them.
    held: set as soon as an answer hangs (until `release`).
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, content: bytes, fault: Fault | None = None):
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.content, self.fault = content, fault or Fault()
        self.requests: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.sent: list[int] = []
        self.held, self.release = threading.Event(), threading.Event()
        self.counting = threading.Lock()
        self.server_bind()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        if not self.fault.refuses:
            self.listen()

    def listen(self) -> None:
        self.server_activate()
        self.thread.start()

    def heal(self) -> None:
        """Behave from now on."""
        was, self.fault = self.fault, Fault()
        if was.refuses:
            self.listen()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.name}/some/{data.ARCHIVE}"

    def handle_error(self, *_) -> None:
        """A client that went away is no news."""

    def close(self) -> None:
        self.release.set()
        if self.thread.is_alive():
            self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def log_message(self, *_) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        mirror, asked = self.server, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        with mirror.counting:
            number = len(mirror.requests)
            mirror.requests.append(start)
            mirror.headers.append(dict(self.headers))
            mirror.times.append(time.time())
            mirror.sent.append(0)
        fault = mirror.fault
        if fault.times is not None and number >= fault.times:
            fault = Fault()
        with contextlib.suppress(OSError):  # the client went away
            self.answer(mirror, fault, start, bool(asked), number)

    def answer(self, mirror: Mirror, fault: Fault, start: int, asked: bool, number: int) -> None:
        content = mirror.content if fault.content is None else fault.content
        if fault.hang_at == -1:
            return self.hang(mirror)
        partial = asked and fault.ranges
        position = start + fault.shift if partial else 0
        announced = position if fault.announce_shift else start
        headers = {"Content-Length": str(len(content) - position), "Content-Type": "application/octet-stream"}
        if partial:
            headers["Content-Range"] = f"bytes {announced}-{len(content) - 1}/{len(content)}"
        body, cut_at = content, position + fault.cut_after if fault.cut_after else fault.cut_at
        if fault.status or fault.page is not None:
            body, position = fault.page or b"", 0
            headers = {"Content-Length": str(len(body))}
        self.send_response(fault.status or (206 if partial else 200))
        for key, value in (headers | fault.headers).items():
            if value:
                self.send_header(key, value.replace("{self}", mirror.url))
        self.end_headers()
        rate_from = max(fault.rate_from, position + fault.burst)
        while position < len(body):
            if fault.hang_at is not None and position >= fault.hang_at:
                return self.hang(mirror)
            if cut_at is not None and position >= cut_at:
                return None
            slow = fault.rate is not None and position >= rate_from
            marks = [mark for mark in (fault.hang_at, cut_at, rate_from) if mark and mark > position]
            end = min([position + (1_000 if slow else 16_384), len(body), *marks])
            self.wfile.write(body[position:end])
            mirror.sent[number] += end - position
            if slow and mirror.release.wait((end - position) / fault.rate):
                return None
            position = end
        return None

    def hang(self, mirror: Mirror) -> None:
        self.wfile.flush()
        mirror.held.set()
        mirror.release.wait(PATIENCE)
