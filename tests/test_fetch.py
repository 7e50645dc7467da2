"""helpers.fetch: mirrors that misbehave, broken downloads that go on, and what is left on the disk is sound."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from helpers import data, fetch
from helpers.files import REPOSITORY
from tests.servers import CONTENT, PATIENCE, Fault, Mirror, flipped, md5, publish

SIZE, HALF = len(CONTENT), len(CONTENT) // 2


@pytest.fixture
def mirror():
    """Makes servers, which end with the test."""
    with contextlib.ExitStack() as made:
        yield lambda fault=None: made.enter_context(Mirror(fault))


@pytest.fixture
def folder(elsewhere, monkeypatch) -> Path:
    """Where this machine, which has nothing yet, keeps CIFAR-10; the small one is the official data set."""
    publish(monkeypatch)
    return elsewhere / "repository" / "data"


def load(folder: Path, *mirrors: Mirror, root: Path | None = None) -> data.Cifar10:
    """CIFAR-10 from these mirrors, with nothing left behind that should not be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "MIRRORS", tuple(one.url for one in mirrors))
        cifar = data.load_cifar10(root)
    assert sorted(path.name for path in (root or folder).iterdir()) == [data.FOLDER, fetch.ARCHIVE]
    return cifar


def error_of(folder: Path, *mirrors: Mirror, root: Path | None = None) -> str:
    with pytest.raises(data.DataError) as caught:
        load(folder, *mirrors, root=root)
    return str(caught.value)


def arrived(folder: Path) -> int:
    """How many bytes lie there, all of them the archive's, and nothing else."""
    part = folder / f"{fetch.ARCHIVE}.part"
    if not folder.exists():
        return 0
    assert list(folder.iterdir()) == [part]
    assert CONTENT.startswith(part.read_bytes())
    return part.stat().st_size


def test_the_first_that_serves_is_taken_and_it_says_who(folder, mirror, capfd):
    gone, there, spare = mirror(Fault(refuses=True)), mirror(), mirror()
    assert load(folder, gone, there, spare).source == f"./data beside the notebooks (downloaded from {there.name})"
    assert (there.requests, spare.requests) == ([0], [])
    said = capfd.readouterr()
    assert there.name in said.out
    assert said.err == ""
    assert max(map(len, re.split("[\r\n]", said.out))) <= 96
    assert load(folder).source == "./data beside the notebooks", "it is fetched once"


FAULTS = {  # what each does, and how the message names it
    "refuses": (Fault(refuses=True), "refused"),
    "hangs before the headers": (Fault(hangs_at=0), r"no byte for 0\.5 s"),
    "hangs in the middle": (Fault(hangs_at=HALF), r"no byte for 0\.5 s"),
    "status": (Fault(status=404), "HTTP 404 Not Found"),
    "web page": (Fault(headers={"Content-Type": "text/html"}), "HTTP 200 OK .text/html"),
    "wrong length": (Fault(headers={"Content-Length": "999"}), f"OK .999 bytes., expected {SIZE:,}"),
    "breaks off": (Fault(cuts_at=HALF), "broke|reset|abort|IncompleteRead|no way leads there"),
    "ends early": (Fault(content=b"<html>", headers={"Content-Length": ""}), "it ended after 6 bytes"),
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.values(), ids=FAULTS)
def test_faulty_mirrors_are_named_and_a_sound_one_goes_on(folder, mirror, monkeypatch, fault, message):
    mirrors = [mirror(fault), mirror(fault)]
    with monkeypatch.context() as patch:
        if "no byte" in message:
            patch.setattr(fetch, "STALL_SECONDS", 0.5)
        text = error_of(folder, *mirrors)
    assert text.startswith("CIFAR-10 was not found, and the download failed: no mirror served it.\n")
    for one in mirrors:
        assert re.search(rf"^  {re.escape(one.name)}: .*({message})", text, re.MULTILINE), text
    assert "curl -L -C - --create-dirs -o '" in text
    came = arrived(folder)
    assert (came > 0) == ("have arrived are kept" in text)
    assert came or not fault.cuts_at
    sound = mirror()
    load(folder, *([] if fault.hangs_at is not None else [mirror(fault)]), sound)
    assert sound.requests[0] >= came, "it does not go on where it was"


PARTS = {  # how the mirror behaves, where the part ends, and the bytes that are asked for
    "half is there": (Fault(), HALF, [HALF]),
    "Range is ignored": (Fault(ranges=False), HALF, [HALF]),
    "says it is encoded": (Fault(headers={"Content-Encoding": "gzip", "Content-Length": ""}), HALF, [HALF]),
    "complete": (Fault(), SIZE, []),
    "too long": (Fault(), SIZE + 10, [0]),
    "breaks off after a lot": (Fault(cuts_at=HALF, times=1), 0, [0, HALF]),
}


@pytest.mark.parametrize(("fault", "begun", "asked"), PARTS.values(), ids=PARTS)
def test_part_goes_on_at_its_end(folder, mirror, fault, begun, asked):
    folder.mkdir()
    (folder / f"{fetch.ARCHIVE}.part").write_bytes((CONTENT + bytes(10))[:begun])
    load(folder, only := mirror(fault))
    assert only.requests == asked


def test_slow_mirror_is_replaced_at_the_same_byte_and_where_all_are_slow_one_goes_on(folder, mirror, monkeypatch):
    first, second, ticks = mirror(), mirror(), itertools.count(step=PATIENCE / 5)
    monkeypatch.setattr(fetch, "time", SimpleNamespace(monotonic=lambda: next(ticks)))  # each piece seems to take long
    monkeypatch.setenv("CIFAR10_URL", first.url)  # so it is asked first
    load(folder, second)
    assert 0 < second.requests[0] < SIZE
    assert len(first.requests + second.requests) <= 4, "it goes to and fro"


def test_flipped_bytes_are_found_out_and_another_mirror_is_asked(folder, mirror, monkeypatch, capsys):
    bad, good = mirror(Fault(content=flipped(CONTENT))), mirror()
    monkeypatch.setenv("CIFAR10_URL", bad.url)  # so it is asked first
    found = f"expected md5:{md5(CONTENT)} but got {md5(flipped(CONTENT))} (from {bad.name})"
    assert f"{found}, the second in a row" in error_of(folder, bad)
    assert not folder.exists()
    assert load(folder, good).source.endswith(f"(downloaded from {good.name})")
    assert capsys.readouterr().out.count(f"{found}; fetching it again.") == 2


def test_interrupt_keeps_what_has_arrived(folder, mirror, monkeypatch):
    only = mirror()

    def interrupt(bar, n):
        if bar.n > HALF:
            raise KeyboardInterrupt
        bar.n += n

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tqdm, "update", interrupt)
        load(folder, only)
    came = arrived(folder)
    assert came > HALF
    load(folder, only)
    assert only.requests == [0, came]


CHILD = """
import sys, pathlib, pytest
from helpers import data, fetch
from tests import servers
servers.publish(pytest.MonkeyPatch())
data.REPOSITORY, fetch.MIRRORS = pathlib.Path(sys.argv[1]), sys.argv[2:]
assert data.load_cifar10().official
"""


@pytest.mark.parametrize("first_is", ["killed", "served"])
def test_of_two_processes_one_fetches_and_the_other_waits(folder, mirror, tmp_path, first_is):
    """And takes over at the byte that was reached, where the first is killed."""
    only, part = mirror(Fault(hangs_at=HALF, times=1)), folder / f"{fetch.ARCHIVE}.part"
    said = tmp_path / "said.txt"

    def child() -> subprocess.Popen:
        command = [sys.executable, "-u", "-c", CHILD, str(data.REPOSITORY), only.url]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        with said.open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)

    def wait_until(condition) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, said.read_text()
            time.sleep(0.01)

    first = child()
    wait_until(lambda: part.exists() and part.stat().st_size > HALF - 16_384)
    second = child()
    wait_until(lambda: "another process is fetching or unpacking it" in said.read_text())
    assert only.requests == [0]
    if first_is == "killed":
        first.kill()
    else:
        only.release.set()  # ends the answer that hangs; the first process goes on at its byte
        assert first.wait(PATIENCE) == 0, said.read_text()
    assert second.wait(PATIENCE) == 0, said.read_text()
    assert len(only.requests) == 2
    assert only.requests[1] > HALF - 16_384
    assert {path.name for path in folder.iterdir()} <= {data.FOLDER, fetch.ARCHIVE, f"{fetch.ARCHIVE}.lock"}


@pytest.mark.parametrize(
    ("address", "serves"),
    [("{own}", True), ("{here}/mine.tar.gz", True), ("file://{here}/mine.tar.gz", True), ("mine.tar.gz", True),
     ("{gone}", False), ("no-such.tar.gz", False), ("altered.tar.gz", False), ("short.tar.gz", False), (".", False)],
)  # fmt: skip
def test_own_mirror_is_used_alone_while_it_serves(folder, mirror, monkeypatch, address, serves):
    own, gone, public = mirror(), mirror(Fault(status=404)), mirror()
    for name, content in {"mine": CONTENT, "altered": flipped(CONTENT), "short": CONTENT[:-1]}.items():
        Path(f"{name}.tar.gz").write_bytes(content)
    monkeypatch.setenv("CIFAR10_URL", address.format(own=own.url, gone=gone.url, here=Path.cwd().as_posix()))
    name = public.name if not serves else own.name if address == "{own}" else "the file mine.tar.gz"
    assert f"{name})" in load(folder, public).source
    assert (public.requests == []) == serves


@pytest.mark.parametrize("address", ["http://{}@{}", "http://{}@127.0.0.1:port", "http://{}@[::1", "ftp://{}@{}"])
def test_credential_in_an_address_does_not_show(folder, mirror, monkeypatch, capfd, address):
    gone = mirror(Fault(status=404))
    monkeypatch.setenv("CIFAR10_URL", f"{address.format('user:secret', gone.name)}/file.tar.gz?token=secret")
    text = error_of(folder, gone)
    assert "secret" not in text + "".join(capfd.readouterr())


@pytest.mark.parametrize(("name", "why"), [("helpers.fetch.open", "No space left"), ("os.mkdir", "Permission denied")])
def test_folder_that_cannot_be_written_is_named(folder, mirror, monkeypatch, name, why):
    def refuse(path, *_, **__):
        raise OSError(1, why, str(path))

    monkeypatch.setattr(name, refuse, raising=False)
    assert f"the download failed: {folder} cannot be written ({why})." in error_of(folder, mirror())


def test_a_folder_that_is_named_must_be_there_and_the_default_one_is_made_only_for_what_comes(folder, mirror, tmp_path):
    for root in (tmp_path / "mistyped", tmp_path / "no" / "such"):
        assert "there is no such folder" in error_of(folder, mirror(), root=root)
        assert not root.exists()
    new = tmp_path / "new"
    with pytest.raises(fetch.FetchError), fetch._alone(new):
        raise fetch.FetchError("no mirror served it")
    assert not new.exists()
