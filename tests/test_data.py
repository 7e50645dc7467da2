"""helpers.data: reading, checking and refusing files; splits and subsets; the stand-in; where outputs may go."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

from helpers import data
from tests.servers import FILES, archive_of, assert_is_the_fake, batch, fake_files, write_folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that reaches for the network fails instead."""

    def refuse(*_):
        raise AssertionError("a test opened a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write_archive(parent: Path) -> Path:
    """`cifar-10-python.tar.gz` below `parent`, made of `write_folder`'s files."""
    (parent / data.ARCHIVE).write_bytes(archive_of(fake_files()))
    return parent / data.ARCHIVE


# ------------------------------------------------------------------------------------ reading folders


def test_reads_the_folder_above_and_the_folder_itself(tmp_path):
    folder = write_folder(tmp_path)
    above, itself = (data.load_cifar10(root, verify=False, download=False) for root in (tmp_path, str(folder)))
    assert_is_the_fake(above)
    assert_is_the_fake(itself)
    assert not above.official
    assert above.name == "CIFAR-10 (altered)"
    assert above.class_names == data.CLASS_NAMES
    assert above.fingerprint == itself.fingerprint
    assert above.fingerprint.startswith("sha256:")


def test_fingerprint_depends_on_every_array(tmp_path):
    cifar = data.load_cifar10(write_folder(tmp_path), verify=False)
    arrays = [cifar.train_images, cifar.train_labels, cifar.test_images, cifar.test_labels]
    fingerprints = {cifar.fingerprint}
    for changed in range(4):
        copies = [a.copy() for a in arrays]
        copies[changed].flat[0] ^= 1
        fingerprints.add(data.from_arrays(*copies).fingerprint)
    assert len(fingerprints) == 5


@pytest.mark.parametrize("gone", ["data_batch_1", "data_batch_3", "test_batch"])
def test_missing_file_is_named_with_the_expected_ones(tmp_path, gone):
    folder = write_folder(tmp_path)
    (folder / gone).unlink()
    with pytest.raises(
        data.DataError, match=rf"is incomplete: {gone} missing; expected data_batch_1, .*, test_batch\."
    ):
        data.load_cifar10(tmp_path, verify=False, download=False)


def test_altered_file_is_named_with_the_md5_found_and_expected(tmp_path):
    folder = write_folder(tmp_path)
    found = hashlib.md5((folder / "data_batch_1").read_bytes()).hexdigest()
    with pytest.raises(data.DataError) as caught:
        data.load_cifar10(tmp_path, download=False)
    assert f"data_batch_1 is altered: its MD5 is {found}, expected c99cafc152244af753f735de768cd75f." in str(
        caught.value
    )
    assert "verify=False" in str(caught.value)


def test_one_altered_byte_of_the_real_data_is_found(cifar, tmp_path):
    places = [place / sub for place, _ in data._places(None) for sub in (data.FOLDER, ".")]
    real = next((p for p in places if all((p / name).is_file() for name in FILES)), None)
    if real is None:
        pytest.skip("CIFAR-10 was read from its archive, not from a folder")
    for name in FILES:
        if name == "data_batch_4":
            content = bytearray((real / name).read_bytes())
            content[len(content) // 2] ^= 1  # one pixel, by one grey level: the file still reads
            (tmp_path / name).write_bytes(content)
        else:
            shutil.copy(real / name, tmp_path / name)
    with pytest.raises(data.DataError, match=r"data_batch_4 is altered: its MD5 is [0-9a-f]{32}, expected 634d1841"):
        data.load_cifar10(tmp_path, download=False)
    altered = data.load_cifar10(tmp_path, verify=False)
    assert not altered.official
    assert altered.name == "CIFAR-10 (altered)"
    assert "NOT the official arrays" in repr(altered)
    assert (altered.train_images != cifar.train_images).sum() == 1


def bad(**changes) -> bytes:
    return pickle.dumps(batch(0) | {key.encode(): value for key, value in changes.items()}, protocol=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bad(labels=[3] * 19 + [10]), r"data_batch_2 has labels from 3 to 10: expected 0 to 9"),
        (bad(labels=[3] * 19 + [-1]), r"data_batch_2 has labels from -1 to 3: expected 0 to 9"),
        (
            bad(labels=[3] * 19),
            r"data_batch_2 holds uint8 \(20, 3072\) and 19 labels: expected uint8 \(n, 3072\) and n",
        ),
        (bad(data=np.zeros((20, 3071), np.uint8)), r"data_batch_2 holds uint8 \(20, 3071\) and 20 labels"),
        (bad(data=np.zeros((20, 32, 32, 3), np.uint8)), r"data_batch_2 holds uint8 \(20, 32, 32, 3\)"),
        (bad(data=np.zeros((20, 3072), np.float32)), r"data_batch_2 holds float32 \(20, 3072\)"),
        (bad(data=[1, 2, 3]), r"data_batch_2 holds int64 \(3,\)"),
        (pickle.dumps({b"labels": []}), r"data_batch_2 is not a CIFAR-10 file"),
        (pickle.dumps([1, 2]), r"data_batch_2 is not a CIFAR-10 file"),
        (bad()[:-2000], r"data_batch_2 is not a CIFAR-10 file"),
        (b"<html>404 not found</html>", r"data_batch_2 is not a CIFAR-10 file"),
        (b"", r"data_batch_2 is not a CIFAR-10 file"),
    ],
)
def test_file_that_does_not_hold_images_is_refused(tmp_path, content, message):
    (write_folder(tmp_path) / "data_batch_2").write_bytes(content)
    with pytest.raises(data.DataError, match=message):
        data.load_cifar10(tmp_path, verify=False, download=False)


class Runs:
    """A pickle of it calls `function(*arguments)` when it is read."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("attack", ["os.mkdir", "builtins.eval", "numpy.save"])
def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path, attack, verify):
    folder, marker = write_folder(tmp_path), tmp_path / "it-ran.npy"
    function, *arguments = {
        "os.mkdir": (os.mkdir, str(marker)),
        "builtins.eval": (eval, f"__import__('os').mkdir({str(marker)!r})"),
        "numpy.save": (np.save, str(marker), 1),
    }[attack]
    (folder / "test_batch").write_bytes(pickle.dumps(batch(5) | {b"extra": Runs(function, *arguments)}, protocol=4))
    message = r"is altered: its MD5" if verify else r"test_batch is not a CIFAR-10 file \(it asks for \w+\.\w+"
    with pytest.raises(data.DataError, match=message):
        data.load_cifar10(tmp_path, verify=verify, download=False)
    assert not marker.exists()
    pickle.loads((folder / "test_batch").read_bytes())
    assert marker.exists(), "the attack itself does not work, so this test shows nothing"


# ------------------------------------------------------------------------------------------- archives


def test_archive_is_read_without_writing_anything_beside_it(tmp_path, monkeypatch):
    archive = write_archive(tmp_path)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    for _ in range(2):
        assert_is_the_fake(data.load_cifar10(tmp_path, verify=False, download=False))
    assert [path.name for path in tmp_path.iterdir()] == [data.ARCHIVE]
    archive.rename(tmp_path / "of-another-name.tar.gz")
    assert_is_the_fake(data.load_cifar10(tmp_path / "of-another-name.tar.gz", verify=False, download=False))


def damaged(content: bytes, how: str) -> bytes:
    if how == "cut":
        return content[: len(content) * 3 // 4]
    if how == "cut early":
        return content[:100]
    if how == "overwritten":  # a place from where zlib itself cannot go on
        for place in range(len(content) // 4, len(content), 997):
            changed = content[:place] + b"\xff" * 50 + content[place + 50 :]
            try:
                gzip.decompress(changed)
            except zlib.error:
                return changed
            except (EOFError, gzip.BadGzipFile):
                continue
    if how == "empty":
        return b""
    if how == "another tar":
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            tar.addfile(tarfile.TarInfo("readme.txt"))
        return file.getvalue()
    return b"<html>404 not found</html>"


@pytest.mark.parametrize("how", ["cut", "cut early", "overwritten", "empty", "another tar", "a page"])
def test_damaged_archive_is_named_and_leaves_nothing_behind(tmp_path, how):
    archive = write_archive(tmp_path)
    content = damaged(archive.read_bytes(), how)
    archive.write_bytes(content)
    with pytest.raises(data.DataError) as caught:
        data.load_cifar10(tmp_path, verify=False, download=False)
    if how == "another tar":
        assert f"{archive} is incomplete: {', '.join(FILES)} missing; expected" in str(caught.value)
    else:
        assert f"{archive} is damaged (" in str(caught.value)
        assert f"170,498,071 bytes, found {len(content):,}." in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [data.ARCHIVE]
    assert archive.read_bytes() == content


# --------------------------------------------------------------------------------- where it is looked for


def test_cifar10_root_is_honoured(elsewhere, monkeypatch):
    write_folder(elsewhere / "shelf")
    monkeypatch.setenv("CIFAR10_ROOT", str(elsewhere / "shelf"))
    cifar = data.load_cifar10(verify=False, download=False)
    assert_is_the_fake(cifar)
    assert cifar.source == "$CIFAR10_ROOT"
    assert str(elsewhere) not in repr(cifar)


def test_wrong_cifar10_root_is_named(elsewhere, monkeypatch):
    write_folder(elsewhere / "working" / "data")
    monkeypatch.setenv("CIFAR10_ROOT", str(elsewhere / "nowhere"))
    with pytest.raises(data.DataError, match=r"CIFAR10_ROOT is .*nowhere, and there is no such folder: expected one"):
        data.load_cifar10(verify=False, download=False)


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("working/data", "./data"),
        ("repository/data", "./data beside the notebooks"),
        ("home/.cache/torch/vision/datasets", "torchvision's cache"),
        ("home/data", "~/data"),
        ("home/.keras/datasets", "Keras's cache"),
        ("home/.keras/datasets/cifar-10-batches-py-target", "Keras's cache"),
    ],
)
def test_usual_places_are_searched(elsewhere, place, source):
    write_folder(elsewhere / place)
    cifar = data.load_cifar10(verify=False, download=False)
    assert_is_the_fake(cifar)
    assert cifar.source == source


def test_root_that_is_given_is_the_only_place(elsewhere):
    write_folder(elsewhere / "working" / "data")
    (elsewhere / "empty").mkdir()
    with pytest.raises(data.DataError, match=rf"no CIFAR-10 in .*empty: expected {data.FOLDER}, {data.ARCHIVE} or"):
        data.load_cifar10(elsewhere / "empty", download=False)


def test_not_found_lists_the_places_and_the_ways_out(elsewhere):
    with pytest.raises(data.DataError) as caught:
        data.load_cifar10(download=False)
    message = str(caught.value)
    for expected in ("./data", "torchvision's cache", "~/data", "Keras's cache"):  # the places
        assert f"  {expected}\n" in message
    for expected in (data.ARCHIVE, "CIFAR10_ROOT=", 'DATA_ROOT = "stand-in"'):  # the ways out
        assert expected in message
    assert message.count(str(elsewhere)) == 1  # in the command to copy


def test_an_error_is_an_input_error_shown_without_a_traceback():
    error = data.DataError("this and that")
    assert isinstance(error, data.InputError)
    assert isinstance(error, ValueError)
    assert error._render_traceback_() == ["DataError: this and that"]


def test_command_line_prints_one_error_and_exits_with_1(tmp_path):
    command = [sys.executable, "-m", "helpers.data", "--check", "--root"]
    run = subprocess.run([*command, tmp_path], cwd=data.REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("no CIFAR-10 in")
    assert "Traceback" not in run.stderr


# --------------------------------------------------------------------------------------- the real data


def test_real_data_is_the_official_one(cifar):
    arrays = {
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a": (cifar.train_images, (50_000, 32, 32, 3)),
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253": (cifar.train_labels, (50_000,)),
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04": (cifar.test_images, (10_000, 32, 32, 3)),
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5": (cifar.test_labels, (10_000,)),
    }
    for digest, (array, shape) in arrays.items():
        assert array.shape == shape
        assert array.dtype == np.uint8
        assert hashlib.sha256(array.tobytes()).hexdigest() == digest
    assert cifar.official
    assert cifar.name == "CIFAR-10"
    assert not cifar.is_stand_in
    assert repr(cifar).startswith("CIFAR-10: train (50000, 32, 32, 3), test (10000, 32, 32, 3), uint8; official")


def test_normalisation_constants_are_those_of_the_real_training_set(cifar):
    counts = np.stack([np.bincount(cifar.train_images[..., c].ravel(), minlength=256) for c in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)
    np.testing.assert_allclose(data.MEAN, mean, atol=6e-5)
    np.testing.assert_allclose(data.STD, std, atol=6e-5)


def test_real_data_loads_within_three_seconds(cifar):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        data.load_cifar10(download=False)
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 3:
            break
    assert min(seconds) < 3, f"loading from disk took {min(seconds):.1f} s"


# ------------------------------------------------------------------------------------- arrays of your own


def test_from_arrays_takes_other_classes():
    images = np.zeros((4, 32, 32, 3), np.uint8)
    cifar = data.from_arrays(images, [0, 1, 2, 1], images[:2], [2, 0], class_names=["a", "b", "c"], source="mine")
    assert cifar.class_names == ("a", "b", "c")
    assert cifar.train_labels.dtype == np.uint8
    assert not cifar.official
    assert not cifar.is_stand_in
    assert "from mine" in repr(cifar)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_images": np.zeros((4, 28, 28, 3), np.uint8)},
            r"train images are uint8 \(4, 28, 28, 3\): expected uint8",
        ),
        ({"train_images": np.zeros((4, 3, 32, 32), np.uint8)}, r"train images are uint8 \(4, 3, 32, 32\)"),
        ({"test_images": np.zeros((2, 32, 32, 3))}, r"test images are float64 \(2, 32, 32, 3\)"),
        ({"train_labels": [0, 1, 2]}, r"train labels are int64 \(3,\): expected integers \(4,\)"),
        ({"test_labels": [0.0, 1.0]}, r"test labels are float64 \(2,\): expected integers \(2,\)"),
        ({"test_labels": [0, 10]}, r"test labels run from 0 to 10: expected 0 to 9"),
        ({"train_labels": [0, 1, 2, -1]}, r"train labels run from -1 to 2: expected 0 to 9"),
    ],
)
def test_from_arrays_refuses_what_does_not_fit(change, message):
    images = np.zeros((4, 32, 32, 3), np.uint8)
    right = {
        "train_images": images,
        "train_labels": np.arange(4),
        "test_images": images[:2],
        "test_labels": np.arange(2),
    }
    with pytest.raises(data.DataError, match=message):
        data.from_arrays(**(right | change))


# ------------------------------------------------------------------------------------ splits, subsets

LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 100))
UNEVEN = np.random.default_rng(2).permutation(np.repeat([0, 1, 2], [701, 250, 49]))


@pytest.mark.parametrize("size", [0, 1, 100, 137, 999])
def test_split_is_disjoint_exhaustive_and_ascending(size):
    train, validation = data.split(LABELS, validation_size=size, seed=3)
    assert len(validation) == size
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(1000))
    for part in (train, validation):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def test_split_is_stratified():
    train, validation = data.split(LABELS, validation_size=100)
    np.testing.assert_array_equal(np.bincount(LABELS[validation]), [10] * 10)
    np.testing.assert_array_equal(np.bincount(LABELS[train]), [90] * 10)


def test_split_follows_from_the_seed_alone():
    first, again, other = (data.split(LABELS, validation_size=100, seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != np.arange(100)).any()


@pytest.mark.parametrize(("size", "shown"), [(1000, "1,000"), (60_000, "60,000"), (-1, "-1")])
def test_split_refuses_a_size_that_does_not_fit(size, shown):
    message = rf"validation size {shown} does not fit: expected 0 to 999 of the 1,000 training images"
    with pytest.raises(data.InputError, match=message):
        data.split(LABELS, validation_size=size)


@pytest.mark.parametrize("labels", [LABELS, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("size", [0, 1, 7, 333, 500, 1000])
def test_subset_has_the_exact_size_and_the_proportions_to_one_image(labels, size):
    chosen = data.subset(labels, size=size)
    assert len(chosen) == len(np.unique(chosen)) == size
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(labels[chosen], minlength=labels.max() + 1)
    assert (abs(counts - np.bincount(labels) * size / 1000) < 1).all()


def test_subset_gives_the_last_images_to_the_largest_remainders():
    chosen = data.subset(UNEVEN, size=10)  # shares 7.01, 2.5 and 0.49
    np.testing.assert_array_equal(np.bincount(UNEVEN[chosen], minlength=3), [7, 3, 0])


@pytest.mark.parametrize("size", [-1, 1001])
def test_subset_refuses_a_size_that_does_not_fit(size):
    with pytest.raises(data.InputError, match=rf"a subset of {size:,} does not fit: expected 0 to 1,000 images"):
        data.subset(LABELS, size=size)


# --------------------------------------------------------------------------------------- the stand-in


def test_stand_in_has_the_shapes_of_cifar10_and_says_what_it_is(small):
    assert small.train_images.shape == (4_000, 32, 32, 3)
    assert small.test_images.shape == (1_000, 32, 32, 3)
    assert {a.dtype for a in (small.train_images, small.train_labels, small.test_images, small.test_labels)} == {
        np.dtype(np.uint8)
    }
    assert small.is_stand_in
    assert not small.official
    assert small.name == "stand-in"
    assert small.fingerprint.startswith("stand-in:")
    assert len(small.class_names) == len(set(small.class_names)) == 10
    assert all(name.startswith("stand-in ") for name in small.class_names)
    assert repr(small).startswith("stand-in: train (4000, 32, 32, 3)")
    assert "NOT CIFAR-10" in repr(small)


def test_stand_in_is_balanced_in_both_splits(small):
    np.testing.assert_array_equal(np.bincount(small.train_labels), [400] * 10)
    np.testing.assert_array_equal(np.bincount(small.test_labels), [100] * 10)
    assert (small.train_labels[:20] != np.arange(20) % 10).any(), "classes come in turn, not shuffled"


def test_stand_in_follows_from_the_seed_alone():
    first, again, other = (data.stand_in(300, 100, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.train_images, again.train_images)
    assert first.fingerprint == again.fingerprint
    assert (first.train_images != other.train_images).any()
    assert first.fingerprint != other.fingerprint


def test_stand_in_images_are_all_different(small):
    images = np.concatenate([small.train_images, small.test_images])
    assert len({image.tobytes() for image in images}) == len(images)


def test_stand_in_is_what_load_gives_for_its_name(elsewhere, monkeypatch):
    asked = []
    monkeypatch.setattr(data, "stand_in", lambda: asked.append("made") or "the stand-in")
    assert data.load_cifar10("stand-in") == "the stand-in"
    monkeypatch.setenv("CIFAR10_ROOT", "stand-in")
    assert data.load_cifar10(download=False) == "the stand-in"
    assert len(asked) == 2


def test_linear_model_gets_little_of_the_stand_in(small):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train, test = (
        images.reshape(len(images), -1)[:, ::2].astype(np.float32) / 255 - 0.5
        for images in (small.train_images[:1500], small.test_images)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        linear = LogisticRegression(max_iter=15).fit(train, small.train_labels[:1500])
    assert linear.score(train, small.train_labels[:1500]) > 0.5, "it did not learn at all"
    assert linear.score(test, small.test_labels) < 0.5


@pytest.mark.usefixtures("one_thread")
def test_small_cnn_learns_the_stand_in_in_one_epoch(small):
    import torch
    from torch import nn

    from helpers import training
    from helpers.batches import Batches

    def block(inputs, outputs):
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]

    torch.manual_seed(0)
    head = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    model = nn.Sequential(*block(3, 16), *block(16, 32), *block(32, 64), *head).to(memory_format=torch.channels_last)
    train = Batches(small.train_images, small.train_labels, batch_size=32, augment=True)
    test = Batches(small.test_images, small.test_labels, batch_size=500)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.006)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.006, total_steps=len(train))
    history = training.fit(
        model, train, test, optimizer=optimizer, schedule=schedule, epochs=1, precision=torch.float32
    )
    assert history["validation_accuracy"].iloc[-1] > 0.6


# ------------------------------------------------------------------------------- where outputs may go


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of our own, with no output folder asked for."""
    monkeypatch.delenv("CIFAR10_OUTPUT")
    folder = (tmp_path / "repository").resolve()
    monkeypatch.setattr(data, "REPOSITORY", folder)
    return folder


@pytest.mark.parametrize("kind", ["Images", "results"])
def test_real_runs_write_into_the_repository_and_no_other_run_does(repository, kind):
    for named in (None, str(repository)):
        with pytest.MonkeyPatch.context() as patch:
            if named:
                patch.setenv("CIFAR10_OUTPUT", named)
            for stand_in in (False, True):
                for smoke in (False, True):
                    folder = data.output_folder(kind, stand_in=stand_in, smoke=smoke)
                    assert folder.is_dir()
                    assert (folder == repository / kind) == (not stand_in and not smoke)
                    assert folder.is_relative_to(repository / "runs") == (stand_in or smoke)


def test_stand_in_and_smoke_have_folders_of_their_own(repository):
    stand_in = data.output_folder("results", stand_in=True)
    smoke = data.output_folder("results", stand_in=False, smoke=True)
    assert stand_in != smoke
    assert "stand-in" in stand_in.as_posix()


def test_output_folder_can_be_named(output):
    for stand_in in (False, True):
        assert data.output_folder("Images", stand_in=stand_in) == (output / "Images").resolve()


def test_relative_names_no_folder_of_this_machine(tmp_path):
    assert data.relative(data.REPOSITORY / "results" / "a.json") == "results/a.json"
    assert data.relative(tmp_path / "results" / "a.json") == "a.json"


# -------------------------------------------------------------------------------------------- imports


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=data.REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_import_helpers_takes_under_300_ms():
    code = "import time; t = time.perf_counter(); import helpers; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(2)) < 0.3


def test_no_helper_imports_tensorflow_and_only_batches_and_training_import_torch():
    code = """
import sys
def loaded(*names): return [name for name in names if name in sys.modules]
import helpers
print(loaded("numpy", "torch", "tensorflow", "keras"))
from helpers import data
print(loaded("torch", "tensorflow", "keras", "matplotlib", "pandas"))
from helpers import metrics, plots, results
print(loaded("torch", "tensorflow", "keras"))
from helpers import batches, training
print(loaded("tensorflow", "keras"))
"""
    assert python(code).split("\n") == ["[]"] * 4
