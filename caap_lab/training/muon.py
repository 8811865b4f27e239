"""The Muon optimiser (Jordan et al. 2024, kellerjordan.github.io/posts/muon) in float32.

`torch.optim.Muon` orthogonalises in bfloat16, which processors without bfloat16 units emulate: there it costs as much
as the forward and backward pass of a demo backbone. This version processes all matrices of one shape together, in
float32.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's quintic: steepest at 0, settles within 0.7 to 1.2
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised: all singular values of an update are brought close to 1.

    The step is scaled by 0.2 sqrt(max(rows, columns)), which gives it AdamW's usual size (Liu et al. 2025, arXiv
    2502.16982), so that both can share a learning rate.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix from its gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                updates = torch.stack([self._averaged(matrix, group["momentum"]) for matrix in matrices])
                scale = 0.2 * max(shape) ** 0.5
                for matrix, update in zip(matrices, orthogonalised(updates), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"] * scale)

    def _averaged(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov momentum: the running mean, one step ahead."""
        if matrix.grad is None:
            raise ValueError("a matrix has no gradient")
        mean = self.state[matrix].setdefault("mean", torch.zeros_like(matrix.grad))
        mean.lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(mean, momentum)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices [n, rows, columns] with their singular values moved close to 1, by Newton-Schulz iteration."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _NEWTON_SCHULZ
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
