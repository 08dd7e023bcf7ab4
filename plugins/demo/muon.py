"""The optimiser Muon: momentum with orthogonalised updates, for (stacks of) weight matrices.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". PyTorch's own
`torch.optim.Muon` takes plain matrices only; experts are stored as stacks of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that drives singular values towards one."""


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrices, approximately; shape (..., rows, columns)."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: torch.Tensor = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised for each matrix.

    Parameters are (rows, columns) or (count, rows, columns). A group's `parts` says that the rows
    are that many matrices on top of each other, e.g. a gate and an up projection in one tensor:
    each is orthogonalised separately.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.02, momentum: float = 0.95, parts: int = 1
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "parts": parts})

    @torch.no_grad()
    # torch's own signature is an overload that also evaluates the closure, unused here.
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients in `.grad`; parameters without a gradient stay the same."""
        for group in self.param_groups:
            momentum, parts = group["momentum"], group["parts"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - momentum)
                update = parameter.grad.lerp(average, momentum)
                rows, columns = update.shape[-2] // parts, update.shape[-1]
                update = orthogonalise(update.reshape(-1, rows, columns))
                scale = max(1.0, rows / columns) ** 0.5
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)
