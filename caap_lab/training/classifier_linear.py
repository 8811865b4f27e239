"""Multinomial logistic regression on features in memory, with the regularisation that suits held-out photos best."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

STRENGTHS = tuple(10.0 ** (half / 2) for half in range(2, -13, -1))
"""Weights of half the squared length of all weights, relative to the mean loss of a photo: 10 to 1e-6."""
_WORSE = 2
"""Number of weaker strengths in a row that suit held-out photos less well, after which the search ends."""
_STEPS = 1000


class LinearHead(NamedTuple):
    """A linear classifier."""

    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"]

    def __call__(self, features: Float[Tensor, "image width"]) -> Float[Tensor, "image classes"]:
        """Logits."""
        return torch.addmm(self.bias, features, self.weight.T)


class Tried(NamedTuple):
    """One strength of the regularisation, and the results of its classifier on held-out photos."""

    strength: float
    loss: float
    """Mean cross entropy."""
    accuracy: float


def choose_strength(
    features: Float[Tensor, "image width"],
    labels: Int[Tensor, " image"],
    held_features: Float[Tensor, "held width"],
    held_labels: Int[Tensor, " held"],
    n_classes: int,
    progress: bool = True,
) -> tuple[LinearHead, list[Tried]]:
    """The classifier whose regularisation has the lowest mean cross entropy on held-out photos, and all results.

    Strengths are tried in decreasing order, each starting from the previous solution.
    """
    tried: list[Tried] = []
    heads: list[LinearHead] = []
    for strength in tqdm(STRENGTHS, desc="Regularisation", leave=False, disable=not progress):
        heads.append(fit(features, labels, n_classes, strength, heads[-1] if heads else None))
        logits = heads[-1](held_features)
        right = (logits.argmax(1) == held_labels).double().mean().item()
        tried.append(Tried(strength, F.cross_entropy(logits, held_labels).item(), right))
        best = min(range(len(tried)), key=lambda place: tried[place].loss)
        if best + _WORSE < len(tried):
            break
    return heads[best], tried


def fit(
    features: Float[Tensor, "image width"],
    labels: Int[Tensor, " image"],
    n_classes: int,
    strength: float,
    start: LinearHead | None = None,
) -> LinearHead:
    """The classifier with the lowest mean cross entropy plus `strength` / 2 times the squared length of its weights.

    Features are first standardised to mean 0 and deviation 1, so that a strength means the same for every model; the
    returned classifier accepts the original features.
    """
    from scipy.optimize import minimize

    mean, std = features.mean(0), features.std(0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    x = (features - mean) / std
    rows = torch.arange(len(x), device=x.device)
    shape = (n_classes, x.shape[1] + 1)

    def loss_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = torch.from_numpy(flat).to(x).view(shape).tensor_split([x.shape[1]], dim=1)
        log_shares = torch.addmm(bias.flatten(), x, weight.T).log_softmax(1)
        loss = -log_shares[rows, labels].double().mean() + strength / 2 * weight.double().square().sum()
        surplus = log_shares.exp()
        surplus[rows, labels] -= 1
        slope = torch.cat([surplus.T @ x / len(x) + strength * weight, surplus.mean(0)[:, None]], dim=1)
        return loss.item(), slope.double().flatten().cpu().numpy()

    first = np.zeros(shape)
    if start is not None:
        first[:, :-1] = (start.weight * std).cpu()
        first[:, -1] = start(mean[None])[0].cpu()
    found = minimize(loss_and_slope, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    weight, bias = torch.from_numpy(found.x).to(x).view(shape).tensor_split([x.shape[1]], dim=1)
    weight = weight / std
    return LinearHead(weight, bias.flatten() - weight @ mean)
