"""helpers.devices: where PyTorch computes here, and in which type."""

import contextlib
import platform
import resource

import pytest
import torch

from helpers import devices
from helpers.files import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FLAGS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.fixture
def machine(monkeypatch):
    """machine("cuda", "mps") is a machine that has those (and one GPU); without names it has a CPU alone."""

    def pretend(*names):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int("cuda" in names))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in names)

    return pretend


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
def test_freed_memory_is_used_again_without_asking_the_system():
    def page_faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(10_000_000).fill_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    devices.keep_memory()
    assert sum(page_faults() for _ in range(40)) < 200_000, "40 times 40 MB are 390,000 pages"


@pytest.mark.parametrize(
    ("here", "asked", "given"),
    [((), "auto", "cpu"), (("mps",), "auto", "mps"), (("cuda", "mps"), "auto", "cuda"), (("cuda",), "cpu", "cpu"),
     (("cuda",), "cuda:0", "cuda:0"), (("cuda", "mps"), "mps", "mps")],
)  # fmt: skip
def test_device_is_the_best_one_or_the_one_asked_for(machine, here, asked, given):
    machine(*here)
    assert devices.choose_device(asked) == torch.device(given)


@pytest.mark.parametrize(
    ("here", "asked"),
    [((), "cuda"), ((), "cuda:0"), ((), "mps"), ((), "tpu"), ((), "gpu"), ((), ""), ((), "CPU"),
     (("cuda",), "cuda:1"), (("cuda",), "cuda:x")],
)  # fmt: skip
def test_device_that_is_not_here_is_refused(machine, here, asked):
    machine(*here)
    message = f'DEVICE is "{asked}", and this machine has {", ".join([*here, "cpu"])}: use one of these or "auto".'
    with pytest.raises(InputError) as error:
        devices.choose_device(asked)
    assert str(error.value) == message


@pytest.mark.parametrize("answers", [(True, False), (False, True), (True, True), (False, False), None])
def test_precision_follows_the_hardware_and_not_the_clock(monkeypatch, answers):
    """A resumed run must choose the same type, however busy the machine is. None: PyTorch cannot be asked."""
    for name, answer in zip(FLAGS, answers or (False, False)):
        monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
        if answers is None:
            monkeypatch.delattr(torch.cpu, name)
    assert devices.choose_precision(CPU) == (torch.bfloat16 if answers and any(answers) else torch.float32)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(answers and answers[0]))
    assert devices.choose_precision(CUDA) == (torch.bfloat16 if answers and answers[0] else torch.float16)
    assert devices.choose_precision(torch.device("mps")) == torch.float32


@pytest.mark.parametrize(("precision", "name"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16")])
def test_device_and_precision_in_words_and_at_work(precision, name):
    assert devices.precision_name(precision) == name
    assert devices.device_name(CPU).startswith(f"CPU, {torch.get_num_threads()} threads, ")
    with devices.autocast(CPU, precision):
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == precision
    assert 0 < devices.matmul_flops(CPU, precision) < float("inf")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (3, 3), (5, 4), (8, 8), (6, 7), (15, 15)])
@pytest.mark.parametrize(("images", "bias"), [(50, True), (7, False)])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_of_small_maps_side_by_side_is_the_usual_one(height, width, images, bias, stride):
    torch.manual_seed(0)
    x = torch.randn(images, 64, height, width, dtype=torch.float64, requires_grad=True)
    layer = torch.nn.Conv2d(64, 64, 3, stride, padding=1, bias=bias, dtype=torch.float64)
    found = []
    for way in (contextlib.nullcontext(), devices.SideBySide()):
        with way:
            y = layer(x)
        found.append((y, *torch.autograd.grad((y * torch.linspace(0, 1, 64).view(64, 1, 1)).sum(), (x, layer.weight))))
    for usual, ours in zip(*found):
        torch.testing.assert_close(ours, usual)


def test_only_small_maps_of_many_images_and_usual_convolutions_are_put_side_by_side():
    x, weight = torch.zeros(500, 64, 8, 8), torch.zeros(96, 64, 3, 3)
    plain = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    assert devices.images_in_a_row(x, weight, **plain) == 25
    assert devices.images_in_a_row(x[:128], weight, **plain) == 16
    for other in ({"padding": (0, 0)}, {"stride": (3, 3)}, {"dilation": (2, 2)}, {"groups": 2}, {"padding": "same"}):
        assert devices.images_in_a_row(x, weight, **plain | other) == 0
    assert devices.images_in_a_row(x[:1], weight, **plain) == devices.images_in_a_row(x[:37], weight, **plain) == 0
    assert devices.images_in_a_row(x, torch.zeros(96, 64, 1, 1), **plain) == 0
    assert devices.images_in_a_row(x, torch.zeros(32, 64, 3, 3), **plain) == 0
    assert devices.images_in_a_row(torch.zeros(500, 64, 9, 9), weight, **plain) == 0
    with torch.no_grad():  # an answer alone gains at smaller maps
        assert devices.images_in_a_row(x, weight, **plain) == 0
        assert devices.images_in_a_row(x[:, :, :4, :4], weight, **plain) == 25


def test_bfloat16_with_amx_alone_puts_them_side_by_side(monkeypatch):
    used, original = [], devices.side_by_side
    monkeypatch.setattr(devices, "side_by_side", lambda *all_: used.append((precision, amx)) or original(*all_))
    for precision in (torch.bfloat16, torch.float32):
        for amx in (True, False):
            monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
            with devices.autocast(CPU, precision):
                torch.nn.Conv2d(64, 64, 3, padding=1)(torch.zeros(50, 64, 4, 4))
    assert used == [(torch.bfloat16, True)]
