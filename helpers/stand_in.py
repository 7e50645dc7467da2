"""The stand-in: ten classes of drawn shapes with CIFAR-10's shapes and types, for places without CIFAR-10."""

from __future__ import annotations

import numpy as np

from helpers.files import STAND_IN

CLASS_NAMES = tuple(
    f"{STAND_IN} {name}"
    for name in (
        "disc", "square", "triangle", "ring", "cross",
        "stripes across", "stripes down", "stripes diagonal", "checkerboard", "dots",
    )
)  # fmt: skip


def draw(train_size: int, test_size: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(train_images, train_labels, test_images, test_labels): (n, 32, 32, 3) uint8 and (n,) uint8 in 0..9.

    Deterministic for a seed, made in seconds. Place, size, angle, colours and noise are random, and colours carry no
    information, so a linear model gets little of it and a small CNN most.
    """
    total = train_size + test_size
    generator = np.random.default_rng(seed)
    labels = np.empty(total, np.uint8)
    for part in (slice(0, train_size), slice(train_size, total)):
        labels[part] = generator.permutation(np.arange(part.stop - part.start) % 10)
    images = np.empty((total, 32, 32, 3), np.uint8)
    for start in range(0, total, 2_000):  # in blocks, to keep the memory small
        images[start : start + 2_000] = _pictures(labels[start : start + 2_000], generator)
    return images[:train_size], labels[:train_size], images[train_size:], labels[train_size:]


def _pictures(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One image a label, (n, 32, 32, 3) uint8: a mask of the class's shape mixes two random colours."""
    n = len(labels)

    def uniform(low, high):
        return generator.uniform(low, high, (n, 1, 1)).astype(np.float32)

    grid = np.arange(32, dtype=np.float32) - 15.5
    angle, size = uniform(-0.35, 0.35), uniform(7, 12)
    dx, dy = grid[None, None, :] - uniform(-5, 5), grid[None, :, None] - uniform(-5, 5)
    x, y = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    period, phase = uniform(5, 9), uniform(0, 6.28)
    radius, side = np.hypot(x, y), np.maximum(abs(x), abs(y))
    wave_x, wave_y = np.sin(6.28 * x / period + phase), np.sin(6.28 * y / period)
    shapes = [
        lambda i: size[i] - radius[i],
        lambda i: 0.9 * size[i] - side[i],
        lambda i: np.minimum(0.7 * size[i] - y[i], y[i] + size[i] - 1.7 * abs(x[i])),
        lambda i: 0.22 * size[i] - abs(radius[i] - 0.8 * size[i]),
        lambda i: np.minimum(0.25 * size[i] - np.minimum(abs(x[i]), abs(y[i])), size[i] - side[i]),
        lambda i: 2 * wave_y[i],
        lambda i: 2 * wave_x[i],
        lambda i: 2 * np.sin(4.44 * (x[i] + y[i]) / period[i] + phase[i]),
        lambda i: 3 * wave_x[i] * wave_y[i],
        lambda i: 2.5 * (wave_x[i] + wave_y[i]) - 2.2,
    ]
    mask = np.empty((n, 32, 32, 1), np.float32)
    for label, shape in enumerate(shapes):
        chosen = np.flatnonzero(labels == label)
        mask[chosen, :, :, 0] = np.clip(shape(chosen) + 0.5, 0, 1)
    ground, figure = generator.uniform(0, 255, (2, n, 1, 1, 3)).astype(np.float32)
    figure = np.where(abs(figure - ground).mean(-1, keepdims=True) < 60, (ground + 128) % 256, figure)
    noise = generator.normal(0, 22, (n, 32, 32, 3)).astype(np.float32)
    return np.clip(ground + mask * (figure - ground) + noise, 0, 255).astype(np.uint8)
