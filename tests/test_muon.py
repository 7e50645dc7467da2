"""The optimizer of both PyTorch notebooks."""

import copy

import pytest
import torch

from helpers.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(64, 27), (64, 64), (100, 30)])
def test_orthogonal_pulls_all_singular_values_towards_one_and_keeps_the_directions(shape):
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u * torch.linspace(1.0, 0.2, len(s)) @ v
    found = orthogonal(matrix, rounds=5)
    assert found.shape == shape
    assert found.dtype == torch.float32
    along = u.T @ found @ v.T  # diagonal if the directions are the same
    assert (along - along.diag().diag()).abs().max() < 1e-3
    assert along.diag().min() > 0.6
    assert along.diag().max() < 1.3


def test_orthogonal_does_not_depend_on_the_size_of_the_gradient():
    torch.manual_seed(0)
    matrix = torch.randn(16, 40)
    torch.testing.assert_close(orthogonal(1e3 * matrix), orthogonal(matrix), atol=1e-4, rtol=1e-3)
    assert orthogonal(torch.zeros(4, 5)).abs().max() == 0


def test_muon_steps_filters_by_hand_and_leaves_the_rest_to_sgd():
    """One step and a second with momentum, computed here; the 1-D weights must be torch's SGD, bit for bit."""
    torch.manual_seed(0)
    filters, biases = torch.nn.Parameter(torch.randn(8, 3, 3, 3)), torch.nn.Parameter(torch.randn(8))
    twin = torch.nn.Parameter(biases.detach().clone())
    settings = {"lr": 0.1, "momentum": 0.85, "weight_decay": 0.01}
    groups = [{"params": [filters], "lr": 0.2, "momentum": 0.6}, {"params": [biases], **settings}]
    muon = Muon(groups, lr=0.1, nesterov=True, momentum=0.85)
    sgd = torch.optim.SGD([twin], nesterov=True, **settings)
    expected, average = filters.detach().clone(), torch.zeros(8, 27)
    for _ in range(2):
        gradient = torch.randn(8, 3, 3, 3)
        filters.grad, biases.grad = gradient.clone(), torch.randn(8)
        twin.grad = biases.grad.clone()
        muon.step()
        sgd.step()
        average = 0.6 * average + gradient.flatten(1)
        step = orthogonal(gradient.flatten(1) + 0.6 * average)
        expected = expected * 8**0.5 / expected.norm() - 0.2 * step.view_as(expected)
        torch.testing.assert_close(filters.detach(), expected)
        torch.testing.assert_close(biases, twin, atol=0, rtol=0)


def test_muon_resumes_from_its_state():
    torch.manual_seed(0)
    gradients = [torch.randn(4, 3, 3, 3) for _ in range(4)]

    def optimizer(w):
        return Muon([{"params": [w]}], lr=0.1, momentum=0.6, nesterov=True)

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
