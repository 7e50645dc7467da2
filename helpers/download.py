"""Fetch one large file from servers that hold the same bytes: the fastest serves it, and any other can carry on.

    served = download(folder / "file.tar.gz", [url, another_url], size=170_498_071, md5="...", title="CIFAR-10")

All mirrors are asked at once for the next byte, and the one that brings the first megabyte soonest goes on. One that
breaks off, hangs or grows slow is replaced at the byte that was reached. What has arrived stays in `file.tar.gz.part`
over errors, Ctrl-C and kill -9; the file gets its name when its MD5 is right. One process downloads, others wait.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import queue
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3
from filelock import FileLock, Timeout
from tqdm import tqdm

PROBE_BYTES = 1 << 20  # the first mirror to bring so much in a race wins it,
PROBE_SECONDS = 3.0  # or the one that has brought most by then
SLOW_BYTES = 200_000  # bytes a second, below which another mirror is tried,
SLOW_SECONDS = 10.0  # after so long
CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0  # without an answer, without a byte
BACKOFF_SECONDS = 0.5  # before a failed mirror is asked again; doubles each time
LONGEST_WAIT = 60.0  # that a server may ask for in Retry-After
PATIENCE, PATIENCE_ONCE_STARTED = 3, 6  # failures in a row before a mirror is given up
PIECE = 1 << 15
BUFFERED_PIECES = 128
USER_AGENT = "cifar10-notebooks (github.com/Rezaul33/Deep-Learning-Project-CIFAR-10-Image-Classifier)"


class DownloadError(Exception):
    """The file could not be fetched; the message says why, mirror by mirror. What had arrived is kept."""


@dataclass(frozen=True)
class Served:
    """Who served how many bytes in this call (empty: the file was there), and how long it took in seconds."""

    mirrors: dict[str, int]
    seconds: float

    def __str__(self) -> str:
        megabytes = sum(self.mirrors.values()) / 1e6
        speed = megabytes / max(self.seconds, 1e-3)
        return f"{megabytes:,.1f} MB from {' and '.join(self.mirrors)} in {self.seconds:.1f} s ({speed:,.1f} MB/s)"


def download(target: Path, urls: Sequence[str], *, size: int, md5: str, title: str, first: str | None = None) -> Served:
    """Make `target`, of `size` bytes and with this MD5, from whichever of `urls` is fastest; shows one progress bar.

    first: a URL or a file of the user's own, asked before the others and used alone while it serves.
    A target or download with another MD5 is set aside as `*.damaged`; after a second one it stops.

    Raises DownloadError when no mirror serves it, the disk is full or the folder cannot be written.
    """
    part = target.with_name(target.name + ".part")
    try:
        with _alone(target, title):
            if target.exists():
                if _matches(target, size, md5):
                    return Served({}, 0.0)
                print(f"{_difference(target, size, md5)}; set aside as {set_aside(target).name}.", flush=True)
            mirrors = [_Mirror(url) for url in urls]
            own = [_Mirror(first)] if first else []
            began = time.monotonic()
            for last in (False, True):
                _transfer(part, own, mirrors, size, title)
                if _matches(part, size, md5):
                    os.replace(part, target)
                    used = {mirror.name: mirror.served for mirror in own + mirrors if mirror.served}
                    return Served(used, time.monotonic() - began)
                served_it = [mirror for mirror in own + mirrors if mirror.served]
                who = " and ".join(mirror.name for mirror in served_it) or "an earlier attempt"
                problem = f"{_difference(part, size, md5)} (from {who}); set aside as {set_aside(part).name}"
                if last:
                    raise DownloadError(f"{problem}. It was the second in a row: something alters the file on its way")
                print(f"{problem}; fetching it again.", flush=True)
                for mirror in own:
                    if mirror.path and mirror.served:  # a file will be the same another time
                        mirror.given_up, mirror.reason = True, f"it is not the archive, whose MD5 is {md5}"
                if others := [mirror for mirror in mirrors if not mirror.served and not mirror.given_up]:
                    own, mirrors = others, [mirror for mirror in own + mirrors if mirror not in others]
                for mirror in own + mirrors:
                    mirror.served = 0
    except DownloadError:
        if part.exists() and part.stat().st_size == 0:
            part.unlink()
        raise
    except OSError as error:
        kept = f"; the {part.stat().st_size / 1e6:,.1f} MB that have arrived are kept" if part.exists() else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(f"the disk is full ({error.strerror}): {size / 1e6:,.0f} MB are needed{kept}") from None
        raise DownloadError(f"{target.name} cannot be written ({error.strerror or error}){kept}") from None
    raise AssertionError("not reached")


# ----------------------------------------------------------------------------------------- the transfer


class _Refused(Exception):
    """This mirror does not have the file: asking it again is of no use."""


class _Later(Exception):
    """The mirror asks to come back after `seconds`."""

    def __init__(self, reason: str, seconds: float):
        super().__init__(reason)
        self.seconds = seconds


class _Mirror:
    """One place that has the file: how often it has failed in a row, when it may be asked again, what it has served."""

    def __init__(self, url: str):
        self.url = url
        self.path = _local_path(url)
        self.name = f"the file {self.path.name}" if self.path else _server(url)  # no credential in it
        self.failures, self.not_before, self.reason, self.served = 0, 0.0, "", 0
        self.given_up, self.speed = False, math.inf  # bytes a second; finite once it has been too slow

    def failed(self, error: Exception, started: bool) -> None:
        """Note a failure: given up at once, asked again later, or given up after a few; `started`: bytes have come."""
        self.reason = _reason(error)
        self.failures += 1
        wait = BACKOFF_SECONDS * 2 ** (self.failures - 1)
        if isinstance(error, _Later):
            wait = max(wait, error.seconds)
        self.not_before = time.monotonic() + wait
        self.given_up = (
            isinstance(error, _Refused)
            or wait > LONGEST_WAIT
            or self.failures >= (PATIENCE_ONCE_STARTED if started else PATIENCE)
        )


class _Reader(threading.Thread):
    """Reads a mirror's bytes from `start` into a bounded queue, so that nobody else waits on the network."""

    def __init__(self, mirror: _Mirror, start: int, size: int):
        super().__init__(daemon=True)
        self.mirror, self.first_byte, self.size = mirror, start, size
        self.pieces: queue.Queue[bytes | None] = queue.Queue(BUFFERED_PIECES)
        self.received, self.error, self.stopped = 0, None, threading.Event()
        self.start()

    def run(self) -> None:
        try:
            for piece in _pieces(self.mirror, self.first_byte, self.size):
                self._put(piece)
                self.received += len(piece)
                if self.stopped.is_set():
                    return
            if self.first_byte + self.received < self.size:
                raise ConnectionError(f"ended after {self.first_byte + self.received:,} of {self.size:,} bytes")
        except Exception as error:  # whatever breaks a transfer, the thread that writes has to learn of it
            self.error = error
        finally:
            self._put(None)

    def _put(self, piece: bytes | None) -> None:
        while not self.stopped.is_set():
            with contextlib.suppress(queue.Full):
                return self.pieces.put(piece, timeout=0.5)


def _transfer(part: Path, own: list[_Mirror], mirrors: list[_Mirror], size: int, title: str) -> None:
    """Append to `part` until it has `size` bytes."""
    if part.exists() and part.stat().st_size > size:
        set_aside(part)
    with open(part, "ab") as file:
        start = file.tell()
        free = shutil.disk_usage(part.parent).free
        if free < size - start:
            raise OSError(errno.ENOSPC, f"{free / 1e6:,.0f} MB free")
        bar = tqdm(
            total=size, initial=start, unit="B", unit_scale=True, desc=title, file=sys.stdout, leave=False,
            ncols=min(100, shutil.get_terminal_size().columns - 1), mininterval=0.5, disable=start == size,
        )  # fmt: skip
        with bar:
            slow_seconds = SLOW_SECONDS
            while file.tell() < size:
                reader = _race(own, mirrors, file.tell(), size, bar, started=file.tell() > start)
                try:
                    too_slow = _drain(reader, file, bar, title, slow_seconds, own + mirrors)
                finally:
                    reader.stopped.set()
                # where all are slow, look for a faster one less and less often
                slow_seconds = 2 * slow_seconds if too_slow else SLOW_SECONDS
                if reader.error:
                    if reader.received > PROBE_BYTES:
                        reader.mirror.failures = 0
                    reader.mirror.failed(reader.error, started=file.tell() > start)
        file.flush()
        os.fsync(file.fileno())


def _drain(reader: _Reader, file, bar: tqdm, title: str, slow_seconds: float, mirrors: list[_Mirror]) -> bool:
    """Write what `reader` brings until it ends; or until it is too slow while another could be tried: then True."""
    since, position = time.monotonic(), file.tell()
    first_byte = position
    while True:
        with contextlib.suppress(queue.Empty):
            piece = reader.pieces.get(timeout=0.5)
            if piece is None:
                return False
            if file.tell() == first_byte:  # not before: a mirror that is dead serves nothing
                bar.set_description(f"{title} from {reader.mirror.name}")
            file.write(piece)
            bar.update(len(piece))
            reader.mirror.served += len(piece)
        elapsed = time.monotonic() - since
        if elapsed >= slow_seconds:
            speed = (file.tell() - position) / elapsed
            reader.mirror.speed = speed if speed < SLOW_BYTES else math.inf
            if speed < SLOW_BYTES and any(m is not reader.mirror and not m.given_up for m in mirrors):
                return True
            since, position = time.monotonic(), file.tell()


def _race(own: list[_Mirror], mirrors: list[_Mirror], start: int, size: int, bar: tqdm, *, started: bool) -> _Reader:
    """The reader, from byte `start`, of the mirror that is fastest now. Raises DownloadError when none is left."""
    while True:
        group = [mirror for mirror in own if not mirror.given_up and not mirror.failures and mirror.speed == math.inf]
        group = group or [mirror for mirror in own + mirrors if not mirror.given_up]
        if not group:
            reasons = "\n".join(f"  {mirror.name}: {mirror.reason}" for mirror in own + mirrors)
            if start:
                reasons += f"\nThe {start / 1e6:,.1f} MB that have arrived are kept; the next attempt goes on there."
            raise DownloadError(f"no mirror served it.\n{reasons}")
        wait = min(mirror.not_before for mirror in group) - time.monotonic()
        if wait > 0:
            if wait > 2:
                bar.set_description(f"asked to wait for {wait:.0f} s")
            time.sleep(wait)
        readers = [_Reader(mirror, start, size) for mirror in group if mirror.not_before <= time.monotonic()]
        winner = None
        try:
            winner = _first(readers, size - start, started)
        finally:
            for reader in readers:
                if reader is not winner:
                    reader.stopped.set()
        if winner:
            return winner


def _first(readers: list[_Reader], wanted: int, started: bool) -> _Reader | None:
    """The winner of a race; None when all failed."""
    began = time.monotonic()

    def score(reader: _Reader) -> float:
        """Bytes received; no more than a mirror's pace, where it has been slow: many send the first megabytes fast."""
        return min(reader.received, reader.mirror.speed * (time.monotonic() - began))

    while len(readers) > 1:
        running = [reader for reader in readers if not reader.error]
        best = max(running or readers, key=score)
        over = not running or time.monotonic() - began > PROBE_SECONDS
        if score(best) >= min(PROBE_BYTES, wanted) or (best.received and over):
            return best
        for reader in readers:
            if reader.error and not reader.received:
                reader.mirror.failed(reader.error, started)
        readers = [reader for reader in readers if reader.received or not reader.error]
        time.sleep(0.005)
    return readers[0] if readers else None


# ---------------------------------------------------------------------------------------- one connection


def _pieces(mirror: _Mirror, start: int, size: int) -> Iterator[bytes]:
    """The mirror's bytes from `start` to `size`, none of them from another place, as far as a server's word goes."""
    if mirror.path:
        if mirror.path.is_dir():
            raise _Refused("it is a folder, expected the archive")
        found = mirror.path.stat().st_size
        if found != size:
            raise _Refused(f"the file has {found:,} bytes, expected {size:,}")
        with open(mirror.path, "rb") as file:
            file.seek(start)
            yield from iter(lambda: file.read(PIECE), b"")
        return
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(mirror.url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
        skip = _bytes_to_skip(response, start, size)
        position = start - skip
        while position < size and (piece := response.raw.read(min(PIECE, size - position), decode_content=False)):
            if position == 0 and not piece.startswith(b"\x1f\x8b"):
                raise _Refused("it sent something else than a gzip archive")
            position += len(piece)
            if position > start:
                yield piece[max(0, len(piece) - (position - start)) :]


def _bytes_to_skip(response: requests.Response, start: int, size: int) -> int:
    """How many of the bytes that follow lie before `start` (a server may not know Range). Raises for a wrong answer."""
    status, headers = response.status_code, response.headers
    if status in (429, 503):
        raise _Later(f"HTTP {status} {response.reason}", _retry_after(headers.get("Retry-After", "")))
    if status >= 500 or status == 408:
        raise ConnectionError(f"HTTP {status} {response.reason}")
    if status not in (200, 206):
        raise _Refused(f"HTTP {status} {response.reason}")
    if headers.get("Content-Type", "").startswith("text/html"):
        raise _Refused("it sent a web page instead of the file")
    skip = start
    if status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if not span or int(span[1]) != start or span[2] not in (str(size), "*"):
            raise _Refused(f"asked for bytes {start:,} to {size:,}, it sent {headers.get('Content-Range')!r}")
        skip = 0
    length = headers.get("Content-Length", "")
    if length.isdigit() and int(length) != size - start + skip:
        raise _Refused(f"it offers {int(length):,} bytes, expected {size - start + skip:,}")
    return skip


def _retry_after(value: str) -> float:
    """Seconds from a Retry-After header, which holds seconds or a date; 0 where it holds neither."""
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _reason(error: Exception) -> str:
    """What went wrong, in the few words that matter: requests and urllib3 wrap the cause in up to four layers."""
    causes: list[BaseException] = [error]
    for cause in causes:
        inner = [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *getattr(cause, "args", ())]
        causes += [one for one in inner if isinstance(one, BaseException) and one not in causes]
    if isinstance(error, requests.TooManyRedirects):
        return "it redirects in a circle"
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "its name was not found (is there a network?)"
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, requests.RequestException):
            return cause.strerror[0].lower() + cause.strerror[1:]
    for cause in causes:
        if isinstance(cause, requests.ConnectTimeout | urllib3.exceptions.ConnectTimeoutError):
            return f"no connection within {CONNECT_SECONDS:g} s"
        if isinstance(cause, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError | TimeoutError):
            return f"no byte for {READ_SECONDS:g} s"
        if isinstance(cause, urllib3.exceptions.IncompleteRead):
            return "the connection broke off early"
    if isinstance(error, requests.RequestException):  # its text may hold the address, with a password in it
        return f"that is no address to fetch it from, or no way leads there ({type(error).__name__})"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _server(url: str) -> str:
    """The server that `url` names, for messages: without a credential."""
    with contextlib.suppress(ValueError):
        if server := urlsplit(url).netloc.rpartition("@")[2]:
            return server
    return "an address without a server"


def _local_path(url: str) -> Path | None:
    """The file that `url` names: a path, or a file:// URL; None for a server's."""
    if url.startswith("file:"):
        return Path(url2pathname(urlsplit(url).path))
    return None if "://" in url else Path(os.path.expanduser(url))


# ------------------------------------------------------------------------------------------- on the disk


@contextlib.contextmanager
def _alone(target: Path, title: str) -> Iterator[None]:
    """Hold the lock beside `target`, which ends with the process that holds it, however that ends."""
    lock = FileLock(target.with_name(target.name + ".lock"))
    # some network drives have no locks; a folder that cannot be written says so later
    with contextlib.suppress(OSError, NotImplementedError):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{title}: another process is downloading it, waiting for that one.", flush=True)
            lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def _matches(path: Path, size: int, md5: str) -> bool:
    return path.stat().st_size == size and file_md5(path) == md5


def file_md5(path: Path) -> str:
    """The MD5 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _difference(path: Path, size: int, md5: str) -> str:
    found = path.stat().st_size
    return f"{path.name} is damaged: {found:,} bytes with MD5 {file_md5(path)}, expected {size:,} bytes with MD5 {md5}"


def set_aside(path: Path) -> Path:
    """Rename a damaged file, or its `.part`, to the first free of `*.damaged`, `*.damaged-2`, ...: the new path."""
    name = path.name.removesuffix(".part")
    numbers = ("", *(f"-{k}" for k in range(2, 1000)))
    aside = next(a for n in numbers if not (a := path.with_name(f"{name}.damaged{n}")).exists())
    return path.replace(aside)
