"""Notebook 2's first weights, and the weights of the headline runs, in networks built from the notebooks' own cells."""

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


def test_the_untrained_network_has_no_opinion(recipe):
    assert recipe["model"](torch.randn(4, 3, 32, 32)).softmax(1).sub(0.1).abs().max() < 0.08


HEADLINES = {"custom_cnn": CNN, "resnet18": RESNET}


@pytest.mark.parametrize("name", HEADLINES)
def test_weights_of_a_headline_run_give_its_accuracy(name, cifar):
    """The committed float16 weights, in the notebook's own network, on all test images."""
    record = data.REPOSITORY / "results" / f"{name}-full-seed0.json"
    path = WEIGHTS / f"{name}-full-seed0.safetensors"
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
