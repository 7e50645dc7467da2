"""Pictures as cameras, weather and files spoil them: 14 corruptions of CIFAR-10-C in five severities.

    corrupt(images, "fog", severity=3)      # (n, 32, 32, 3) uint8 -> the same shape

D. Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019
(arXiv 1903.12261), with the parameters published for CIFAR-10-C; its frost needs photographs of frost and is left out.
The same images, corruption, severity and seed give the same pixels.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import hsv2rgb, rgb2hsv

from helpers.files import InputError

Rng = np.random.Generator


def _gaussian_noise(x: np.ndarray, rng: Rng, scale: float) -> np.ndarray:
    return x + rng.normal(0, scale, x.shape)


def _shot_noise(x: np.ndarray, rng: Rng, photons: float) -> np.ndarray:
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, rng: Rng, share: float) -> np.ndarray:
    chance = rng.random(x.shape)
    return np.where(chance < share / 2, 0, np.where(chance < share, 1, x))


def _defocus_blur(x: np.ndarray, rng: Rng, radius: float, soft: float) -> np.ndarray:
    offsets = np.arange(-8, 9)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(float)
    edge = np.exp(-(np.arange(-1, 2) ** 2) / (2 * soft**2))
    disk = ndimage.convolve(disk / disk.sum(), np.outer(edge, edge) / edge.sum() ** 2)
    return ndimage.convolve(x, disk[None, 5:12, 5:12, None], mode="mirror")


def _glass_blur(x: np.ndarray, rng: Rng, sigma: float, reach: int, rounds: int) -> np.ndarray:
    """Each pixel from a neighbour. (The published files were meant to have the two swapped, and have this.)"""
    x = ndimage.gaussian_filter(x, (0, sigma, sigma, 0))
    every = np.arange(len(x))
    for _ in range(rounds):
        for row in range(32 - reach, reach, -1):
            for column in range(32 - reach, reach, -1):
                down, right = rng.integers(-reach, reach, (2, len(x)))
                x[:, row, column] = x[every, row + down, column + right]
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0))


def _motion_blur(x: np.ndarray, rng: Rng, radius: int, sigma: float, angles=(-45, 45)) -> np.ndarray:
    """Along a line of its own for each image, one-sided, as ImageMagick's."""
    angle = np.deg2rad(rng.uniform(*angles, len(x)))
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    found = np.zeros_like(x)
    for step, weight in enumerate(weights / weights.sum()):
        down, right = (np.rint(step * part(angle)).astype(int)[:, None] for part in (np.sin, np.cos))
        rows, columns = (np.clip(np.arange(32) + shift, 0, 31) for shift in (down, right))
        found += weight * x[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return found


def _zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of each image, enlarged to its size."""
    side = int(np.ceil(32 / factor))
    top = (32 - side) // 2
    part = x[:, top : top + side, top : top + side]
    edge = ndimage.zoom(np.eye(side), (factor, 1), order=1)  # each new pixel of an edge, from two old ones
    left = (len(edge) - 32) // 2
    edge = edge[left : left + 32]
    return np.einsum("ij,njkc,lk->nilc", edge, part, edge, optimize=True)


def _zoom_blur(x: np.ndarray, rng: Rng, most: float) -> np.ndarray:
    factors = np.arange(1, most, 0.01)
    return (x + sum(_zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


def _plasma(count: int, decay: float, rng: Rng) -> np.ndarray:
    """Clouds by the diamond-square algorithm on a torus, (count, 32, 32) in 0..1.

    The published code multiplies its noise by its size twice, so the size falls with the decay squared.
    """
    clouds, step, wibble = np.zeros((count, 32, 32)), 32, 100.0
    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        square = corners + np.roll(corners, -1, 1)
        square = (square + np.roll(square, -1, 2)) / 4
        clouds[:, half::step, half::step] = square + wibble * rng.uniform(-1, 1, square.shape)
        middle = clouds[:, half::step, half::step]
        for axis, place in ((1, np.s_[:, ::step, half::step]), (2, np.s_[:, half::step, ::step])):
            ends = corners + np.roll(corners, -1, 3 - axis)
            sides = middle + np.roll(middle, 1, axis)
            clouds[place] = (ends + sides) / 4 + wibble * rng.uniform(-1, 1, ends.shape)
        step, wibble = half, wibble / decay**2
    clouds -= clouds.min((1, 2), keepdims=True)
    return clouds / clouds.max((1, 2), keepdims=True)


def _fog(x: np.ndarray, rng: Rng, much: float, decay: float) -> np.ndarray:
    most = x.max((1, 2, 3), keepdims=True)
    return (x + much * _plasma(len(x), decay, rng)[..., None]) * most / (most + much)


def _snow(x, rng: Rng, mean, deviation, zoom, least, radius, sigma, share) -> np.ndarray:
    flakes = _zoomed(rng.normal(mean, deviation, (*x.shape[:3], 1)), zoom)
    flakes = np.where(flakes < least, 0, flakes).clip(0, 1)
    flakes = _motion_blur(flakes, rng, int(radius), sigma, (-135, -45))
    grey = (x @ [0.299, 0.587, 0.114])[..., None]
    white = share * x + (1 - share) * np.maximum(x, 1.5 * grey + 0.5)
    return white + flakes + flakes[:, ::-1, ::-1]


def _brightness(x: np.ndarray, rng: Rng, more: float) -> np.ndarray:
    hsv = rgb2hsv(x)
    hsv[..., 2] = (hsv[..., 2] + more).clip(0, 1)
    return hsv2rgb(hsv)


def _contrast(x: np.ndarray, rng: Rng, share: float) -> np.ndarray:
    mean = x.mean((1, 2), keepdims=True)
    return (x - mean) * share + mean


def _elastic(x: np.ndarray, rng: Rng, alpha: float, sigma: float, affine: float) -> np.ndarray:
    """Three points are moved, which fixes an affine map, and then every pixel a little on its own."""
    points = 16 + np.array([[10, 10], [10, -10], [-10, -10]])
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), -1).reshape(-1, 2)
    found = np.empty_like(x)
    for k, image in enumerate(x):
        moved = points + rng.uniform(-affine, affine, (3, 2))
        back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points)
        places = np.column_stack([grid, np.ones(len(grid))]) @ back
        shift = np.zeros_like(places)
        if alpha:
            noise = rng.uniform(-1, 1, (2, 32, 32))
            noise = ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="reflect", truncate=3)
            shift = alpha * noise.reshape(2, -1).T
        for colour in range(3):
            warped = ndimage.map_coordinates(image[..., colour], places.T, order=1, mode="mirror").reshape(32, 32)
            values = ndimage.map_coordinates(warped, (grid + shift).T, order=1, mode="reflect")
            found[k, ..., colour] = values.reshape(32, 32)
    return found


def _by_pillow(work: Callable[[Image.Image], Image.Image], x: np.ndarray) -> np.ndarray:
    images = (255 * x).round().astype(np.uint8)
    return np.stack([np.asarray(work(Image.fromarray(image))) for image in images]) / 255


def _jpeg(x: np.ndarray, rng: Rng, quality: int) -> np.ndarray:
    def squeezed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pillow(squeezed, x)


def _pixelate(x: np.ndarray, rng: Rng, share: float) -> np.ndarray:
    side, box = int(32 * share), Image.Resampling.BOX
    return _by_pillow(lambda image: image.resize((side, side), box).resize((32, 32), box), x)


CORRUPTIONS: dict[str, tuple[Callable, list]] = {  # name -> how, and its parameters in five severities
    "Gaussian noise": (_gaussian_noise, [0.04, 0.06, 0.08, 0.09, 0.10]),
    "shot noise": (_shot_noise, [500, 250, 100, 75, 50]),
    "impulse noise": (_impulse_noise, [0.01, 0.02, 0.03, 0.05, 0.07]),
    "defocus blur": (_defocus_blur, [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)]),
    "glass blur": (_glass_blur, [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)]),
    "motion blur": (_motion_blur, [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]),
    "zoom blur": (_zoom_blur, [1.06, 1.11, 1.16, 1.21, 1.26]),
    "snow": (_snow, [(0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                     (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                     (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)]),
    "fog": (_fog, [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)]),
    "brightness": (_brightness, [0.05, 0.1, 0.15, 0.2, 0.3]),
    "contrast": (_contrast, [0.75, 0.5, 0.4, 0.3, 0.15]),
    "elastic": (_elastic, [(0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)]),
    "JPEG": (_jpeg, [80, 65, 58, 50, 40]),
    "pixelate": (_pixelate, [0.95, 0.9, 0.85, 0.75, 0.65]),
}  # fmt: skip
OFFICIAL = {"elastic": "elastic_transform", "JPEG": "jpeg_compression"}  # files of CIFAR-10-C with another name


def corrupt(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """images: (n, 32, 32, 3) uint8; severity: 1 to 5. Raises InputError for another name or severity."""
    if name not in CORRUPTIONS or severity not in range(1, 6):
        raise InputError(f'"{name}" in severity {severity}: expected 1 to 5 of {", ".join(CORRUPTIONS)}.')
    how, parameters = CORRUPTIONS[name]
    chosen = parameters[severity - 1]
    rng = np.random.default_rng([seed, [*CORRUPTIONS].index(name), severity])
    found = how(images / 255, rng, *(chosen if isinstance(chosen, tuple) else (chosen,)))
    return (255 * found.clip(0, 1)).round().astype(np.uint8)


def official(name: str, severity: int, index: np.ndarray) -> np.ndarray | None:
    """The same test images of the published CIFAR-10-C in $CIFAR10C_ROOT, with its labels' order; None where it is not.

    A file there holds the 10,000 test images five times, one severity after the other.
    """
    root = os.environ.get("CIFAR10C_ROOT")
    if not root:
        return None
    path = Path(root) / f"{OFFICIAL.get(name, name.lower().replace(' ', '_'))}.npy"
    if not path.is_file():
        raise InputError(f"CIFAR10C_ROOT has no {path.name}: expected the files of CIFAR-10-C, or leave it out.")
    return np.load(path, mmap_mode="r")[10_000 * (severity - 1) + np.asarray(index)]
