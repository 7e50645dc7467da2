"""helpers.weights, helpers.models, and the committed weights in the networks of the notebooks."""

import json
import sys

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from safetensors.torch import save
from torch import nn
from traitlets.config import Config

from helpers import metrics, models, report, training, weights
from helpers.batches import Batches
from helpers.files import REPOSITORY, InputError

HEADLINES = {"custom_cnn": models.CustomCNN, "resnet18": models.ResNet}


def network(width: int = 8) -> nn.Sequential:
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 900, 10))


def test_weights_come_back_as_float16_rounds_them(tmp_path):
    model, twin = network().to(memory_format=torch.channels_last), network()
    model(torch.randn(4, 3, 32, 32))  # statistics that are not the first ones
    path = tmp_path / "one.safetensors"
    path.write_bytes(weights.packed(model))
    weights.load(twin, path)
    for name, value in model.state_dict().items():
        found, expected = twin.state_dict()[name], value.half().float() if value.is_floating_point() else value
        assert found.dtype == value.dtype
        assert torch.equal(found, expected), name


@pytest.mark.parametrize("content", [save({"0.weight": torch.zeros(1)}), None, b"", b"<html>404 not found</html>"])
def test_weights_that_do_not_fit_or_cannot_be_read_are_refused(tmp_path, content):
    path = tmp_path / "one.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"^one\.safetensors does not fit this model: .+"):
        weights.load(network(), path)


@pytest.mark.parametrize(("value", "said"), [(70_000, r"7e\+04"), (float("nan"), "nan")])
def test_weights_that_float16_cannot_hold_are_refused(value, said):
    model = network()
    model[3].bias.data[2] = value
    with pytest.raises(InputError, match=rf"^3\.bias goes up to {said}: expected values that float16 can hold\.$"):
        weights.packed(model)


def test_parameters_and_operations_of_a_hand_worked_network():
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(5), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(100, 10))
    for side in (32, 16):
        assert weights.forward_flops(model, side) == 2 * side * side * 4 * 3 * 9 + 2 * 100 * 10
    assert model.training
    assert weights.parameter_count(model) == (3 * 4 * 9 + 4) + (4 + 4) + (100 * 10 + 10)
    model[0].requires_grad_(False)
    assert weights.parameter_count(model) == 8 + 1010  # frozen weights are not trainable


@pytest.fixture
def jupyter(tmp_path, monkeypatch):
    """Runs a cell, whose classes stand in __main__ and in no file, and gives the value of its last line."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the shell puts its own there
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}), ipython_dir=str(tmp_path))
    shell.run_cell("from torch import nn")
    return lambda cell: shell.run_cell(cell).result


NET = """
class Net(nn.Linear):
    def forward(self, x):
        return x @ self.weight.T

Net(3, 4)
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [("return", "# a comment\n        return", True), ("        return", "# at the margin\n        return", True),
     ("self.weight.T", "self.weight.T + self.bias", False), ("Net(3, 4)", "Net(3, 5)", False)],
)  # fmt: skip
def test_architecture_in_jupyter_follows_layers_and_own_code(jupyter, old, new, same):
    hashes = {weights.architecture(jupyter(cell)) for cell in (NET, NET.replace(old, new))}
    assert (len(hashes) == 1) is same


def test_models_are_those_of_the_notebooks_cells(jupyter):
    source = report.models_source(REPOSITORY, "models")
    assert (REPOSITORY / "helpers" / "models.py").read_text(encoding="utf-8") == source, "python run.py report"
    for kind in HEADLINES.values():
        assert weights.architecture(jupyter(f"{source}\n{kind.__name__}()")) == weights.architecture(kind())


@pytest.mark.parametrize("name", HEADLINES)
def test_committed_weights_give_their_records_accuracy(name, cifar):
    """The float16 weights on the test images (ResNet-18: some), in the network whose hash the record holds."""
    record = json.loads((REPOSITORY / "results" / f"{name}-full-seed0.json").read_text(encoding="utf-8"))
    model = HEADLINES[name]().to(memory_format=torch.channels_last)
    assert weights.architecture(model) == record["architecture"]
    weights.load(model, REPOSITORY / "weights" / f"{name}-full-seed0.safetensors")
    count, near = (10_000, 0.0005) if name == "custom_cnn" else (2_000, 0.012)
    batches = Batches(cifar.test_images[:count], cifar.test_labels[:count], batch_size=500)
    accuracy = metrics.summary(*training.predict(model, batches), cifar.class_names)["accuracy"]
    assert accuracy == pytest.approx(record["test"]["accuracy"], abs=near)
