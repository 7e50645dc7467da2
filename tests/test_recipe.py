"""Notebook 2's optimizer, and the weights of the headline runs, both built from the notebooks' own cells."""

import copy
import json

import pytest
import torch

from benchmarks.notebooks import CNN, RESNET, build
from helpers import data, metrics, training
from helpers.batches import Batches

WEIGHTS = data.REPOSITORY / "weights"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe() -> dict:
    return build(CNN, "smoke", CPU, torch.float32)


@pytest.mark.parametrize("shape", [(64, 27), (64, 64), (100, 30)])
def test_orthogonal_pulls_all_singular_values_towards_one_and_keeps_the_directions(recipe, shape):
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u * torch.linspace(1.0, 0.2, len(s)) @ v
    found = recipe["orthogonal"](matrix, rounds=5)
    assert found.shape == shape
    assert found.dtype == torch.float32
    along = u.T @ found @ v.T  # diagonal if the directions are the same
    assert (along - along.diag().diag()).abs().max() < 1e-3
    assert along.diag().min() > 0.6
    assert along.diag().max() < 1.3


def test_orthogonal_does_not_depend_on_the_size_of_the_gradient(recipe):
    torch.manual_seed(0)
    matrix = torch.randn(16, 40)
    torch.testing.assert_close(recipe["orthogonal"](1e3 * matrix), recipe["orthogonal"](matrix), atol=1e-4, rtol=1e-3)
    assert recipe["orthogonal"](torch.zeros(4, 5)).abs().max() == 0


def test_muon_steps_filters_by_hand_and_leaves_the_rest_to_sgd(recipe):
    """One step and a second with momentum, computed here; the 1-D weights must be torch's SGD, bit for bit."""
    torch.manual_seed(0)
    filters, biases = torch.nn.Parameter(torch.randn(8, 3, 3, 3)), torch.nn.Parameter(torch.randn(8))
    twin = torch.nn.Parameter(biases.detach().clone())
    settings = {"lr": 0.1, "momentum": 0.85, "weight_decay": 0.01}
    groups = [{"params": [filters], "lr": 0.2, "momentum": 0.6}, {"params": [biases], **settings}]
    muon = recipe["Muon"](groups, lr=0.1, nesterov=True, momentum=0.85)
    sgd = torch.optim.SGD([twin], nesterov=True, **settings)
    expected, average = filters.detach().clone(), torch.zeros(8, 27)
    for _ in range(2):
        gradient = torch.randn(8, 3, 3, 3)
        filters.grad, biases.grad = gradient.clone(), torch.randn(8)
        twin.grad = biases.grad.clone()
        muon.step()
        sgd.step()
        average = 0.6 * average + gradient.flatten(1)
        step = recipe["orthogonal"](gradient.flatten(1) + 0.6 * average)
        expected = expected * 8**0.5 / expected.norm() - 0.2 * step.view_as(expected)
        torch.testing.assert_close(filters.detach(), expected)
        torch.testing.assert_close(biases, twin, atol=0, rtol=0)


def test_muon_resumes_from_its_state(recipe):
    torch.manual_seed(0)
    gradients = [torch.randn(4, 3, 3, 3) for _ in range(4)]

    def optimizer(w):
        return recipe["Muon"]([{"params": [w]}], lr=0.1, momentum=0.6, nesterov=True)

    whole = torch.nn.Parameter(torch.ones(4, 3, 3, 3))
    muon = optimizer(whole)
    for number, gradient in enumerate(gradients):
        if number == 2:
            half, state = torch.nn.Parameter(whole.detach().clone()), copy.deepcopy(muon.state_dict())
            resumed = optimizer(half)
            resumed.load_state_dict(state)
        for w, o in ((whole, muon), *(((half, resumed),) if number >= 2 else ())):
            w.grad = gradient.clone()
            o.step()
    torch.testing.assert_close(half, whole, atol=0, rtol=0)


def test_the_untrained_network_has_no_opinion(recipe):
    """Its logits are level, and channel k of its first convolution is channel k of the image."""
    model = recipe["model"]
    x = torch.randn(4, 3, 32, 32)
    assert model(x).softmax(1).sub(0.1).abs().max() < 0.08
    torch.testing.assert_close(model[0][0](x)[:, :3], x[:, :, 1:-1, 1:-1])


HEADLINES = {"custom_cnn": CNN, "resnet18": RESNET}


@pytest.mark.parametrize("name", HEADLINES)
def test_weights_of_a_headline_run_give_its_accuracy(name, cifar):
    """The committed float16 weights, in the notebook's own network, on all test images."""
    record = data.REPOSITORY / "results" / f"{name}-full-seed0.json"
    path = WEIGHTS / f"{name}-full-seed0.safetensors"
    if not record.exists():
        assert not path.exists(), "weights without the record of their run"
        pytest.skip(f"{name} has no headline run yet")
    if not path.exists():
        pytest.skip(f"the weights of {name} are not in the repository yet")
    expected = json.loads(record.read_text(encoding="utf-8"))["test"]["accuracy"]
    precision = training.choose_precision(CPU)
    scope = build(HEADLINES[name], "full", CPU, precision)
    training.load_weights(scope["model"], path)
    test = Batches(cifar.test_images, cifar.test_labels, batch_size=500, resolution=scope["side"])
    logits, labels = training.predict(scope["model"], test, precision)
    found = metrics.summary(logits, labels, cifar.class_names)["accuracy"]
    assert abs(found - expected) <= 0.0005


def test_weights_are_small_and_stand_beside_their_records():
    for path in WEIGHTS.glob("*.safetensors"):
        assert (data.REPOSITORY / "results" / f"{path.stem}.json").exists()
        assert path.stat().st_size < 23e6
