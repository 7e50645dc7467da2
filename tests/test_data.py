"""helpers.data and helpers.stand_in: finding, reading and refusing files; splits and subsets; the stand-in."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from helpers import data
from helpers.files import REPOSITORY
from tests.servers import CONTENT, FILES, flipped, md5, publish, write_folder

ARCHIVE, FOLDER = data.ARCHIVE, data.FOLDER


@pytest.fixture
def shelf(elsewhere, monkeypatch):
    """An empty folder; the small data set is the official one."""
    publish(monkeypatch)
    (elsewhere / "shelf").mkdir()
    return elsewhere / "shelf"


def error_of(root=None) -> str:
    with pytest.raises(data.DataError) as caught:
        data.load_cifar10(root, download=False)
    return str(caught.value)


def test_archive_is_unpacked_once_and_a_missing_file_is_named(shelf):
    (shelf / ARCHIVE).write_bytes(CONTENT)
    (shelf / f"{FOLDER}.killed" / FOLDER).mkdir(parents=True)  # left by a process that was killed
    for root in (shelf / ARCHIVE, shelf, str(shelf / FOLDER)):
        assert data.load_cifar10(root, download=False).official
    assert sorted(path.name for path in shelf.iterdir()) == [FOLDER, f"{FOLDER}.killed", ARCHIVE]
    (shelf / FOLDER / "data_batch_1").unlink()
    assert f"{shelf / FOLDER} is incomplete: data_batch_1 missing of data_batch_1, " in error_of(shelf)


def test_archive_in_a_folder_not_to_be_written_is_unpacked_into_the_repository(shelf, elsewhere, monkeypatch):
    (shelf / ARCHIVE).write_bytes(CONTENT)
    mkdir, refused = os.mkdir, [elsewhere]

    def refuse(path, *rest):
        if str(path).startswith(str(refused[0])):
            raise PermissionError(13, "Permission denied", str(path))
        return mkdir(path, *rest)

    monkeypatch.setattr(os, "mkdir", refuse)
    assert "cannot be unpacked, neither beside it nor into" in error_of(shelf)
    refused[0] = shelf
    for _ in range(2):
        assert data.load_cifar10(shelf, download=False).official
    assert [path.name for path in (elsewhere / "repository" / "data").iterdir()] == [FOLDER]


PLACES = {
    "working/data": "./data",
    "repository/data": "./data beside the notebooks",
    "home/.cache/torch/vision/datasets": "torchvision's cache",
    "home/data": "~/data",
    "home/.keras/datasets": "Keras's cache",
    f"home/.keras/datasets/{FOLDER}": "Keras's cache",
    "home/.keras/datasets/cifar-10-batches-py-target": "Keras's cache",
    "shared/cifar10": "the shared data folders",
}


@pytest.mark.parametrize(("place", "source"), PLACES.items())
def test_usual_places_are_searched(shelf, elsewhere, place, source):
    write_folder(elsewhere / place)
    cifar = data.load_cifar10(download=False)
    assert cifar.source == source
    assert str(elsewhere) not in repr(cifar)


def test_what_is_named_is_the_only_place(shelf, elsewhere, monkeypatch):
    write_folder(elsewhere / "working" / "data", test_batch=b"damaged")  # not looked at
    assert f"no CIFAR-10 in {shelf}: expected {FOLDER} or {ARCHIVE} there." in error_of(shelf)
    assert error_of("").startswith("the folder's name is empty")
    assert "no such folder: expected one" in error_of(elsewhere / "new") and not (elsewhere / "new").exists()
    monkeypatch.setenv("CIFAR10_ROOT", str(elsewhere / "mistyped"))
    assert "mistyped, and there is no such folder: expected one" in error_of()
    monkeypatch.setenv("CIFAR10_ROOT", str(shelf))
    write_folder(shelf)
    assert data.load_cifar10(download=False).source == "$CIFAR10_ROOT"
    monkeypatch.setattr(data, "stand_in", lambda: "drawn")
    monkeypatch.setenv("CIFAR10_ROOT", "stand-in")
    assert data.load_cifar10() == data.load_cifar10("stand-in", download=False) == "drawn"


def test_not_found_lists_the_places_and_the_ways_out(shelf, elsewhere):
    message = error_of()
    for expected in ("\n  ./data\n", "torchvision's cache\n", "~/data\n", "Keras's cache\n", "curl -L -C - ",
                     "export CIFAR10_ROOT=/its/path", "CIFAR10_URL=", 'DATA_ROOT = "stand-in"'):  # fmt: skip
        assert expected in message
    assert message.count(str(elsewhere)) == 1  # in the command to copy


DAMAGED = {
    "flipped bit": flipped(FILES["data_batch_2"]),
    "page": b"<html>404 not found</html>",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_file_is_named_and_passed_over_where_another_place_serves(shelf, elsewhere, capsys, content):
    folder = write_folder(elsewhere / "working" / "data", data_batch_2=content)
    message = error_of()
    found = f"data_batch_2 is damaged: its MD5 is {md5(content)}, expected {md5(FILES['data_batch_2'])}."
    assert message.startswith(f"{folder}: {found}")
    assert message.endswith("\nMove that folder away and run the same again, which unpacks or fetches it anew.")
    with pytest.raises(data.DataError, match="data_batch_2 is damaged"):
        data.load_cifar10()  # nor is it fetched over
    write_folder(elsewhere / "home" / "data")
    assert data.load_cifar10().official
    assert capsys.readouterr().out == message.splitlines()[0] + "\n"


def test_file_of_other_content_is_not_unpickled(shelf):
    content = f"cos\nmkdir\n(V{shelf / 'it-ran'}\nI1\ntR.".encode()  # the pickle of os.mkdir(it-ran, 1)
    write_folder(shelf, test_batch=content)
    assert "test_batch is damaged: its MD5 is" in error_of(shelf)
    assert not (shelf / "it-ran").exists()
    pickle.loads(content)
    assert (shelf / "it-ran").exists(), "the attack itself does not work, so this test shows nothing"


@pytest.mark.parametrize("content", [CONTENT[:-1], flipped(CONTENT), b"<html>"], ids=["short", "flipped", "page"])
def test_damaged_archive_is_named_and_left(shelf, content):
    (shelf / ARCHIVE).write_bytes(content)
    found, expected = f"{len(content):,} bytes with MD5 {md5(content)}", f"{len(CONTENT):,} with {md5(CONTENT)}"
    assert f"{shelf / ARCHIVE} is damaged: {found}, expected {expected}." in error_of(shelf)
    assert [path.name for path in shelf.iterdir()] == [ARCHIVE]


def test_real_data_is_that_of_every_record_and_has_this_mean_and_standard_deviation(cifar):
    assert cifar.official
    assert cifar.fingerprint == "sha256:82e0267fb55400d74bc3b66b6f79d073f8e09170d44291368b1d163f7fcdc550"
    channels, values = np.moveaxis(cifar.train_images, -1, 0), np.arange(256) / 255
    shares = np.stack([np.bincount(channel.ravel(), minlength=256) / channel.size for channel in channels])
    np.testing.assert_allclose(data.MEAN, shares @ values, atol=6e-5)
    np.testing.assert_allclose(data.STD, np.sqrt(shares @ values**2 - (shares @ values) ** 2), atol=6e-5)


IMAGES = np.zeros((4, 32, 32, 3), np.uint8)
RIGHT = {"train_images": IMAGES, "train_labels": [0, 1, 2, 1], "test_images": IMAGES[:2], "test_labels": [2, 0]}


def test_from_arrays_takes_other_classes_and_every_array_counts():
    cifar = data.from_arrays(**RIGHT, class_names=["a", "b", "c"], source="mine")
    assert (cifar.class_names, cifar.name, cifar.official) == (("a", "b", "c"), "own images", False)
    assert cifar.train_labels.dtype == np.uint8
    assert "from mine" in repr(cifar)
    assert data.from_arrays(**RIGHT).name == "CIFAR-10 (altered)"
    changed = [data.from_arrays(**(RIGHT | {name: np.array(array) ^ 1})).fingerprint for name, array in RIGHT.items()]
    assert len({cifar.fingerprint, *changed}) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((4, 3, 32, 32), np.uint8)}, r"train images are uint8 \(4, 3, 32, 32\): expected"),
        ({"test_images": np.zeros((2, 32, 32, 3))}, r"test images are float64 \(2, 32, 32, 3\): expected uint8"),
        ({"test_labels": [0.0, 1.0]}, r"test labels are float64 \(2,\): expected integers \(2,\)"),
        ({"test_labels": [0, 256]}, r"test labels run from 0 to 256: expected 0 to 9"),
        ({"train_labels": [0, 1, 2, -1]}, r"train labels run from -1 to 2: expected 0 to 9"),
        ({"class_names": [f"class {k}" for k in range(257)]}, r"class_names has 257: expected 2 to 256"),
        ({"class_names": ["one"]}, r"class_names has 1: expected 2 to 256"),
    ],
)
def test_from_arrays_refuses_what_does_not_fit(change, message):
    with pytest.raises(data.DataError, match=message):
        data.from_arrays(**(RIGHT | change))


LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 100))
UNEVEN = np.random.default_rng(2).permutation(np.repeat([0, 1, 2], [701, 250, 49]))


@pytest.mark.parametrize("labels", [LABELS, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("size", [0, 1, 137, 999])
def test_split_and_subset_are_disjoint_ascending_and_in_proportion(labels, size):
    train, validation = data.split(labels, validation_size=size, seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(1000))
    np.testing.assert_array_equal(validation, data.subset(labels, size=size, seed=3))
    for part in (train, validation):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
        counts = np.bincount(labels[part], minlength=labels.max() + 1)
        assert (abs(counts - np.bincount(labels) * len(part) / 1000) < 1).all()


def test_split_follows_from_the_seed_and_is_the_one_of_every_record():
    first, other = (data.split(LABELS, validation_size=100, seed=seed)[1] for seed in (0, 1))
    assert (first != other).any()
    assert md5(first.tobytes()) == "e92ccec7751d12877f16025562756f8c"


@pytest.mark.parametrize("size", [1001, -1])
def test_size_that_does_not_fit_is_refused(size):
    with pytest.raises(data.InputError, match=f"VALIDATION_IMAGES is {size:,}: expected 0 to 999 of the 1,000"):
        data.split(LABELS, validation_size=size)
    with pytest.raises(data.InputError, match=f"a subset of {size:,} does not fit: expected 0 to 1,000 images"):
        data.subset(LABELS, size=size)


def test_stand_in_has_the_shapes_of_cifar10_says_what_it_is_and_follows_from_the_seed(small):
    assert repr(small).startswith("stand-in: train (4000, 32, 32, 3), test (1000, 32, 32, 3), uint8;\nNOT CIFAR-10")
    assert (small.is_stand_in, small.official, small.name) == (True, False, "stand-in")
    assert len({name for name in small.class_names if name.startswith("stand-in ")}) == 10
    np.testing.assert_array_equal(np.bincount(small.train_labels), [400] * 10)
    np.testing.assert_array_equal(np.bincount(small.test_labels), [100] * 10)
    assert (small.train_labels[:20] != np.arange(20) % 10).any(), "classes come in turn, not shuffled"
    images = np.concatenate([small.train_images, small.test_images])
    assert len({image.tobytes() for image in images}) == len(images)
    first, again, other = (data.stand_in(300, 100, seed=seed).fingerprint for seed in (5, 5, 6))
    assert first == again != other


def test_linear_model_gets_little_of_the_stand_in(small):
    """Ridge regression, in closed form; that a small CNN gets more of it, test_training shows."""
    images = np.concatenate([small.train_images[:1000], small.test_images]).reshape(2000, -1)[:, ::2] / 255 - 0.5
    labels = np.concatenate([small.train_labels[:1000], small.test_labels])
    train = images[:1000]
    weights = train.T @ np.linalg.solve(train @ train.T + 100 * np.eye(1000), np.eye(10)[labels[:1000]])
    right = (images @ weights).argmax(1) == labels
    assert right[:1000].mean() > 0.5, "it did not learn at all"
    assert right[1000:].mean() < 0.4


def test_imports_are_cheap():
    """`helpers` imports nothing, `data` no framework, and no helper but keras_* asks for TensorFlow."""
    code = "import sys, helpers; print('numpy' in sys.modules); import helpers.data; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.stdout.startswith("False\n"), run.stderr
    assert not {"torch", "tensorflow", "keras", "matplotlib", "pandas"} & set(run.stdout.split())
    for path in (REPOSITORY / "helpers").glob("*.py"):
        asks = re.search(r"^\s*(import|from) (tensorflow|keras)\b", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not asks or path.name.startswith("keras_"), f"{path.name}: {asks[0]}"
