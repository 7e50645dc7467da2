"""Fetching CIFAR-10 from servers that misbehave, in every container, and the cache: what is left on the disk is sound.

The servers are on loopback, the data set is a small one of the same structure, whose hashes stand in for the published.
"""

from __future__ import annotations

import email.utils
import errno
import gc
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import data, download
from tests.servers import (
    FILES,
    PATIENCE,
    PER_FILE,
    Fault,
    Mirror,
    archive_of,
    batch,
    fake_binary_files,
    fake_files,
    flipped,
    md5,
    member,
    tar_gz,
    wait_until,
)

CODE = data.REPOSITORY
CONTENT = archive_of(fake_files())
SIZE = len(CONTENT)
PART = 50_000  # where a transfer goes on in tests that start with a part of the file
BUFFERED = 20_000  # more than what can have been sent and not yet be in the file
DOWNLOAD_SETTINGS = {
    "PROBE_BYTES": 1 << 14,
    "PROBE_SECONDS": 1.0,
    "SLOW_SECONDS": 30.0,  # tests of slow servers lower it; a loaded machine is no slow server
    "READ_SECONDS": 30.0,
    "BACKOFF_SECONDS": 0.01,
    "PIECE": 1 << 12,
}


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    """A test that reaches for the network fails instead."""
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def allow(address):
        assert address[0] == "127.0.0.1", f"a test opened a network connection to {address}"

    monkeypatch.setattr(socket.socket, "connect", lambda self, address: (allow(address), connect(self, address))[1])
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: (allow((host,)), getaddrinfo(host, *rest, **more))[1]
    )
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def mirror():
    """Makes servers, which end with the test."""
    made = []

    def make(fault: Fault | None = None, content: bytes = CONTENT) -> Mirror:
        made.append(Mirror(content, fault))
        return made[-1]

    yield make
    for one in made:
        one.close()


def arrays_of_the_fake() -> dict[str, np.ndarray]:
    batches = [batch(seed) for seed in range(6)]
    images = [np.ascontiguousarray(b[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)) for b in batches]
    labels = [np.array(b[b"labels"], np.uint8) for b in batches]
    return {
        "train_images": np.concatenate(images[:5]), "train_labels": np.concatenate(labels[:5]),
        "test_images": images[5], "test_labels": labels[5],
    }  # fmt: skip


@pytest.fixture
def folder(elsewhere, monkeypatch):
    """Where this machine, which has nothing yet, keeps CIFAR-10; the fake is the official data set."""
    monkeypatch.setattr(data, "MIRRORS", ())
    publish(monkeypatch, CONTENT)
    sha256 = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays_of_the_fake().items()}
    monkeypatch.setattr(data, "ARRAY_SHA256", sha256)
    for name, value in DOWNLOAD_SETTINGS.items():
        monkeypatch.setattr(download, name, value)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # it waits for whatever else is written on this machine
    return elsewhere / "repository" / "data"


def publish(monkeypatch, content: bytes, files: dict[str, bytes] | None = None) -> None:
    """From now on the official archive is `content`, and its files are `files`."""
    monkeypatch.setattr(data, "ARCHIVE_SIZE", len(content))
    monkeypatch.setattr(data, "ARCHIVE_MD5", md5(content))
    monkeypatch.setattr(data, "FILE_MD5", {name: md5(file) for name, file in (files or fake_files()).items()})


def load(monkeypatch, *mirrors: Mirror, root=None, **options) -> data.Cifar10:
    monkeypatch.setattr(data, "MIRRORS", tuple(one.url for one in mirrors))
    cifar = data.load_cifar10(root, **options)
    assert cifar.official
    for name, array in arrays_of_the_fake().items():
        np.testing.assert_array_equal(getattr(cifar, name), array)
    return cifar


def error_of(monkeypatch, *mirrors: Mirror, root=None, **options) -> str:
    with pytest.raises(data.DataError) as caught:
        load(monkeypatch, *mirrors, root=root, **options)
    return str(caught.value)


def assert_complete(folder: Path, damaged: tuple[bytes, ...] = ()) -> None:
    """The verified archive lies there, the damaged ones beside it, and nothing half-written."""
    assert (folder / data.ARCHIVE).read_bytes() == CONTENT
    assert not (folder / f"{data.ARCHIVE}.part").exists()
    _assert_beside(folder, damaged)


def assert_resumable(folder: Path, at_least: int = 0, damaged: tuple[bytes, ...] = ()) -> int:
    """No archive, or a beginning of it under another name; the number of its bytes."""
    part = folder / f"{data.ARCHIVE}.part"
    assert not (folder / data.ARCHIVE).exists()
    content = part.read_bytes() if part.exists() else b""
    assert CONTENT.startswith(content)
    assert len(content) >= at_least
    _assert_beside(folder, damaged)
    return len(content)


def _assert_beside(folder: Path, damaged: tuple[bytes, ...]) -> None:
    if folder.exists():
        names = sorted(path.name for path in folder.iterdir())
        assert [(folder / name).read_bytes() for name in names if f"{data.ARCHIVE}.damaged" in name] == list(damaged)
        assert [name for name in names if ".part" in name and name != f"{data.ARCHIVE}.part"] == []


def place(folder: Path, content: bytes, name: str = f"{data.ARCHIVE}.part") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


# -------------------------------------------------------------------------------------- healthy mirrors


def test_healthy_mirrors_serve_it_once_and_it_says_who_how_fast_and_where(folder, mirror, monkeypatch, capsys):
    mirrors = [mirror() for _ in range(3)]
    cifar = load(monkeypatch, *mirrors)
    assert_complete(folder)
    winner = next(one for one in mirrors if one.name in cifar.source)
    assert cifar.source == f"./data beside the notebooks (downloaded from {winner.name})"
    found = re.search(r"^Downloaded into .*: (0\.\d MB from (\S+) in \d+\.\d s \(.* MB/s\)); MD5 as published\.$",
                      capsys.readouterr().out.replace("\r", "\n"), re.MULTILINE)  # fmt: skip
    assert found[2] == winner.name
    assert (folder / data.ORIGIN).read_text(encoding="utf-8").startswith(f"{found[1]}, 20")
    assert all(one.requests in ([], [0]) for one in mirrors)

    monkeypatch.setattr(data, "_read", None)  # from now on the cache serves
    again = load(monkeypatch, *mirrors)
    assert again.source == "./data beside the notebooks"
    assert again.fingerprint == cifar.fingerprint
    (folder / data.ARCHIVE).unlink()
    assert load(monkeypatch, *mirrors, download=False).source == "./data (arrays verified earlier)"
    assert sum(len(one.requests) for one in mirrors) <= 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault(headers={"Content-Encoding": "gzip", "Content-Type": "application/x-gzip"}),
        Fault(headers={"Content-Length": ""}),
        Fault(ranges=False),
    ],
    ids=["says that the archive is an encoding", "does not say how long it is", "does not know Range"],
)
@pytest.mark.parametrize("begun", [0, PART])
def test_mirror_with_other_habits_serves_it_too(folder, mirror, monkeypatch, fault, begun):
    place(folder, CONTENT[:begun])
    only = mirror(fault)
    load(monkeypatch, only)
    assert_complete(folder)
    assert only.requests == [begun]
    assert only.sent == [SIZE if fault.ranges is False else SIZE - begun]


def test_redirect_is_followed(folder, mirror, monkeypatch):
    there = mirror()
    load(monkeypatch, mirror(Fault(status=302, headers={"Location": there.url})))
    assert_complete(folder)
    assert there.requests == [0]


# --------------------------------------------------------------------------------- mirrors that misbehave

PAGE = b"<html><body>Sorry</body></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
FAULTS = {  # what each does, and how the message names it (None: it serves, in its way, and alone it does)
    "throttled": (Fault(rate=20_000), None),
    "dead": (Fault(refuses=True), r"refused"),
    "hanging before the headers": (Fault(hang_at=-1), r"no byte for 0\.4 s"),
    "hanging after the headers": (Fault(hang_at=0), r"no byte for 0\.4 s"),
    "hanging in the middle": (Fault(hang_at=PART), r"no byte for 0\.4 s"),
    "403": (Fault(status=403), r"HTTP 403 Forbidden"),
    "404": (Fault(status=404), r"HTTP 404 Not Found"),
    "429": (Fault(status=429), r"HTTP 429 Too Many Requests"),
    "500": (Fault(status=500), r"HTTP 500 Internal Server Error"),
    "503": (Fault(status=503), r"HTTP 503 Service Unavailable"),
    "206 without being asked": (Fault(status=206), r"asked for bytes 0 to [\d,]+, it sent None"),
    "web page": (Fault(page=PAGE, headers=HTML), r"it sent a web page instead of the file"),
    "web page of unknown length": (
        Fault(page=PAGE, headers=HTML | {"Content-Length": ""}), r"it sent a web page instead of the file"),
    "page that says it is a file": (
        Fault(page=PAGE, headers={"Content-Length": ""}), r"it sent something else than a gzip archive"),
    "redirecting in a circle": (Fault(status=302, headers={"Location": "{self}"}), r"it redirects in a circle"),
    "shorter by its header": (
        Fault(headers={"Content-Length": "999"}), rf"it offers 999 bytes, expected {SIZE:,}"),
    "longer by its header": (
        Fault(headers={"Content-Length": str(SIZE + 1)}), rf"it offers {SIZE + 1:,} bytes, expected {SIZE:,}"),
    "breaking off": (Fault(cut_at=PART), r"the connection broke off early|reset|abort"),
    "ending early without a word": (
        Fault(cut_at=PART, headers={"Content-Length": ""}), rf"ended after [\d,]+ of {SIZE:,} bytes|reset|abort"),
}  # fmt: skip
FAILURES = {name: values for name, values in FAULTS.items() if values[1]}
for_each_fault = pytest.mark.parametrize(("fault", "message"), FAULTS.values(), ids=FAULTS)
for_each_failure = pytest.mark.parametrize(("fault", "message"), FAILURES.values(), ids=FAILURES)


@for_each_fault
def test_mirror_that_misbehaves_does_not_keep_another_from_serving(folder, mirror, monkeypatch, capsys, fault, message):
    monkeypatch.setattr(download, "READ_SECONDS", 0.4)
    bad, good = mirror(fault), mirror()
    cifar = load(monkeypatch, bad, good)
    assert_complete(folder)
    assert good.name in cifar.source
    assert good.name in capsys.readouterr().out


@for_each_failure
def test_mirrors_that_all_misbehave_are_named_with_their_reasons_and_what_came_is_used_later(
    folder, mirror, monkeypatch, fault, message
):
    monkeypatch.setattr(download, "READ_SECONDS", 0.4 if "no byte" in message else 5)  # busy machines answer late
    monkeypatch.setattr(download, "PATIENCE_ONCE_STARTED", 2)
    monkeypatch.setattr(download, "PATIENCE", 2)
    mirrors = [mirror(fault), mirror(fault)]
    text = error_of(monkeypatch, *mirrors)
    assert text.startswith("CIFAR-10 was not found, and the download failed: no mirror served it.\n")
    for one in mirrors:
        assert re.search(rf"^  {re.escape(one.name)}: .*({message})", text, re.MULTILINE), text
    came = assert_resumable(folder, at_least=PART // 2 if PART in (fault.hang_at, fault.cut_at) else 0)
    assert ("MB that have arrived are kept; the next attempt goes on there" in text) == (came > 0)
    assert_ways_out(text)

    monkeypatch.setattr(download, "READ_SECONDS", 30)
    for one in mirrors:
        one.heal()
    before = [len(one.requests) for one in mirrors]
    load(monkeypatch, *mirrors)
    assert_complete(folder)
    new = [start for one, count in zip(mirrors, before) for start in one.requests[count:]]
    assert new
    assert set(new) == {came}, "it begins anew, instead of going on where it was"


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (Fault(status=404), 1),
        (Fault(page=PAGE, headers=HTML), 1),
        (Fault(headers={"Content-Length": "999"}), 1),
        (Fault(status=500), 3),
        (Fault(status=503), 3),
        (Fault(status=408), 3),
    ],
    ids=["404", "web page", "another length", "500", "503", "408"],
)
def test_what_cannot_pass_is_asked_once_and_what_may_pass_three_times(folder, mirror, monkeypatch, fault, requests):
    only = mirror(fault)
    error_of(monkeypatch, only)
    assert_resumable(folder)
    assert only.requests == [0] * requests


def test_mirror_that_brings_little_each_time_is_given_up_after_six(folder, mirror, monkeypatch):
    """Three, before it has brought anything at all."""
    only = mirror(Fault(cut_after=2 * download.PIECE))
    error_of(monkeypatch, only)
    assert assert_resumable(folder) == 6 * 2 * download.PIECE
    assert only.requests == [k * 2 * download.PIECE for k in range(6)]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_mirror_that_was_busy_once_is_asked_again(folder, mirror, monkeypatch, status):
    only = mirror(Fault(status=status, times=2))
    load(monkeypatch, only)
    assert_complete(folder)
    assert only.requests == [0, 0, 0]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("kind", ["seconds", "date", "too many seconds", "too late a date", "nonsense"])
def test_retry_after_is_obeyed_up_to_a_minute(folder, mirror, monkeypatch, status, kind):
    date = int(time.time()) + (2 if kind == "date" else 3_600)
    value = {"seconds": "1", "too many seconds": "3600", "nonsense": "soon"}.get(kind)
    value = value or email.utils.formatdate(date, usegmt=True)
    only = mirror(Fault(status=status, times=1, headers={"Retry-After": value}))
    if "too" in kind:
        assert f"{only.name}: HTTP {status} " in error_of(monkeypatch, only)
        assert_resumable(folder)
        assert only.requests == [0]
        return
    load(monkeypatch, only)
    assert_complete(folder)
    assert only.requests == [0, 0]
    if kind == "seconds":
        assert only.times[1] - only.times[0] > 0.9
    if kind == "date":
        assert only.times[1] > date - 0.1


def test_mirror_that_asks_to_wait_is_not_waited_for_while_another_serves(folder, mirror, monkeypatch):
    busy, good = mirror(Fault(status=429, headers={"Retry-After": "50"})), mirror()
    load(monkeypatch, busy, good)
    assert_complete(folder)
    assert len(busy.requests) <= 1


# -------------------------------------------------------------------------------- carrying on at the byte


def test_mirror_that_grows_slow_is_replaced_at_the_same_byte(folder, mirror, monkeypatch):
    """Every byte is written once: those of the first mirror up to where it was, and from there the other's."""
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.4)
    fading = mirror(Fault(rate=20_000, rate_from=100_000))
    late = mirror(Fault(hang_at=-1, times=1))  # loses the first race
    folder.mkdir()
    served = download.download(
        folder / data.ARCHIVE, [fading.url, late.url], size=SIZE, md5=md5(CONTENT), title="CIFAR-10"
    )
    assert_complete(folder)
    first = served.mirrors[fading.name]
    assert first >= 100_000 - download.PIECE
    assert late.requests == [0, first]
    assert late.sent == [0, SIZE - first]
    assert served.mirrors == {fading.name: first, late.name: SIZE - first}
    assert fading.requests in ([0], [0, first])
    assert re.fullmatch(rf"0\.2 MB from {fading.name} and {late.name} in .* s \(.* MB/s\)", str(served))


def test_where_all_mirrors_are_slow_it_looks_for_a_faster_one_less_and_less_often(folder, mirror, monkeypatch):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.02)
    monkeypatch.setattr(download, "PROBE_BYTES", 1 << 12)
    monkeypatch.setattr(download, "SLOW_BYTES", 1_000_000)
    mirrors = [mirror(Fault(rate=300_000)) for _ in range(2)]
    load(monkeypatch, *mirrors)
    assert_complete(folder)
    assert 2 < sum(len(one.requests) for one in mirrors) < 30


def test_mirror_that_was_slow_wins_no_second_race_by_a_fast_beginning(folder, mirror, monkeypatch):
    monkeypatch.setattr(download, "SLOW_SECONDS", 1.0)
    bursts, steady = mirror(Fault(rate=20_000, burst=20_000)), mirror(Fault(rate=400_000))
    folder.mkdir()
    served = download.download(
        folder / data.ARCHIVE, [bursts.url, steady.url], size=SIZE, md5=md5(CONTENT), title="CIFAR-10"
    )
    assert_complete(folder)
    assert served.mirrors[steady.name] > SIZE // 2


def test_breaking_off_again_and_again_is_survived_while_bytes_come(folder, mirror, monkeypatch):
    """Ten times, each after more than a probe: a mirror is given up after failures in a row, not in all."""
    monkeypatch.setattr(download, "PROBE_BYTES", 10_000)
    breaks = mirror(Fault(cut_after=18_000))
    load(monkeypatch, breaks)
    assert_complete(folder)
    assert len(breaks.requests) > 8
    assert breaks.requests == sorted(set(breaks.requests))


@pytest.mark.parametrize("says_so", [True, False], ids=["and says so", "and denies it"])
def test_range_that_is_answered_from_the_wrong_offset_is_not_used(folder, mirror, monkeypatch, capsys, says_so):
    place(folder, CONTENT[:PART])
    if says_so:
        only = mirror(Fault(shift=100))
        text = error_of(monkeypatch, only)
        assert f"{only.name}: asked for bytes 50,000 to {SIZE:,}, it sent 'bytes 50100-{SIZE - 1}/{SIZE}'" in text
        assert assert_resumable(folder) == PART
        assert only.requests == [PART]
    else:  # with the right headers: the MD5 tells
        wrong = CONTENT[100:] + CONTENT[:100]
        only = mirror(Fault(content=wrong, times=1))
        load(monkeypatch, only)
        assert_complete(folder, damaged=(CONTENT[:PART] + wrong[PART:],))
        assert only.requests == [PART, 0]
        assert f"(from {only.name}); set aside as {data.ARCHIVE}.damaged; fetching it again." in capsys.readouterr().out


def test_another_file_of_another_size_behind_range_is_not_appended(folder, mirror, monkeypatch):
    place(folder, CONTENT[:PART])
    other = mirror(Fault(headers={"Content-Length": ""}), content=CONTENT + b"more")
    assert "it sent 'bytes 50000-" in error_of(monkeypatch, other)
    assert assert_resumable(folder) == PART


def test_part_that_is_complete_or_too_long_is_judged_before_anything_is_fetched(folder, mirror, monkeypatch):
    only = mirror()
    place(folder, CONTENT)
    load(monkeypatch, only)
    assert_complete(folder)
    assert only.requests == []
    shutil.rmtree(folder)
    place(folder, CONTENT + b"more")
    once = mirror(Fault(content=flipped(CONTENT), times=1))
    load(monkeypatch, once)  # what lay there before is no fault of a mirror's: two attempts are left
    assert_complete(folder, damaged=(CONTENT + b"more", flipped(CONTENT)))
    assert once.requests == [0, 0]


def test_interrupt_keeps_what_has_arrived(folder, mirror, monkeypatch):
    only = mirror()
    update, count = download.tqdm.update, []

    def interrupt(self, n):
        count.append(n)
        if sum(count) > PART:
            raise KeyboardInterrupt
        return update(self, n)

    with monkeypatch.context() as patch:
        patch.setattr(download.tqdm, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(patch, only)
    came = assert_resumable(folder, at_least=PART)
    load(monkeypatch, only)
    assert_complete(folder)
    assert only.requests == [0, came]


# ---------------------------------------------------------------------------------------- more processes

CHILD = """
import json, sys
from pathlib import Path
from helpers import data, download
settings = json.loads(sys.argv[1])
for module in (data, download):
    for name, value in settings[module.__name__].items():
        setattr(module, name, Path(value) if name == "REPOSITORY" else value)
cifar = data.load_cifar10()
print("OFFICIAL" if cifar.official else "ALTERED", cifar.fingerprint, flush=True)
"""


@pytest.fixture
def child(folder, tmp_path):
    """Starts processes that load CIFAR-10 as this one would; they end with the test."""
    made = []

    def start(*mirrors: Mirror) -> subprocess.Popen:
        names = ("ARCHIVE_SIZE", "ARCHIVE_MD5", "FILE_MD5", "ARRAY_SHA256")
        settings = {
            "helpers.data": {name: getattr(data, name) for name in names}
            | {"REPOSITORY": str(data.REPOSITORY), "MIRRORS": [one.url for one in mirrors]},
            "helpers.download": DOWNLOAD_SETTINGS,
        }
        path = tmp_path / f"output-{len(made)}.txt"
        with open(path, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", CHILD, json.dumps(settings)],
                stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": str(CODE)},
            )  # fmt: skip
        process.said = lambda: path.read_text(encoding="utf-8", errors="replace")
        made.append(process)
        return process

    yield start
    for process in made:
        process.kill()
        process.wait()


def killed_at(process: subprocess.Popen, only: Mirror, folder: Path, byte: int) -> int:
    """Kill it once all that the mirror sent before it hung is on the disk; the size of the part."""
    part = folder / f"{data.ARCHIVE}.part"
    wait_until(only.held.is_set, "the mirror has sent what it sends")
    wait_until(lambda: part.exists() and part.stat().st_size >= byte - BUFFERED, "it is written")
    process.kill()
    process.wait()
    return assert_resumable(folder, at_least=byte - BUFFERED)


def test_after_kill_9_the_bytes_that_were_there_are_not_fetched_again(folder, mirror, monkeypatch, child):
    only = mirror(Fault(hang_at=100_000, times=1))
    came = killed_at(child(only), only, folder, 100_000)
    load(monkeypatch, only)
    assert_complete(folder)
    assert only.requests == [0, came]
    assert only.sent == [100_000, SIZE - came]


def test_of_two_processes_one_downloads_and_the_other_waits_and_reads(folder, mirror, child):
    only = mirror(Fault(hang_at=100_000, times=1))
    first = child(only)
    wait_until(only.held.is_set, "the first process downloads")
    second = child(only)
    wait_until(lambda: "CIFAR-10: another process is downloading it, waiting for that one." in second.said(), "says so")
    assert only.requests == [0]
    only.release.set()  # ends the answer; the first process goes on at its byte
    assert [process.wait(PATIENCE) for process in (first, second)] == [0, 0], first.said() + second.said()
    assert_complete(folder)
    assert len(only.requests) == 2
    assert sum(only.sent) == SIZE + (100_000 - only.requests[1])
    assert "Downloaded into ./data" in first.said()
    assert "Downloaded into ./data" not in second.said()
    fingerprints = [re.search(r"OFFICIAL (\S+)", process.said())[1] for process in (first, second)]
    assert fingerprints[0] == fingerprints[1]


def test_process_that_waits_takes_over_when_the_one_that_downloads_is_killed(folder, mirror, child):
    only = mirror(Fault(hang_at=100_000, times=1))
    first = child(only)
    wait_until(only.held.is_set, "the first process downloads")
    second = child(only)
    wait_until(lambda: "another process is downloading it" in second.said(), "the second one waits")
    part = folder / f"{data.ARCHIVE}.part"
    wait_until(lambda: part.exists() and part.stat().st_size >= 100_000 - BUFFERED, "it is written")
    first.kill()
    assert second.wait(PATIENCE) == 0, second.said()
    assert_complete(folder)
    assert "OFFICIAL" in second.said()
    assert only.requests[0] == 0
    assert only.requests[1] >= 100_000 - BUFFERED
    assert only.sent == [100_000, SIZE - only.requests[1]]


# ------------------------------------------------------------------------ full disks, folders not ours


class Full(io.FileIO):
    """A file on a disk with room for 60,000 bytes."""

    def write(self, content):
        room = 60_000 - self.tell()
        super().write(content[: max(0, room)])
        if room < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(content)


def test_disk_that_fills_up_is_named_and_what_came_is_kept(folder, mirror, monkeypatch):
    only = mirror()
    with monkeypatch.context() as patch:
        patch.setattr(download, "open", lambda path, mode: Full(path, mode.replace("b", "")), raising=False)
        text = error_of(patch, only)
    assert re.search(r"the download failed: the disk is full \(.+\): 0 MB are needed; the 0\.1 MB that have", text)
    assert_ways_out(text)
    assert assert_resumable(folder) == 60_000
    load(monkeypatch, only)
    assert_complete(folder)
    assert only.requests == [0, 60_000]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_disk_that_is_full_by_the_kernels_word_is_named(folder, mirror, monkeypatch):
    folder.mkdir()
    (folder / f"{data.ARCHIVE}.part").symlink_to("/dev/full")
    assert "the disk is full (No space left on device)" in error_of(monkeypatch, mirror())
    (folder / f"{data.ARCHIVE}.part").unlink()
    load(monkeypatch, mirror())
    assert_complete(folder)


def test_disk_without_enough_room_is_named_before_anything_is_fetched(folder, mirror, monkeypatch):
    only = mirror()
    place(folder, CONTENT[:PART])
    room = SIZE - PART
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=room - 1))
        assert "the disk is full (0 MB free): 0 MB are needed; the 0.1 MB" in error_of(patch, only)
    assert assert_resumable(folder) == PART
    assert only.requests == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=room))
    load(monkeypatch, only)
    assert_complete(folder)


def refusing(real: Callable, where: Path, number: int = errno.EACCES, writing_only: bool = True) -> Callable:
    """`real`, which refuses to write (or make) what lies at or below `where`."""

    def refuse(path, mode="r", *rest, **more):
        if Path(path).is_relative_to(where) and not (writing_only and mode in ("r", "rb")):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, mode, *rest, **more)

    return refuse


def test_disk_that_is_full_when_the_cache_is_written_costs_only_the_cache(folder, mirror, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        name = f"{data._cache_folder().name}.part-{os.getpid()}"
        real = open

        def fill(path, mode="r", *rest, **more):
            if name in str(path) and Path(path).name == "test_images.npy":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(path, mode, *rest, **more)

        patch.setattr(data, "open", fill, raising=False)
        load(patch, mirror())
    assert "The disk is full: no arrays are cached, and each load reads" in capsys.readouterr().out
    assert_complete(folder)
    assert [path.name for path in folder.iterdir() if "npy" in path.name] == []
    load(monkeypatch)
    assert data._cache_folder().is_dir()


@pytest.mark.parametrize("refused", ["making the folder", "writing into it", "writing the cache"])
def test_folder_that_cannot_be_written_is_named(folder, mirror, monkeypatch, refused):
    if refused == "making the folder":
        monkeypatch.setattr(os, "mkdir", refusing(os.mkdir, folder, writing_only=False))
    else:
        folder.mkdir()
        monkeypatch.setattr(
            download if refused == "writing into it" else data, "open", refusing(open, folder), raising=False
        )
    if refused == "writing the cache":  # that is no reason to fail
        place(folder, CONTENT, data.ARCHIVE)
        load(monkeypatch, download=False)
        assert [path.name for path in folder.iterdir()] == [data.ARCHIVE]
        return
    text = error_of(monkeypatch, mirror())
    what = folder if refused == "making the folder" else data.ARCHIVE
    assert f"the download failed: {what} cannot be written (Permission denied)" in text
    assert_ways_out(text)
    assert_resumable(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows folders have no such mode")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_named_and_read_where_it_holds_the_archive(folder, mirror, monkeypatch, tmp_path):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    shelf.chmod(0o500)
    data.REPOSITORY.chmod(0o500)
    try:
        text = error_of(monkeypatch, mirror(), root=shelf)
        assert "cannot be written (Permission denied)" in text
        assert list(shelf.iterdir()) == []
        shelf.chmod(0o700)
        place(shelf, CONTENT, data.ARCHIVE)
        shelf.chmod(0o500)
        for _ in range(2):
            load(monkeypatch, root=shelf)
        assert [path.name for path in shelf.iterdir()] == [data.ARCHIVE]
        assert list(data.REPOSITORY.iterdir()) == []
    finally:
        shelf.chmod(0o700)
        data.REPOSITORY.chmod(0o700)


# ----------------------------------------------------------------------------- archives that mean harm


def named(name: str) -> str:
    return f"{data.FOLDER}/{name}"


def good_members() -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(named(name), content) for name, content in fake_files().items()]


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_members_outside_the_folder_are_left_alone(folder, mirror, monkeypatch, tmp_path):
    evil = [
        member("../evil", b"evil"), member(named("../../evil"), b"evil"), member(str(tmp_path / "evil"), b"evil"),
        member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), member("null", type=tarfile.CHRTYPE),
    ]  # fmt: skip
    content = tar_gz([*evil, *good_members(), *evil])
    publish(monkeypatch, content)
    load(monkeypatch, mirror(content=content))
    assert [name for name in everything_below(tmp_path) if "evil" in name or "link" in name or "null" in name] == []
    cached = {f"{name}.npy" for name in data.ARRAY_SHA256} | {"manifest.json", data._cache_folder().name}
    others = {data.ARCHIVE, data.ORIGIN, f"{data.ARCHIVE}.lock"}
    assert {path.name for path in folder.rglob("*")} - others == cached


def replaced(name: str, by: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return tar_gz([by if info.name == named(name) else (info, content) for info, content in good_members()])


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
            "is a link, device or folder, expected a file of at most",
        ),
        ({"type": tarfile.LNKTYPE, "linkname": named("data_batch_1")}, "is a link, device or folder"),
        ({"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}, "is a link, device or folder"),
        ({"type": tarfile.FIFOTYPE}, "is a link, device or folder"),
        ({"type": tarfile.DIRTYPE}, "is a link, device or folder"),
        ({"size": 10 << 30}, "is 10,737,418,240 bytes long, expected a file of at most 64,000,000 bytes"),
    ],
    ids=["symbolic link", "hard link", "device", "pipe", "folder", "10 GB"],
)
def test_member_with_a_batchs_name_that_is_no_such_file_is_refused_unread(folder, monkeypatch, fields, message, verify):
    content = replaced("data_batch_2", member(named("data_batch_2"), **fields))
    publish(monkeypatch, content)
    archive = place(folder, content, data.ARCHIVE)
    assert f"{archive}: data_batch_2 {message}" in error_of(monkeypatch, verify=verify, download=False)
    assert everything_below(folder) == [data.ARCHIVE]


@pytest.mark.parametrize("where", ["before", "after"])
def test_archive_that_unpacks_to_too_much_is_refused(folder, monkeypatch, where):
    bomb = [member("zeros", bytes(3_000_000))]
    content = tar_gz(bomb + good_members() if where == "before" else good_members() + bomb)
    publish(monkeypatch, content)
    place(folder, content, data.ARCHIVE)
    monkeypatch.setattr(data, "UNPACKED_LIMIT", 1_000_000)
    assert "it unpacks to more than 1,000,000 bytes" in error_of(monkeypatch, download=False)
    monkeypatch.setattr(data, "UNPACKED_LIMIT", 4_000_000)
    load(monkeypatch, download=False)


class Runs:
    """A pickle of it makes the folder `path` when it is read."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickle_in_a_downloaded_archive_runs_no_code(folder, mirror, monkeypatch, tmp_path):
    marker = tmp_path / "it-ran"
    files = fake_files() | {"data_batch_3": pickle.dumps(batch(2) | {b"extra": Runs(marker)}, protocol=4)}
    content = archive_of(files)
    publish(monkeypatch, content, files)
    text = error_of(monkeypatch, mirror(content=content))
    assert re.search(rf"{data.ARCHIVE} is not a CIFAR-10 file \(it asks for \w+\.mkdir, which no CIFAR-10 file", text)
    assert not marker.exists()
    pickle.loads(files["data_batch_3"])
    assert marker.exists(), "the attack itself does not work, so this test shows nothing"


# ---------------------------------------------------------------- batches that do not hold what they should


def pickled(n: int = PER_FILE, **changes) -> bytes:
    content = {"data": np.zeros((n, 3072), np.uint8), "labels": [3] * n} | changes
    return pickle.dumps({key.encode(): value for key, value in content.items()}, protocol=4)


def binary(n: int, label: int = 3, width: int = 3073) -> bytes:
    rows = np.zeros((n, width), np.uint8)
    rows[-1, 0] = label
    return rows.tobytes()


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2", pickled(10_000, labels=[3] * 9_999), r"holds uint8 \(10000, 3072\) and 9999 labels"),
        ("data_batch_2", pickled(labels=[3] * 19 + [10]), r"has labels from 3 to 10: expected 0 to 9"),
        ("data_batch_2", pickled(data=np.zeros((20, 3071), np.uint8)), r"holds uint8 \(20, 3071\) and 20 labels"),
        ("data_batch_2.bin", binary(10_000)[:-3072], r"is not a CIFAR-10 file \(30,726,928 bytes: expected a multiple"),
        ("data_batch_2.bin", binary(20, label=10), r"has labels from 0 to 10: expected 0 to 9"),
        ("data_batch_2.bin", binary(20, width=3072), r"is not a CIFAR-10 file \(61,440 bytes: expected a multiple"),
        ("data_batch_2.bin", binary(19, label=9), r"are not CIFAR-10's: expected the official SHA-256 of each"),
    ],
    ids=["9,999 labels", "label 10", "shape", "binary, 9,999 labels", "binary, label 10", "binary, shape", "binary, n"],
)
def test_batch_that_does_not_hold_what_it_should_is_refused(folder, monkeypatch, name, content, message, packed):
    is_binary = name.endswith(".bin")
    files = (fake_binary_files() if is_binary else fake_files()) | {name: content}
    within = data.BINARY_FOLDER if is_binary else data.FOLDER
    if packed:
        archive = archive_of(files, within)
        publish(monkeypatch, archive, files)
        where = place(folder, archive, data.BINARY_ARCHIVE if is_binary else data.ARCHIVE).name
    else:
        publish(monkeypatch, CONTENT, files)
        for file, bytes_of_it in files.items():
            place(folder / within, bytes_of_it, file)
        where = within if "SHA-256" in message else name
    before = everything_below(folder)
    text = error_of(monkeypatch, download=False)
    assert re.search(rf"{where} {message}", text), text
    assert everything_below(folder) == before


# ------------------------------------------------------------------------------------------- the cache


def other_bytes(path: Path, content: bytes, touch: bool = True) -> None:
    """Change a file in place, and its time of change or not, as a failing disk would."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (10**9 if touch else 0)))


@pytest.mark.parametrize("source", ["archive", "nothing else"])
@pytest.mark.parametrize(
    "damage", ["cut short", "empty", "flipped byte", "gone", "garbage manifest", "list manifest", "empty manifest"]
)
def test_damaged_cache_is_found_and_rebuilt(folder, mirror, monkeypatch, damage, source):
    place(folder, CONTENT, data.ARCHIVE)
    load(monkeypatch)
    cache = data._cache_folder()
    array, manifest = cache / "test_images.npy", cache / "manifest.json"
    right = array.read_bytes()
    if source == "nothing else":
        (folder / data.ARCHIVE).unlink()
    if "manifest" in damage:
        other_bytes(manifest, {"g": b"\xff{", "l": b"[]", "e": b""}[damage[0]])
    elif damage == "gone":
        array.unlink()
    else:
        other_bytes(array, {"c": right[:-100], "e": b"", "f": flipped(right, 0.9)}[damage[0]])
    only = mirror()
    load(monkeypatch, only)  # compares every array
    gc.collect()
    assert_complete(folder)
    assert array.read_bytes() == right
    assert len(only.requests) == (source == "nothing else")
    monkeypatch.setattr(data, "_read", None)
    load(monkeypatch)


def test_cache_that_was_only_touched_is_hashed_once_and_kept(folder, monkeypatch):
    place(folder, CONTENT, data.ARCHIVE)
    load(monkeypatch)
    array = data._cache_folder() / "test_images.npy"
    other_bytes(array, array.read_bytes())
    monkeypatch.setattr(data, "_read", None)
    load(monkeypatch)
    monkeypatch.setattr(data, "_hashes", None)
    load(monkeypatch)


def test_arrays_from_the_cache_can_be_changed_in_memory_and_no_file_is(folder, monkeypatch):
    place(folder, CONTENT, data.ARCHIVE)
    load(monkeypatch)
    cifar = load(monkeypatch)
    before = {path.name: md5(path.read_bytes()) for path in data._cache_folder().iterdir()}
    assert type(cifar.train_images) is np.ndarray
    cifar.train_images[:] = 0
    del cifar
    load(monkeypatch)
    assert {path.name: md5(path.read_bytes()) for path in data._cache_folder().iterdir()} == before


def test_source_that_has_changed_since_is_read_again(folder, monkeypatch, capsys):
    archive = place(folder, CONTENT, data.ARCHIVE)
    load(monkeypatch)
    other_bytes(archive, flipped(CONTENT))
    assert f"{data.ARCHIVE} is damaged" in error_of(monkeypatch, root=folder, download=False)
    assert load(monkeypatch).source == "./data (arrays verified earlier)"
    assert f"{data.ARCHIVE} is damaged" in capsys.readouterr().out


def test_cache_serves_two_sources_of_the_same_arrays_and_can_be_left_off(folder, monkeypatch, tmp_path):
    shelf = tmp_path / "shelf"
    place(folder, CONTENT, data.ARCHIVE)
    load(monkeypatch, cache=False)
    assert not data._cache_folder().exists()
    place(shelf, CONTENT, data.ARCHIVE)
    load(monkeypatch)
    load(monkeypatch, root=shelf)
    monkeypatch.setattr(data, "_read", None)
    assert load(monkeypatch).source == "./data beside the notebooks"
    assert load(monkeypatch, root=shelf).source == "the folder you named"


# -------------------------------------------------------------------------------------- every container


@pytest.mark.parametrize(
    "name",
    [
        "cifar-10-python.tar.gz",
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-py-target_archive",
        "cifar-10-batches-py_archive",
        "cifar-10-batches-py.tar.gz",
    ],
)
@pytest.mark.parametrize("keras", [True, False], ids=["Keras's cache", "root"])
def test_archive_is_found_under_each_of_its_names(folder, monkeypatch, tmp_path, name, keras):
    content = archive_of(fake_binary_files(), data.BINARY_FOLDER) if name == data.BINARY_ARCHIVE else CONTENT
    shelf = tmp_path / "home" / ".keras" / "datasets" if keras else tmp_path / "shelf"
    place(shelf, content, name)
    assert load(monkeypatch, root=None if keras else shelf).source == (
        "Keras's cache" if keras else "the folder you named"
    )
    assert [path.name for path in shelf.iterdir()] == [name]


def test_binary_folder_is_read_and_checked(folder, monkeypatch, tmp_path):
    for name, content in fake_binary_files().items():
        place(tmp_path / "shelf" / data.BINARY_FOLDER, content, name)
    for root in (tmp_path / "shelf", tmp_path / "shelf" / data.BINARY_FOLDER):
        load(monkeypatch, root=root, cache=False)
    path = tmp_path / "shelf" / data.BINARY_FOLDER / "test_batch.bin"
    other_bytes(path, flipped(path.read_bytes()))
    assert "are not CIFAR-10's: expected the official SHA-256 of each." in error_of(
        monkeypatch, root=tmp_path / "shelf", download=False
    )


def test_archive_beside_an_incomplete_folder_serves_without_a_word(folder, monkeypatch, capsys):
    place(folder, CONTENT, data.ARCHIVE)
    for name in FILES[:3]:
        place(folder / data.FOLDER, fake_files()[name], name)
    load(monkeypatch, download=False)
    assert capsys.readouterr().out == ""
    read, times = data._read, []
    monkeypatch.setattr(data, "_read", lambda source, verify: times.append(source.path.name) or read(source, verify))
    load(monkeypatch, download=False)
    assert times == [data.FOLDER], "the cache of the archive's arrays was thrown away"


# ------------------------------------------------------------------------------------ CIFAR10_URL


@pytest.mark.parametrize("kind", ["http", "path", "file://", "relative path"])
def test_own_mirror_is_used_alone_while_it_serves(folder, mirror, monkeypatch, tmp_path, capsys, kind):
    own, public = mirror(), mirror()
    file = place(tmp_path / "working", CONTENT, "mine.tar.gz")
    address = {"http": own.url, "path": str(file), "file://": file.as_uri(), "relative path": "mine.tar.gz"}[kind]
    monkeypatch.setenv("CIFAR10_URL", address)
    cifar = load(monkeypatch, public)
    assert_complete(folder)
    assert public.requests == []
    assert own.requests == ([0] if kind == "http" else [])
    name = own.name if kind == "http" else "the file mine.tar.gz"
    assert cifar.source == f"./data beside the notebooks (downloaded from {name})"
    assert f"MB from {name} in" in capsys.readouterr().out


@pytest.mark.parametrize(
    "kind", ["dead", "too slow", "404", "breaking off", "no such file", "too short a file", "altered file"]
)
def test_own_mirror_that_does_not_serve_gives_way_to_the_others(folder, mirror, monkeypatch, tmp_path, capsys, kind):
    faults = {"dead": Fault(refuses=True), "404": Fault(status=404), "breaking off": Fault(cut_at=PART)}
    public = mirror()
    if kind == "too slow":
        monkeypatch.setattr(download, "SLOW_SECONDS", 0.4)
        own = mirror(Fault(rate=20_000, rate_from=PART))
    else:
        own = mirror(faults.get(kind))
    file = tmp_path / "mine.tar.gz"
    if kind.endswith("file") and kind != "no such file":
        file.write_bytes(CONTENT[:-1] if kind == "too short a file" else flipped(CONTENT))
    monkeypatch.setenv("CIFAR10_URL", str(file) if kind.endswith("file") else own.url)
    assert public.name in load(monkeypatch, public).source
    assert_complete(folder, damaged=(flipped(CONTENT),) if kind == "altered file" else ())
    if kind in ("too slow", "breaking off"):
        assert public.requests[0] >= PART - 2 * download.PIECE
        assert public.sent[0] == SIZE - public.requests[0]
    else:
        assert public.requests == [0]
    if kind == "altered file":
        assert "(from the file mine.tar.gz); set aside as" in capsys.readouterr().out


@pytest.mark.parametrize(
    "address",
    [
        "http://user:secret@{server}/file.tar.gz?token=secret",
        "http://user:secret@{dead}/file.tar.gz?token=secret",
        "ftp://user:secret@{server}/file.tar.gz?token=secret",
        "http://user:secret@127.0.0.1:99999/file.tar.gz?token=secret",
        "http://user:secret@127.0.0.1:port/file.tar.gz?token=secret",
        "http://user:secret@/file.tar.gz?token=secret",
        "http://user:secret@[::1/file.tar.gz?token=secret",
    ],
)
@pytest.mark.parametrize("serves", [True, False])
def test_credential_in_an_address_does_not_show(folder, mirror, monkeypatch, capsys, address, serves):
    server, dead = mirror(None if serves else Fault(status=404)), mirror(Fault(refuses=True))
    address = address.format(server=server.name, dead=dead.name)
    monkeypatch.setenv("CIFAR10_URL", address)
    if serves:
        text = load(monkeypatch, server).source
        assert_complete(folder)
        text += (folder / data.ORIGIN).read_text(encoding="utf-8")
    else:
        text = error_of(monkeypatch, server)
        assert text.count("\n  ") >= 2, "own mirror and the other are named with their reasons"
        assert_resumable(folder)
    said = capsys.readouterr()
    assert "secret" not in text + said.out + said.err
    if address.startswith("http://user:secret@127.0.0.1") and serves and server.name in address:
        assert server.headers[0]["Authorization"].startswith("Basic ")


# ---------------------------------------------------------------------------- damaged files in place


@pytest.mark.parametrize(
    "content", [CONTENT[:-1], CONTENT + b"\0", b"", flipped(CONTENT)], ids=["short", "long", "empty", "flipped byte"]
)
def test_damaged_archive_in_place_is_set_aside_and_fetched_again(folder, mirror, monkeypatch, capsys, content):
    place(folder, content, data.ARCHIVE)
    text = error_of(monkeypatch, download=False)
    expected = (
        f"{data.ARCHIVE} is damaged: {len(content):,} bytes with MD5 {md5(content)}, "
        f"expected {SIZE:,} bytes with MD5 {md5(CONTENT)}"
    )
    assert expected in text
    assert (folder / data.ARCHIVE).read_bytes() == content
    load(monkeypatch, mirror())
    assert_complete(folder, damaged=(content,))
    assert f"{expected}; set aside as {data.ARCHIVE}.damaged." in capsys.readouterr().out


def test_mirror_with_flipped_bytes_is_found_out_and_another_serves(folder, mirror, monkeypatch, capsys):
    bad, good = mirror(content=flipped(CONTENT)), mirror(Fault(hang_at=-1, times=1))
    load(monkeypatch, bad, good)
    assert_complete(folder, damaged=(flipped(CONTENT),))
    assert (
        f"{data.ARCHIVE}.part is damaged: {SIZE:,} bytes with MD5 {md5(flipped(CONTENT))}, expected {SIZE:,} bytes "
        f"with MD5 {md5(CONTENT)} (from {bad.name}); set aside as {data.ARCHIVE}.damaged; fetching it again."
    ) in capsys.readouterr().out
    assert bad.requests == [0]


def test_mirror_with_flipped_bytes_is_asked_again_where_the_others_are_gone(folder, mirror, monkeypatch):
    gone, once = mirror(Fault(status=404)), mirror(Fault(content=flipped(CONTENT), times=1))
    load(monkeypatch, gone, once)
    assert_complete(folder, damaged=(flipped(CONTENT),))
    assert once.requests == [0, 0]


@pytest.mark.parametrize("count", [1, 2])
def test_flipped_bytes_on_all_mirrors_stop_after_the_second_time(folder, mirror, monkeypatch, capsys, count):
    mirrors = [mirror(content=flipped(CONTENT)) for _ in range(count)]
    text = error_of(monkeypatch, *mirrors)
    assert f"with MD5 {md5(flipped(CONTENT))}, expected {SIZE:,} bytes with MD5 {md5(CONTENT)} (from 127.0.0.1" in text
    assert f"set aside as {data.ARCHIVE}.damaged-2. It was the second in a row: something alters the file" in text
    assert "; fetching it again." in capsys.readouterr().out
    assert_resumable(folder, damaged=(flipped(CONTENT), flipped(CONTENT)))
    assert_ways_out(text)
    load(monkeypatch, mirror())
    assert_complete(folder, damaged=(flipped(CONTENT), flipped(CONTENT)))


@pytest.mark.parametrize("named_root", [True, False])
def test_damaged_file_of_a_folder_is_set_aside_and_the_archive_fetched(
    folder, mirror, monkeypatch, capsys, tmp_path, named_root
):
    shelf = tmp_path / "shelf" if named_root else folder
    root = shelf if named_root else None
    files = fake_files() | {"data_batch_3": flipped(fake_files()["data_batch_3"])}
    for name, content in files.items():
        place(shelf / data.FOLDER, content, name)
    wrong = (
        f"data_batch_3 is altered: its MD5 is {md5(files['data_batch_3'])}, expected {data.FILE_MD5['data_batch_3']}"
    )
    assert wrong in error_of(monkeypatch, root=root, download=False)
    only = mirror()
    load(monkeypatch, only, root=root)
    assert_complete(shelf)
    said = capsys.readouterr().out
    assert wrong in said
    assert "data_batch_3 is set aside as data_batch_3.damaged." in said
    assert (shelf / data.FOLDER / "data_batch_3.damaged").read_bytes() == files["data_batch_3"]
    assert not (shelf / data.FOLDER / "data_batch_3").exists()
    assert len(everything_below(shelf / data.FOLDER)) == 7
    load(monkeypatch, only, root=root)
    assert only.requests == [0]


def test_damaged_file_in_a_place_that_is_not_ours_is_left_alone(folder, mirror, monkeypatch, tmp_path):
    keras = tmp_path / "home" / ".keras" / "datasets"
    place(keras, flipped(CONTENT), "cifar-10-batches-py_archive")
    load(monkeypatch, mirror())
    assert_complete(folder)
    assert [path.name for path in keras.iterdir()] == ["cifar-10-batches-py_archive"]


# ------------------------------------------------------------------------------------ the command line


def assert_ways_out(text: str) -> None:
    """Three, each with its command."""
    assert re.search(rf"curl -L -C - --create-dirs -o '.*{data.ARCHIVE}' 'https?://", text)
    assert "export CIFAR10_ROOT=/its/path, or CIFAR10_URL=" in text
    assert "export CIFAR10_ROOT=stand-in, or DATA_ROOT =" in text


def command(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["helpers.data", *map(str, arguments)])
    status = data.main()
    said = capsys.readouterr()
    return status, said.out.replace("\r", "\n"), said.err


@pytest.mark.parametrize("named_root", [True, False])
def test_command_fetches_and_says_where_which_from_whom_and_how_fast(
    folder, mirror, monkeypatch, capsys, tmp_path, named_root
):
    shelf, arguments = (tmp_path / "shelf", ["--root", tmp_path / "shelf"]) if named_root else (folder, [])
    only = mirror()
    monkeypatch.setattr(data, "MIRRORS", (only.url,))
    for fetched in (True, False):
        status, out, err = command(monkeypatch, capsys, *arguments)
        assert status == 0
        assert ("Downloaded into" in out) == fetched
        assert re.search(rf"^sha256:{data._fingerprint(data.ARRAY_SHA256)[7:]}$", out, re.MULTILINE)
        assert f"\nWhere: {shelf / data.ARCHIVE}\n" in out
        assert re.search(
            rf"^Served by: 0\.2 MB from {only.name} in \d+\.\d s \(.* MB/s\), 20\d\d-\d\d-\d\d$", out, re.M
        )
        assert "official, SHA-256 checked" in out
        assert err == ""
    assert_complete(shelf)
    assert only.requests == [0]


def test_command_names_the_place_that_served_and_not_a_damaged_one(folder, mirror, monkeypatch, capsys):
    for name, content in (fake_files() | {"data_batch_3": b"damaged"}).items():
        place(folder / data.FOLDER, content, name)
    monkeypatch.setattr(data, "MIRRORS", (mirror().url,))
    for _ in range(2):
        status, out, _ = command(monkeypatch, capsys)
        assert status == 0
        assert f"Where: {folder / data.ARCHIVE}\n" in out


@pytest.mark.parametrize("named_root", [True, False])
def test_check_finds_a_damaged_file_with_1_and_fetches_nothing(
    folder, mirror, monkeypatch, capsys, tmp_path, named_root
):
    shelf, arguments = (tmp_path / "shelf", ["--root", tmp_path / "shelf"]) if named_root else (folder, [])
    only = mirror()
    monkeypatch.setattr(data, "MIRRORS", (only.url,))
    status, out, err = command(monkeypatch, capsys, "--check", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("no CIFAR-10 in" if named_root else "CIFAR-10 was not found.\n")
    assert_ways_out(err)

    archive = place(shelf, CONTENT, data.ARCHIVE)
    assert command(monkeypatch, capsys, *arguments)[0] == 0  # writes the cache
    status, out, err = command(monkeypatch, capsys, "--check", *arguments)
    assert (status, err) == (0, "")
    assert f"Where: {archive}\n" in out
    assert "The cached arrays are as published, too." in out

    other_bytes(archive, flipped(CONTENT), touch=False)  # what the cache would not see, the check does
    status, out, err = command(monkeypatch, capsys, "--check", *arguments)
    assert status == 1
    assert f"{archive} is damaged: {SIZE:,} bytes with MD5 {md5(flipped(CONTENT))}, expected" in err
    assert archive.read_bytes() == flipped(CONTENT)
    assert only.requests == []


def test_check_reads_the_cached_arrays_whatever_their_time_of_change(folder, monkeypatch, capsys):
    place(folder, CONTENT, data.ARCHIVE)
    load(monkeypatch)
    array = data._cache_folder() / "train_images.npy"
    other_bytes(array, flipped(array.read_bytes(), 0.9), touch=False)
    for _ in range(2):  # it changes nothing
        status, _, err = command(monkeypatch, capsys, "--check")
        assert status == 1
        assert err == f"{data._cache_folder()} is damaged: its arrays are not the published ones. Delete that folder.\n"


def test_altered_cache_without_a_source_is_named(folder, monkeypatch, capsys):
    archive = place(folder, CONTENT, data.ARCHIVE)
    load(monkeypatch)
    archive.unlink()
    load(monkeypatch, download=False)
    array = data._cache_folder() / "train_images.npy"
    other_bytes(array, flipped(array.read_bytes(), 0.9), touch=True)
    capsys.readouterr()
    assert error_of(monkeypatch, download=False).startswith("CIFAR-10 was not found.")
    assert "The arrays kept in ./data are damaged (their SHA-256 is not the published one)" in capsys.readouterr().out


def test_damaged_file_stays_in_place_where_the_download_fails(folder, mirror, monkeypatch, capsys):
    for name in FILES:
        place(folder / data.FOLDER, fake_files()[name][: -10 if name == "data_batch_3" else None], name)
    error_of(monkeypatch, mirror(Fault(status=404)))
    assert (folder / data.FOLDER / "data_batch_3").exists()
    assert "data_batch_3 is altered" in capsys.readouterr().out


def test_own_file_with_other_bytes_is_given_up_and_named(folder, mirror, monkeypatch, tmp_path):
    monkeypatch.setenv("CIFAR10_URL", str(place(tmp_path / "shelf", flipped(CONTENT), "mine.tar.gz")))
    text = error_of(monkeypatch, mirror(Fault(status=404)))
    assert f"the file mine.tar.gz: it is not the archive, whose MD5 is {md5(CONTENT)}" in text
    assert "HTTP 404" in text
    assert len(list(folder.glob("*.damaged*"))) == 1


def test_own_folder_is_no_archive(folder, mirror, monkeypatch, tmp_path):
    monkeypatch.setenv("CIFAR10_URL", str(tmp_path))
    assert "it is a folder, expected the archive" in error_of(monkeypatch, mirror(Fault(status=404)))


def test_empty_name_and_missing_parent_are_named(folder, monkeypatch, tmp_path):
    assert error_of(monkeypatch, root="").startswith("the folder's name is empty")
    text = error_of(monkeypatch, root=tmp_path / "no" / "such")
    assert f"{tmp_path / 'no'} does not exist (a drive that is not mounted?)" in text
    assert not (tmp_path / "no").exists()


def test_file_as_root_is_not_downloaded_over(folder, mirror, monkeypatch, tmp_path):
    page = place(tmp_path / "shelf", b"not an archive", "page.html")
    only = mirror()
    assert f"{page} is damaged" in error_of(monkeypatch, only, root=page)
    assert only.requests == []


def test_nothing_is_left_where_nothing_came(folder, mirror, monkeypatch):
    error_of(monkeypatch, mirror(Fault(status=404)))
    assert not list(folder.glob("*.part"))


def test_person_without_a_home_folder_gets_no_traceback(folder, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where there is none
    place(folder, CONTENT, data.ARCHIVE)
    load(monkeypatch, download=False)


def test_module_runs_as_a_command_and_a_person_sees_no_traceback(folder, tmp_path):
    """The real command, with the published hashes: the small archive is not the official one."""
    place(tmp_path / "shelf", CONTENT, data.ARCHIVE)
    run = subprocess.run(
        [sys.executable, "-m", "helpers.data", "--check", "--root", str(tmp_path / "shelf")],
        cwd=CODE, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    assert (
        f"is damaged: {SIZE:,} bytes with MD5 {md5(CONTENT)}, expected 170,498,071 bytes with MD5 c58f3010"
        in run.stderr
    )
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("root", [None, "empty"])
def test_not_found_has_three_ways_out_with_commands(folder, monkeypatch, tmp_path, root):
    assert_ways_out(error_of(monkeypatch, root=root and tmp_path / root, download=False))
