"""A trained PyTorch network with all that it needs inside: resizing, normalisation, class names, its temperature.

What torch.hub gives (hubconf.py), what `predict` asks, and what notebook 6 exports.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers import models, weights
from helpers.data import CLASS_NAMES, MEAN, STD
from helpers.files import InputError

NETWORKS = {"custom_cnn": models.CustomCNN, "resnet18": models.ResNet}  # and with -augmix behind the name


class Pretrained(nn.Module):
    """(n, 3, height, width), uint8 or floats in 0..1 -> (n, 10) calibrated logits: their softmax are probabilities.

    Pictures of another size than 32×32 are cropped to the square in their middle and averaged over areas, or enlarged.
    Raises InputError for floats outside 0..1.
    """

    class_names = CLASS_NAMES

    def __init__(self, network: nn.Module, temperature: float = 1.0, means: list | None = None):
        super().__init__()
        self.register_buffer("means", None if means is None else F.normalize(torch.tensor(means).float()), False)
        last, self.head = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Linear)][-1]
        network.set_submodule(last, nn.Identity())
        self.features, self.temperature = network, temperature
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.both(pictures)[0]

    def described(self, pictures: torch.Tensor) -> torch.Tensor:
        """The features that reach the last layer, (n, f)."""
        x = pictures if pictures.is_floating_point() else pictures.float() / 255
        if pictures.is_floating_point() and not torch.compiler.is_compiling() and len(x):
            low, high = (float(end) for end in x.detach().aminmax())
            if not 0 <= low <= high <= 1:
                raise InputError(f"floats from {low:.4g} to {high:.4g}: expected 0 to 1, not normalised, or uint8.")
        height, width = x.shape[2:]
        if (height, width) != (32, 32):
            side = min(height, width)
            x = _shares(height, side).to(x) @ x @ _shares(width, side).to(x).T
        return self.features((x - self.mean) / self.std)

    def both(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits, and how close each picture is to what was seen, (n,): the length of its vector of features, or
        where their means are known, the cosine to those of the nearest class."""
        features = self.described(pictures)
        likeness = features.norm(dim=1) if self.means is None else (F.normalize(features) @ self.means.T).amax(1)
        return self.head(features) / self.temperature, likeness


def _shares(length: int, side: int) -> torch.Tensor:
    """(32, length): what each pixel of an edge adds to each of 32 along the middle `side` of it, as Pillow has it.

    Means of the pixels whose centre lies in an area (BOX), or between two neighbours where there are fewer (BILINEAR).
    """
    step, pixel = side / 32, torch.arange(length, dtype=torch.float64) + 0.5
    apart = (pixel - (length - side) / 2 - (torch.arange(32)[:, None] + 0.5) * step) / max(step, 1)
    share = (1 - apart.abs()).clamp_min(0) if side < 32 else ((apart > -0.5) & (apart <= 0.5)).double()
    return share / share.sum(1, keepdim=True)


def answering(name: str, path: Path, temperature: float, means: list | None) -> tuple[Callable, Pretrained]:
    """What `predict` asks of the network of this name with the weights in a file, and the network.

    The first: images (n, 32, 32, 3) uint8 -> logits over the temperature (n, 10), and the second of `both` (n,).
    Raises InputError for weights that do not fit.
    """
    network = NETWORKS[name.removesuffix("-augmix")]()
    weights.load(network, path)
    network = Pretrained(network, temperature, means).eval()

    def answer(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            pictures = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
            parts = [network.both(part) for part in pictures.split(250)]
        return tuple(torch.cat(part).float().numpy() for part in zip(*parts))

    return answer, network
