"""Batches that live on the device: the whole split is copied there once, and each batch is one gather.

    train = Batches(images, labels, batch_size=500, device=device, augment=True, seed=0)
    for x, y in train: ...               # x (500, 3, 32, 32) float32, normalised; y (500,) int64

CIFAR-10 is 184 MB, so no worker process has to decode, copy or queue anything. Order and augmentation of an epoch are
drawn on the CPU from (seed, epoch), so they are the same on every device and after a resume.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from helpers.data import MEAN, STD
from helpers.files import InputError


class Batches:
    """Normalised float32 batches of one split, in `channels_last` memory order.

    images: (n, 32, 32, 3) uint8; labels: (n,) integers.
    augment: shuffle, flip left-right (`flip`), shift by up to `translate` pixels in each direction (the border is
        mirrored), and blank a square (`cutout`), drawn per sample; an incomplete last batch is then left out.
        Without it: the images as they are, in order, every one.
    flip: True flips with probability 1/2; "alternating" does so in the first epoch and turns every image over from each
        epoch to the next, so that no two epochs in a row show the same side (Jordan 2024, airbench, arXiv 2404.00498).
    cutout: side in pixels of a square of the mean colour at a random place, cut off at the border; 0 for none
        (DeVries and Taylor 2017, arXiv 1708.04552).
    resolution: side in pixels of the images handed out; smaller than 32 averages areas (progressive resizing,
        Howard 2018, fast.ai in DAWNBench). A list gives one side an epoch; the last one stands for later epochs.
    transform: with `augment`, of (10, 3, 32, 32) uint8 images at a time, before all else but flip and shift: one of
        torchvision.transforms.v2, which draws anew for each call (RandAugment, AugMix, ...).
    mix: with `augment`, of a whole batch and its labels (v2.MixUp, v2.CutMix): the labels become shares, (n, classes).
        Both draw from (seed, epoch, batch), as everything here.
    epoch: which epoch's order and augmentation to draw; it goes up by one after each pass.

    Raises InputError for arrays that do not fit together, an empty split, or a batch larger than the split.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, *, batch_size: int, device: torch.device | str = "cpu",
        augment: bool = False, flip: bool | str = True, translate: int = 2, cutout: int = 0,
        resolution: int | list[int] = 32, seed: int = 0, transform: Callable | None = None,
        mix: Callable | None = None,
    ):  # fmt: skip
        n, size = len(images), images.shape[1] if images.ndim == 4 else 0
        sides = [resolution] if isinstance(resolution, int) else list(resolution)
        image, fits = images.dtype == np.uint8 and images.shape[3:] == (3,), bool(sides) and min(sides) >= 1
        for right, message in (
            (image and n == len(labels), f"images are {images.dtype} {images.shape} with {len(labels)} labels: "
             "expected uint8 (n, 32, 32, 3), n"),
            (batch_size >= 1, f"BATCH_SIZE is {batch_size}: expected at least 1."),
            (n > 0, "the split is empty: expected at least one image"),
            (batch_size <= n or not augment, f"BATCH_SIZE is {batch_size:,}: more than the {n:,} training images."),
            (fits and max(sides) <= size, f"RESOLUTION is {resolution}: expected 1 to {size} pixels, or a list."),
            (0 <= translate < size, f"TRANSLATE is {translate}: expected 0 to {size - 1} pixels."),
            (0 <= cutout <= size, f"CUTOUT is {cutout}: expected 0 to {size} pixels."),
            (flip in (True, False, "alternating"), f'FLIP is {flip!r}: expected True, False or "alternating".'),
        ):  # fmt: skip
            if not right:
                raise InputError(message)
        self.batch_size, self.device, self.seed, self.epoch = batch_size, torch.device(device), seed, 0
        self.augment, self.flip, self.translate = augment, flip, translate if augment else 0
        self.cutout = cutout if augment else 0
        self._resolution = sides
        self.transform, self.mix = (transform, mix) if augment else (None, None)
        border = (self.translate, self.translate)
        pixels = np.pad(images, [(0, 0), border, border, (0, 0)], mode="reflect") if self.translate else images
        self._pixels = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)  # NHWC: a gather is channels_last
        self._labels = torch.from_numpy(np.asarray(labels).astype(np.int64)).to(self.device)
        self._size = size
        self._mean = 255 * torch.tensor(MEAN, device=self.device)
        self._scale = 1 / (255 * torch.tensor(STD, device=self.device))

    @property
    def images(self) -> int:
        """Images handed out an epoch."""
        return len(self) * self.batch_size if self.augment else len(self._labels)

    @property
    def resolution(self) -> int:
        """Side in pixels of the images of the epoch that comes next."""
        return self._resolution[min(self.epoch, len(self._resolution) - 1)]

    def __len__(self) -> int:
        """Batches an epoch."""
        n = len(self._labels)
        return n // self.batch_size if self.augment else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        resolution, epoch = self.resolution, self.epoch
        order, top, left, mirrored = (part.to(self.device) for part in self.draw())
        holes = self.draw_holes().to(self.device)
        self.epoch += 1
        offsets = torch.arange(self._size, device=self.device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            chosen = slice(start, start + self.batch_size)
            rows = top[chosen, None] + offsets
            columns = left[chosen, None] + torch.where(mirrored[chosen, None], offsets.flip(0), offsets)
            index = order[chosen]
            if self.augment:
                pixels = self._pixels[index[:, None, None], rows[:, :, None], columns[:, None, :]]
            else:
                pixels = self._pixels[chosen]
            if self.transform:
                with self._drawing(epoch, start):
                    parts = [self.transform(part) for part in pixels.permute(0, 3, 1, 2).split(10)]
                pixels = torch.cat(parts).permute(0, 2, 3, 1).contiguous()
            x = pixels.float().sub_(self._mean).mul_(self._scale).permute(0, 3, 1, 2)
            if self.cutout:
                inside = (offsets >= holes[:, chosen, None]) & (offsets < holes[:, chosen, None] + self.cutout)
                x.masked_fill_((inside[0, :, :, None] & inside[1, :, None, :])[:, None], 0.0)  # 0 is the mean colour
            if resolution != self._size:
                x = F.interpolate(x, (resolution, resolution), mode="area")
                x = x.contiguous(memory_format=torch.channels_last)
            y = self._labels[index]
            if self.mix:
                with self._drawing(epoch, start + 1):
                    x, y = self.mix(x, y)
            yield x, y

    @contextlib.contextmanager
    def _drawing(self, epoch: int, place: int) -> Iterator[None]:
        """PyTorch's own random numbers, of this epoch and place, and those of before behind it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(((1_000_003 * self.seed + epoch) * 1_000_003 + place) % 2**63)
            yield

    def draw(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """This epoch's order, top and left corner of the crop (0..2*translate) and mirrored or not, each (n,)."""
        n = len(self._labels)
        nothing = torch.zeros(n, dtype=torch.int64)
        if not self.augment:
            return torch.arange(n), nothing, nothing, nothing.bool()
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(n, generator=generator)
        top, left = torch.randint(0, 2 * self.translate + 1, (2, n), generator=generator)
        mirrored = torch.rand(n, generator=generator) < (0.5 if self.flip else 0.0)
        if self.flip == "alternating":
            first = torch.rand(n, generator=torch.Generator().manual_seed(1_000_003 * self.seed + 900_000)) < 0.5
            mirrored = (first ^ bool(self.epoch % 2))[order]
        return order, top, left, mirrored

    def draw_holes(self) -> torch.Tensor:
        """This epoch's upper and left edges of the cutout squares, (2, n), from 1 - cutout to 31."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch + 500_000)
        return torch.randint(1 - self.cutout, self._size, (2, len(self._labels)), generator=generator)
