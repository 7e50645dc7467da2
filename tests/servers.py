"""A small CIFAR-10 of the official structure, and servers on loopback that hold its archive and misbehave."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import pickle
import socketserver
import tarfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from helpers import data, fetch

PATIENCE = 120  # seconds, for what takes a fraction of one; only a test that fails waits so long
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 20, 3072), np.uint8)  # (file, image, planes of red, green and blue)
LABELS = RNG.integers(0, 10, (6, 20), np.uint8)
FILES = {
    name: pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, protocol=4)
    for name, pixels, labels in zip(data.FILES, PIXELS, LABELS)
}


def write_folder(parent: Path, **others: bytes) -> Path:
    """`cifar-10-batches-py` below `parent`; others: what stands in the place of a file."""
    folder = parent / data.FOLDER
    folder.mkdir(parents=True)
    for name, content in (FILES | others).items():
        (folder / name).write_bytes(content)
    return folder


def archive() -> bytes:
    """The same in every process: a child publishes it, too."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, file in FILES.items():
            member = tarfile.TarInfo(f"{data.FOLDER}/{name}")
            member.size = len(file)
            tar.addfile(member, io.BytesIO(file))
    return gzip.compress(content.getvalue(), mtime=0)


CONTENT = archive()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def flipped(content: bytes) -> bytes:
    """One bit changed, half-way through."""
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]


def publish(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the small data set is the official one, no mirror is outside, and a loaded machine is no slow one."""
    images = PIXELS.reshape(6, 20, 3, 32, 32).transpose(0, 1, 3, 4, 2)
    arrays = (np.concatenate(images[:5]), np.concatenate(LABELS[:5]), images[5], LABELS[5])
    monkeypatch.setattr(data, "OFFICIAL", data.from_arrays(*arrays).fingerprint)
    monkeypatch.setattr(data, "FILE_MD5", {name: md5(file) for name, file in FILES.items()})
    settings = dict.fromkeys(("SLOW_SECONDS", "STALL_SECONDS"), PATIENCE)
    settings |= {"ARCHIVE_SIZE": len(CONTENT), "ARCHIVE_MD5": md5(CONTENT), "GOOD_BYTES": 1 << 14, "PIECE": 1 << 12}
    for name, value in (settings | {"MIRRORS": ("http://127.0.0.1:9/nobody",)}).items():
        monkeypatch.setattr(fetch, name, value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@dataclass
class Fault:
    """How a mirror misbehaves, in its first `times` answers (None: in all of them)."""

    times: int | None = None
    refuses: bool = False  # nobody listens
    hangs_at: int | None = None  # sends nothing from this byte on; 0: no answer at all
    cuts_at: int | None = None  # closes the connection at this byte
    status: int | None = None  # in the place of 200
    headers: dict[str, str] = field(default_factory=dict)  # instead of, or in addition to, the right ones
    content: bytes = CONTENT
    ranges: bool = True  # answers Range with 206; False: with 200 and the whole file


class Mirror(socketserver.ThreadingTCPServer):
    """An HTTP server on loopback that holds the archive; `requests` says from which byte on it was asked for it."""

    daemon_threads = True

    def __init__(self, fault: Fault | None = None):
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.fault, self.requests, self.release = fault or Fault(), [], threading.Event()
        self.server_bind()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        if not self.fault.refuses:
            self.server_activate()
            self.thread.start()
        self.name = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.name}/some/{data.ARCHIVE}"

    def server_close(self) -> None:
        self.release.set()
        if self.thread.is_alive():
            self.shutdown()
        super().server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def log_message(self, *_) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        mirror, fault = self.server, self.server.fault
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        mirror.requests.append(start)
        if fault.times is not None and len(mirror.requests) > fault.times:
            fault = Fault()
        with contextlib.suppress(OSError):  # the client went away
            if fault.hangs_at != 0:
                self.answer(fault, start if fault.ranges else 0, len(fault.content))
            if fault.hangs_at is not None:  # until `release`, or the end of the test
                mirror.release.wait(PATIENCE)

    def answer(self, fault: Fault, start: int, size: int) -> None:
        headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
        self.send_response(fault.status or (206 if start else 200))
        for key, value in ({"Content-Length": f"{size - start}"} | headers | fault.headers).items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(fault.content[start : fault.hangs_at or fault.cuts_at])
