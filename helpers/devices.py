"""Where and how PyTorch computes: the device, the type of its arithmetic, and a yardstick for its speed."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import time

import torch

from helpers.files import InputError


def keep_memory() -> None:
    """Freed memory stays with this process, where the C library is glibc; a training does it.

    glibc gives a large block back to the system and gets it anew, page by page, for the next step of a training: that
    took a quarter of the time of notebook 2 on a CPU (docs/performance.md).
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


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """The context in which a forward pass runs in `precision`; weights stay float32."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def matmul_flops(device: torch.device, precision: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product: the yardstick for estimates and utilisation."""
    n = 1024 if device.type == "cpu" else 4096
    a, seconds = torch.ones(n, n, device=device, dtype=precision), []
    for _ in range(8):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # .item() waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)
