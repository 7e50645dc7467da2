"""helpers.batches: what a batch holds, and the augmentation against a slow reference written with NumPy loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from helpers.batches import Batches
from helpers.data import MEAN, STD, InputError

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, 50).astype(np.uint8)
NUMBERS = np.arange(50)  # each image's own number, where a test follows single images


def normalised(images: np.ndarray) -> np.ndarray:
    """(n, 32, 32, 3) uint8 -> (n, 3, 32, 32) float64, by the book."""
    return ((images / 255.0 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)


def everything(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    """One epoch in one piece."""
    x, y = zip(*batches)
    return torch.cat(x), torch.cat(y)


def reference(images, labels, drawn, translate) -> tuple[np.ndarray, np.ndarray]:
    """Crop and mirror pixel by pixel: mirrored borders without repeating the edge, then the crop, then the flip."""

    def inside(i):
        return -i if i < 0 else 62 - i if i > 31 else i

    order, top, left, mirrored = (part.numpy() for part in drawn)
    out = np.empty((len(order), 32, 32, 3), np.uint8)
    for k, n in enumerate(order):
        for row in range(32):
            for column in range(32):
                source = 31 - column if mirrored[k] else column
                out[k, row, column] = images[n, inside(row + top[k] - translate), inside(source + left[k] - translate)]
    return normalised(out), labels[order]


# ---------------------------------------------------------------------------------- what a batch holds


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("resolution", [32, 16])
def test_shapes_types_and_memory_order(augment, resolution):
    x, y = next(iter(Batches(IMAGES, LABELS, batch_size=8, augment=augment, resolution=resolution)))
    assert x.shape == (8, 3, resolution, resolution)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert not x.is_contiguous()
    assert y.shape == (8,)
    assert y.dtype == torch.int64
    assert x.device == y.device == torch.device("cpu")


def test_evaluation_gives_every_image_normalised_in_order():
    batches = Batches(IMAGES, LABELS, batch_size=8)
    sizes = [len(y) for _, y in batches]
    assert sizes == [8] * 6 + [2]
    assert len(batches) == 7
    assert batches.images == 50
    for _ in range(2):  # every epoch alike
        x, y = everything(batches)
        np.testing.assert_allclose(x, normalised(IMAGES), atol=2e-6)
        np.testing.assert_array_equal(y, LABELS)


def test_batch_larger_than_the_split_is_one_batch_in_evaluation():
    x, y = everything(Batches(IMAGES, LABELS, batch_size=1000))
    assert len(x) == len(y) == 50


def test_the_arrays_given_are_not_changed():
    images, labels = IMAGES.copy(), LABELS.copy()
    everything(Batches(images, labels, batch_size=10, augment=True))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


# --------------------------------------------------------------------------------------- augmentation


@pytest.mark.parametrize("translate", [0, 2, 4])
@pytest.mark.parametrize("flip", [True, False])
def test_augmentation_agrees_with_the_slow_reference(translate, flip):
    batches = Batches(IMAGES, LABELS, batch_size=10, augment=True, translate=translate, flip=flip, seed=7)
    for _ in range(2):
        expected_x, expected_y = reference(IMAGES, LABELS, batches.draw(), translate)
        x, y = everything(batches)
        np.testing.assert_allclose(x, expected_x, atol=2e-6)  # a grey level is 0.015
        np.testing.assert_array_equal(y, expected_y)


def test_each_sample_is_drawn_on_its_own_over_the_whole_range():
    images = np.zeros((4000, 32, 32, 3), np.uint8)
    batches = Batches(images, np.zeros(4000), batch_size=100, augment=True, translate=2, seed=0)
    order, top, left, mirrored = (part.numpy() for part in batches.draw())
    assert (order != np.arange(4000)).mean() > 0.99
    for corner in (top, left):
        np.testing.assert_allclose(np.bincount(corner, minlength=5) / 4000, 0.2, atol=0.03)
        assert len(np.bincount(corner)) == 5
    np.testing.assert_allclose(mirrored.mean(), 0.5, atol=0.03)
    drawn = np.stack([top, left, mirrored])
    assert (abs(np.corrcoef(drawn) - np.eye(3)) < 0.06).all(), "the three draws depend on each other"


def test_an_epoch_holds_every_image_once():
    _, y = everything(Batches(IMAGES, NUMBERS, batch_size=10, augment=True))
    np.testing.assert_array_equal(np.sort(y), NUMBERS)


def test_incomplete_last_batch_is_left_out_of_training():
    batches = Batches(IMAGES, NUMBERS, batch_size=8, augment=True)
    sizes = [len(y) for _, y in batches]
    assert sizes == [8] * 6
    assert len(batches) == 6
    assert batches.images == 48
    _, y = everything(batches)
    assert len(np.unique(y)) == 48


def test_same_seed_and_epoch_give_the_same_batches():
    first, again = (Batches(IMAGES, LABELS, batch_size=10, augment=True, seed=3) for _ in range(2))
    torch.manual_seed(1)
    one = everything(first)
    torch.manual_seed(2)  # the global random state plays no part
    np.random.seed(2)
    two = everything(again)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_drawing_does_not_touch_the_global_random_state():
    state = torch.get_rng_state()
    everything(Batches(IMAGES, LABELS, batch_size=10, augment=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_and_epochs_change_order_and_augmentation():
    def drawn(seed, epoch):
        batches = Batches(IMAGES, LABELS, batch_size=10, augment=True, seed=seed)
        batches.epoch = epoch
        return batches.draw()

    draws = [drawn(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    for one, other in itertools.combinations(draws, 2):
        assert all((a != b).any() for a, b in zip(one, other))


def test_the_epoch_goes_up_with_each_pass_and_can_be_set_back():
    batches = Batches(IMAGES, LABELS, batch_size=10, augment=True)
    assert batches.epoch == 0
    first, second = everything(batches), everything(batches)
    assert batches.epoch == 2
    assert not torch.equal(first[0], second[0])
    batches.epoch = 1
    assert torch.equal(everything(batches)[0], second[0])


def test_without_flip_and_translation_only_the_order_changes():
    batches = Batches(IMAGES, NUMBERS, batch_size=10, augment=True, flip=False, translate=0)
    x, y = everything(batches)
    assert (y.numpy() != NUMBERS).any()
    np.testing.assert_allclose(x, normalised(IMAGES[y.numpy()]), atol=2e-6)


def test_flip_alone_mirrors_about_half_of_the_images_left_to_right():
    x, y = everything(Batches(IMAGES, NUMBERS, batch_size=50, augment=True, translate=0))
    straight = normalised(IMAGES[y.numpy()])
    as_it_is = np.isclose(x, straight, atol=2e-6).all((1, 2, 3))
    mirrored = np.isclose(x, straight[..., ::-1], atol=2e-6).all((1, 2, 3))
    assert (as_it_is ^ mirrored).all()
    assert 10 <= mirrored.sum() <= 40


def sides(batches: Batches) -> np.ndarray:
    """Whether image 0, 1, ... is mirrored in the epoch that comes next; every image is one of the two."""
    x, y = everything(batches)
    straight = normalised(IMAGES[y.numpy()])
    mirrored = np.isclose(x, straight[..., ::-1], atol=2e-6).all((1, 2, 3))
    assert (np.isclose(x, straight, atol=2e-6).all((1, 2, 3)) ^ mirrored).all()
    return mirrored[np.argsort(y.numpy())]


def test_alternating_flip_turns_every_image_over_from_epoch_to_epoch():
    batches = Batches(IMAGES, NUMBERS, batch_size=50, augment=True, translate=0, flip="alternating", seed=3)
    first, second, third = (sides(batches) for _ in range(3))
    assert 10 <= first.sum() <= 40
    np.testing.assert_array_equal(second, ~first)
    np.testing.assert_array_equal(third, first)
    again = Batches(IMAGES, NUMBERS, batch_size=50, augment=True, translate=0, flip="alternating", seed=3)
    again.epoch = 1  # as after a resume
    np.testing.assert_array_equal(sides(again), second)
    other = Batches(IMAGES, NUMBERS, batch_size=50, augment=True, translate=0, flip="alternating", seed=4)
    assert (sides(other) != first).any()


def test_random_flip_does_not_alternate():
    batches = Batches(IMAGES, NUMBERS, batch_size=50, augment=True, translate=0)
    assert 0 < (sides(batches) == sides(batches)).sum() < 50


@pytest.mark.parametrize("side", [1, 8, 32])
def test_cutout_blanks_one_square_an_image_and_nothing_else(side):
    batches = Batches(IMAGES, NUMBERS, batch_size=50, augment=True, translate=0, flip=False, cutout=side, seed=1)
    top, left = batches.draw_holes().numpy()
    x, y = everything(batches)
    blank = (x == 0).all(1).numpy()
    expected = np.zeros((50, 32, 32), bool)
    for image, (row, column) in zip(expected, zip(top, left)):
        image[max(row, 0) : row + side, max(column, 0) : column + side] = True
    np.testing.assert_array_equal(blank, expected)
    kept = np.broadcast_to(~expected[:, None], x.shape)
    np.testing.assert_allclose(x.numpy()[kept], normalised(IMAGES[y.numpy()])[kept], atol=2e-6)
    assert expected.any((1, 2)).all()  # at least a corner of it lies in the image
    assert len(np.unique(top)) > 10 or side == 1
    assert (batches.draw_holes().numpy() != [top, left]).any(), "each epoch has its own"


def test_cutout_is_for_training_and_changes_nothing_else():
    plain = Batches(IMAGES, NUMBERS, batch_size=10, augment=True, seed=5)
    cut = Batches(IMAGES, NUMBERS, batch_size=10, augment=True, seed=5, cutout=6)
    for ours, theirs in zip(cut.draw(), plain.draw()):
        assert torch.equal(ours, theirs)
    x, _ = everything(Batches(IMAGES, LABELS, batch_size=10, cutout=16))
    np.testing.assert_allclose(x, normalised(IMAGES), atol=2e-6)


# ----------------------------------------------------------------------------------------- resolution


@pytest.mark.parametrize("resolution", [16, 8])
def test_lower_resolution_is_the_mean_over_areas(resolution):
    x, _ = everything(Batches(IMAGES, LABELS, batch_size=20, resolution=resolution))
    step = 32 // resolution
    expected = normalised(IMAGES).reshape(50, 3, resolution, step, resolution, step).mean((3, 5))
    np.testing.assert_allclose(x, expected, atol=5e-6)


def test_resolution_by_epoch_and_the_last_one_stays():
    batches = Batches(IMAGES, LABELS, batch_size=25, augment=True, resolution=[16, 24, 32])
    announced, seen = [], []
    for _ in range(5):
        announced.append(batches.resolution)
        seen += {x.shape[-1] for x, _ in batches}
    assert announced == seen == [16, 24, 32, 32, 32]


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("images", "labels", "options", "message"),
    [
        (
            IMAGES,
            LABELS[:49],
            {},
            r"images are uint8 \(50, 32, 32, 3\) with 49 labels: expected uint8 \(n, 32, 32, 3\), n",
        ),
        (IMAGES / 255, LABELS, {}, r"images are float64 \(50, 32, 32, 3\) with 50 labels"),
        (IMAGES.transpose(0, 3, 1, 2), LABELS, {}, r"images are uint8 \(50, 3, 32, 32\) with 50 labels"),
        (IMAGES[0], LABELS[:32], {}, r"images are uint8 \(32, 32, 3\) with 32 labels"),
        (IMAGES, LABELS, {"batch_size": 0}, r"batch size is 0: expected at least 1"),
        (IMAGES[:0], LABELS[:0], {}, r"the split is empty: expected at least one image"),
        (IMAGES, LABELS, {"batch_size": 51, "augment": True}, r"batch size 51 is larger than the 50 training images"),
    ],
)
def test_what_does_not_fit_is_refused(images, labels, options, message):
    with pytest.raises(InputError, match=message):
        Batches(images, labels, **({"batch_size": 10} | options))


@pytest.mark.parametrize("bad", [{"resolution": 0}, {"resolution": 33}, {"resolution": []}, {"resolution": [32, 64]}])
def test_resolution_that_does_not_fit_is_refused(bad):
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, np.uint8)
    with pytest.raises(InputError, match=r"RESOLUTION is .*: expected 1 to 32 pixels"):
        Batches(images, labels, batch_size=2, **bad)


@pytest.mark.parametrize("bad", [-1, 32])
def test_translation_that_does_not_fit_is_refused(bad):
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, np.uint8)
    with pytest.raises(InputError, match=f"TRANSLATE is {bad}: expected 0 to 31 pixels"):
        Batches(images, labels, batch_size=2, augment=True, translate=bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"cutout": -1}, "CUTOUT is -1: expected 0 to 32 pixels"),
        ({"cutout": 33}, "CUTOUT is 33: expected 0 to 32 pixels"),
        ({"flip": "often"}, "FLIP is 'often': expected True, False or \"alternating\""),
    ],
)
def test_augmentation_that_does_not_fit_is_refused(bad, message):
    with pytest.raises(InputError, match=message):
        Batches(IMAGES, LABELS, batch_size=2, augment=True, **bad)
