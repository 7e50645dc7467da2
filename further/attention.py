"""Where a network looks: Grad-CAM (R. Selvaraju et al., ICCV 2017, arXiv 1610.02391), by captum."""

from __future__ import annotations

import threading

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from matplotlib import colormaps
from PIL import Image

from helpers.pretrained import Pretrained

_lock = threading.Lock()  # captum's hooks are the layer's


def attention(module: Pretrained, pixels: np.ndarray, label: int) -> np.ndarray:
    """How much each place of a picture spoke for a class: (32, 32) from 0 to 1.

    pixels: (32, 32, 3) uint8. The last maps of the network count, which have 3×3 or 4×4 places.
    """
    layer = module.features.stages[-1] if hasattr(module.features, "stages") else module.features[2]
    picture = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
    with _lock, torch.enable_grad():
        found = LayerGradCam(module, layer).attribute(picture, target=int(label), relu_attributions=True)
    found = LayerAttribution.interpolate(found.detach(), (32, 32), "bilinear")[0, 0].numpy()
    return found / max(found.max(), 1e-9)


def lit(module: Pretrained, pixels: np.ndarray, label: int, side: int = 320) -> np.ndarray:
    """The picture under a map of heat, yellow where the network looked: (side, side, 3) uint8."""
    large, light = (np.asarray(Image.fromarray(part).resize((side, side), how)) for part, how in (
        (pixels, Image.Resampling.NEAREST), (attention(module, pixels, label), Image.Resampling.BILINEAR),
    ))  # fmt: skip
    return (0.5 * large + 0.5 * 255 * colormaps["inferno"](light)[..., :3]).astype(np.uint8)
