"""Where and how PyTorch computes: the device, the type of its arithmetic, and a yardstick for its speed."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from helpers.files import InputError
from helpers.profiles import check


def keep_memory() -> None:
    """Freed memory stays with this process, where the C library is glibc; a training does it.

    glibc gives a large block back to the system and gets it anew, page by page, for the next step of a training
    (docs/performance.md).
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):  # Windows, macOS, musl
        allocator = ctypes.CDLL(None)
        for option, value in ((-4, 0), (-1, -1), (-2, 2**28)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            allocator.mallopt(option, value)


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" gives CUDA, else Apple's MPS, else the CPU; any other name is taken as it is.

    Raises InputError for a device that is not here.
    """
    here = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    check("DEVICE", name)
    if name == "auto":
        return torch.device(here[0])
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in here or (number and not (number.isdigit() and int(number) < count)):
        raise InputError(f'DEVICE is "{name}", and this machine has {", ".join(here)}: use one of these or "auto".')
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """The device in words, for prints and records: "NVIDIA H100" or "CPU, 2 threads, AVX512"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"{device.type.upper()}, {platform.machine()}"


def choose_precision(device: torch.device) -> torch.dtype:
    """The type for autocast: bfloat16 where the hardware has it, float16 on older CUDA, float32 otherwise.

    On a CPU that is AVX-512 BF16 or AMX. (PyTorch runs bfloat16 on every CPU, at a third of float32's speed where the
    instructions are missing.) It follows the hardware and not the clock: a resumed run must choose the same.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # absent from some builds: then float32
        return torch.bfloat16 if any(getattr(torch.cpu, name, bool)() for name in asked) else torch.float32
    return torch.float32


def precision_name(precision: torch.dtype) -> str:
    """ "bfloat16" """
    return str(precision).removeprefix("torch.")


@contextlib.contextmanager
def autocast(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """The context in which a forward pass runs in `precision`; weights stay float32."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    quick = device.type == "cpu" and precision == torch.bfloat16 and amx
    casting = torch.autocast(device.type, precision, enabled=precision != torch.float32)
    with casting, SideBySide() if quick else contextlib.nullcontext():
        yield


class SideBySide(TorchFunctionMode):
    """3×3 convolutions of maps of a few pixels, with the images of a batch side by side in wide pictures.

    oneDNN, which computes them on a CPU, fills the tiles of AMX along the rows of a map, and wastes most of its work
    where a row is short (docs/performance.md). With a column of zeros between neighbours the sums are the same. (Other
    processors do not gain by it.)
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.conv2d and (images := images_in_a_row(*args, **kwargs)):
            return side_by_side(images, *args, **kwargs)
        return function(*args, **kwargs)


def images_in_a_row(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> int:
    """How many images of a batch to put side by side; 0 where that is not quicker or not possible."""
    usual = (tuple(weight.shape[2:]), padding, dilation, groups) == ((3, 3), (1, 1), (1, 1), 1)
    if not usual or x.ndim != 4 or stride not in ((1, 1), (2, 2)) or min(weight.shape[:2]) < 64:
        return 0
    if x.shape[3] // stride[1] > (8 if torch.is_grad_enabled() else 4):
        return 0
    return next((count for count in range(25, 4, -1) if len(x) % count == 0), 0)


def side_by_side(
    images: int, x: torch.Tensor, weight: torch.Tensor, bias=None, stride=(1, 1), *_, **__
) -> torch.Tensor:
    """conv2d(x, weight, bias, stride, padding=1) of x (n, channels, height, width), so many images in a row."""
    (n, channels, height, width), step = x.shape, stride[1]
    wide = (width // step + 1) * step  # with the zeros: a multiple of the stride
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, wide - width)).view(-1, images, height, wide, channels)
    x = x.transpose(1, 2).reshape(n // images, height, images * wide, channels)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, padding=1).permute(0, 2, 3, 1)
    y = y.reshape(n // images, y.shape[1], images, wide // step, -1).transpose(1, 2)
    y = y[:, :, :, : (width - 1) // step + 1].reshape(n, y.shape[2], (width - 1) // step + 1, -1)
    return y.permute(0, 3, 1, 2)


def matmul_flops(device: torch.device, precision: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product: the yardstick for estimates and utilisation."""
    n = 1024 if device.type == "cpu" else 4096
    a, seconds = torch.ones(n, n, device=device, dtype=precision), []
    for _ in range(8):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # .item() waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)
