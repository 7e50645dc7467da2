"""Muon, the optimizer of both PyTorch notebooks: orthogonal steps for the filters, SGD for all other weights.

optimizer = Muon(groups, momentum=0.85, nesterov=True, precision=torch.bfloat16)
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def orthogonal(
    matrix: torch.Tensor,
    rounds: int = 3,
    precision: torch.dtype = torch.float32,
) -> torch.Tensor:
    """About U Vᵀ of matrix = U S Vᵀ, by Newton-Schulz iterations computed in `precision`.

    matrix: (rows, columns); the result has its shape and dtype. The coefficients are
    those of Jordan et al. (2024, "Muon: an optimizer for hidden layers in neural
    networks"): they bring singular values near one in few rounds, and not exactly.
    """
    x = (matrix / (matrix.norm() + 1e-7)).to(precision)
    wide = x if len(x) <= x.shape[1] else x.T
    for _ in range(rounds):
        gram = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    return (wide if len(x) <= x.shape[1] else wide.T).to(matrix.dtype)


class Muon(torch.optim.SGD):
    """Muon for convolutions (weights of four dimensions), SGD for all other weights.

    params, **settings: as of torch.optim.SGD, by parameter or group; convolutions use
    lr and momentum, and are not decayed: each step resets their length, as BatchNorm
    divides it out.
    precision: of the matrix products that make a step orthogonal; weights and averages
    stay in their own dtype.
    """

    def __init__(self, params, *, precision: torch.dtype = torch.float32, **settings):
        super().__init__(params, **settings)
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        for group in self.param_groups:
            for w in [w for w in group["params"] if w.ndim == 4 and w.grad is not None]:
                if "momentum_buffer" not in self.state[w]:
                    self.state[w]["momentum_buffer"] = torch.zeros_like(w)
                average = self.state[w]["momentum_buffer"]
                average.mul_(group["momentum"]).add_(w.grad)
                direction = w.grad + group["momentum"] * average  # Nesterov
                w.mul_(len(w) ** 0.5 / w.norm())
                step = orthogonal(direction.flatten(1), precision=self.precision)
                w.sub_(group["lr"] * step.view_as(w))
                w.grad = None  # SGD has nothing to do here
        return super().step(closure)
