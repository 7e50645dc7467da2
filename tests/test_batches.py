"""helpers.batches: what a batch holds, and the augmentation against a slow reference written with NumPy loops."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from helpers import training
from helpers.batches import Batches
from helpers.data import MEAN, STD
from helpers.files import InputError

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
NUMBERS = np.arange(50)  # each image's own number as its label, to follow single images
STILL = {"translate": 0, "flip": False}  # an augmentation that only shuffles


def augmented(images=IMAGES, labels=NUMBERS, **options) -> Batches:
    return Batches(images, labels, **{"batch_size": 10, "augment": True} | options)


def normalised(images: np.ndarray) -> np.ndarray:
    """(n, 32, 32, 3) uint8 -> (n, 3, 32, 32) float64, by the book."""
    return ((images / 255.0 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)


def everything(batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    """One epoch in one piece."""
    x, y = zip(*batches)
    return torch.cat(x).numpy(), torch.cat(y).numpy()


def reference(drawn, translate) -> np.ndarray:
    """Crop and mirror pixel by pixel: mirrored borders without repeating the edge, then the crop, then the flip."""

    def inside(i):
        return -i if i < 0 else 62 - i if i > 31 else i

    out = np.empty_like(IMAGES)
    for k, (n, top, left, mirrored) in enumerate(zip(*(part.tolist() for part in drawn))):
        for row, column in np.ndindex(32, 32):
            source = 31 - column if mirrored else column
            out[k, row, column] = IMAGES[n, inside(row + top - translate), inside(source + left - translate)]
    return normalised(out)


def mirrored_images(batches: Batches) -> np.ndarray:
    """Whether image 0, 1, ... is mirrored in the epoch that comes next, which is then past."""
    order, _, _, mirrored = batches.draw()
    batches.epoch += 1
    return mirrored[order.argsort()].numpy()


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("resolution", [32, 16])
def test_shapes_types_and_memory_order(augment, resolution):
    x, y = next(iter(augmented(batch_size=8, augment=augment, resolution=resolution)))
    assert (x.shape, x.dtype) == ((8, 3, resolution, resolution), torch.float32)
    assert (y.shape, y.dtype) == ((8,), torch.int64)
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("batch_size", "sizes"), [(8, [8] * 6 + [2]), (25, [25, 25]), (1000, [50])])
def test_evaluation_gives_every_image_normalised_in_order(batch_size, sizes):
    batches = Batches(IMAGES, NUMBERS.astype(np.uint8), batch_size=batch_size, cutout=16)  # cutout is for training
    for _ in range(2):  # every epoch alike
        assert [len(y) for _, y in batches] == sizes
        x, y = everything(batches)
        np.testing.assert_allclose(x, normalised(IMAGES), atol=2e-6)
        np.testing.assert_array_equal(y, NUMBERS)
    assert (len(batches), batches.images) == (len(sizes), 50)


@pytest.mark.parametrize(("batch_size", "seen"), [(10, 50), (8, 48)])
def test_an_epoch_of_training_holds_every_image_once_but_for_an_incomplete_last_batch(batch_size, seen):
    images = IMAGES.copy()
    batches = augmented(images, batch_size=batch_size)
    assert [len(y) for _, y in batches] == [batch_size] * (seen // batch_size)
    assert (len(batches), batches.images) == (seen // batch_size, seen)
    assert len(set(everything(batches)[1])) == seen
    np.testing.assert_array_equal(images, IMAGES)  # they are not changed


@pytest.mark.parametrize("translate", [0, 2, 4])
@pytest.mark.parametrize("flip", [True, False, "alternating"])
def test_augmentation_agrees_with_the_slow_reference(translate, flip):
    batches = augmented(translate=translate, flip=flip, seed=7)
    for _ in range(2):
        drawn = batches.draw()
        x, y = everything(batches)
        np.testing.assert_allclose(x, reference(drawn, translate), atol=2e-6)  # a grey level is 0.015
        np.testing.assert_array_equal(y, drawn[0])
        assert (y != NUMBERS).any()


def test_each_sample_is_drawn_on_its_own_over_the_whole_range():
    batches = augmented(np.zeros((4000, 32, 32, 3), np.uint8), np.zeros(4000), translate=2)
    order, top, left, mirrored = (part.numpy() for part in batches.draw())
    assert (order != np.arange(4000)).mean() > 0.99
    for corner in (top, left):
        np.testing.assert_allclose(np.bincount(corner) / 4000, [0.2] * 5, atol=0.03)
    np.testing.assert_allclose(mirrored.mean(), 0.5, atol=0.03)
    correlation = np.corrcoef(np.stack([top, left, mirrored]))
    assert (abs(correlation - np.eye(3)) < 0.06).all(), "the three draws depend on each other"


def test_batches_follow_from_seed_and_epoch_alone():
    epochs = []
    for seed in (0, 1, 2):
        batches = augmented(seed=seed)
        for epoch in range(3):
            epochs.append(batches.draw())
            torch.manual_seed(epoch)  # the global random state plays no part, and is not touched
            state, again = torch.get_rng_state(), augmented(seed=seed)
            again.epoch = epoch
            np.testing.assert_array_equal(everything(again)[0], everything(batches)[0])
            assert torch.equal(torch.get_rng_state(), state)
    for one, other in itertools.combinations(epochs, 2):
        assert all((a != b).any() for a, b in zip(one, other))


def test_alternating_flip_turns_every_image_over_from_epoch_to_epoch():
    batches, other, random = augmented(flip="alternating"), augmented(flip="alternating", seed=4), augmented()
    first, second, third = (mirrored_images(batches) for _ in range(3))
    assert 10 <= first.sum() <= 40
    np.testing.assert_array_equal(second, ~first)
    np.testing.assert_array_equal(third, first)
    assert (mirrored_images(other) != first).any()
    assert 0 < (mirrored_images(random) == mirrored_images(random)).sum() < 50


@pytest.mark.parametrize("side", [1, 8, 32])
def test_cutout_blanks_one_square_an_image_and_nothing_else(side):
    batches = augmented(**STILL, cutout=side, seed=1)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(batches.draw(), augmented(**STILL, seed=1).draw()))
    corners = batches.draw_holes().numpy()
    x, y = everything(batches)
    expected = np.zeros((50, 32, 32), bool)
    for image, (row, column) in zip(expected, corners.T):
        image[max(row, 0) : row + side, max(column, 0) : column + side] = True
    np.testing.assert_array_equal((x == 0).all(1), expected)
    np.testing.assert_allclose(x, np.where(expected[:, None], 0, normalised(IMAGES[y])), atol=2e-6)
    assert expected.any((1, 2)).all()  # at least a corner of it lies in the image
    assert (batches.draw_holes().numpy() != corners).any(), "each epoch has its own"


def test_lower_resolution_is_the_mean_over_areas_and_the_last_of_a_list_stays():
    batches = augmented(augment=False, resolution=[8, 16, 32])
    for side in (8, 16, 32, 32):
        assert batches.resolution == side
        expected = normalised(IMAGES).reshape(50, 3, side, 32 // side, side, 32 // side).mean((3, 5))
        np.testing.assert_allclose(everything(batches)[0], expected, atol=5e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": NUMBERS[:49]}, "images are uint8 (50, 32, 32, 3) with 49 labels: expected uint8 (n, 32, 32, 3), n"),
        ({"images": IMAGES / 255}, "images are float64 (50, 32, 32, 3) with 50 labels"),
        ({"batch_size": 0}, "BATCH_SIZE is 0: expected at least 1."),
        ({"images": IMAGES[:0], "labels": NUMBERS[:0]}, "the split is empty: expected at least one image"),
        ({"batch_size": 51}, "BATCH_SIZE is 51: more than the 50 training images."),
        *(({"resolution": bad}, f"RESOLUTION is {bad}: expected 1 to 32 pixels") for bad in (0, 33, [], [32, 64])),
        *(({"translate": bad}, f"TRANSLATE is {bad}: expected 0 to 31 pixels") for bad in (-1, 32)),
        *(({"cutout": bad}, f"CUTOUT is {bad}: expected 0 to 32 pixels") for bad in (-1, 33)),
        ({"flip": "often"}, "FLIP is 'often': expected True, False or \"alternating\""),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError) as error:
        augmented(**options)
    assert str(error.value).startswith(message)


def test_transform_sees_uint8_images_and_repeats_for_a_seed_and_epoch():
    seen = []

    def invert(part):
        seen.append((part.dtype, tuple(part.shape)))
        return 255 - part if torch.rand(()) < 0.5 else part

    def made(**options):
        torch.rand(3)  # whatever was drawn before
        return everything(augmented(batch_size=20, **options))[0]

    plain, changed = made(), made(transform=invert)
    assert set(seen) == {(torch.uint8, (10, 3, 32, 32))}
    same = [(changed[k : k + 10] == plain[k : k + 10]).all() for k in range(0, len(plain), 10)]
    assert any(same) and not all(same), "each ten images are drawn for"
    np.testing.assert_array_equal(made(transform=invert), changed)
    assert (made(transform=invert, seed=1) != made(seed=1)).any()
    before = torch.random.get_rng_state()
    made_next = next(iter(augmented(transform=invert)))
    assert made_next[0].is_contiguous(memory_format=torch.channels_last), "as without"
    assert len(made_next) == 2 and torch.equal(torch.random.get_rng_state(), before), "others draw as before"


def test_mixed_images_have_mixed_labels():
    labels = NUMBERS % 10
    x, y = next(iter(augmented(labels=labels, mix=v2.MixUp(num_classes=10), **STILL)))
    plain, numbers = next(iter(augmented(labels=labels, **STILL)))
    torch.testing.assert_close(y.sum(1), torch.ones(10))
    other = numbers.roll(1, 0)  # as MixUp pairs them
    share = (y * F.one_hot(numbers, 10)).sum(1)[numbers != other][0]
    torch.testing.assert_close(x, share * plain + (1 - share) * plain.roll(1, 0))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    batches = augmented(labels=labels, mix=v2.CutMix(num_classes=10))
    history = training.fit(
        network, batches, optimizer=torch.optim.SGD(network.parameters(), lr=0.01), epochs=1, progress=False
    )
    assert 0 <= history["train_accuracy"][0] <= 1
