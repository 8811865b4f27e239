"""Rules of layer-wise relevance propagation that Chefer et al. (CVPR 2021, arXiv 2012.09838) use, alpha = 1, beta = 0.

Each maps the relevance of an operation's output to that of its inputs, with the same total. Relevance is lost only in
quotients R / Z: all of it where Z = 0 (in the linear rule, if an output has no positive product), and a fraction of
1e-9 / |Z| elsewhere.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

GUARD = 1e-9


def quotient(numerator: Float[Tensor, "*#shape"], denominator: Float[Tensor, "*#shape"]) -> Float[Tensor, "..."]:
    """The quotient n / (d + sign(d) 1e-9), and 0 where d = 0."""
    guarded = denominator + GUARD * denominator.sign()
    return torch.where(denominator == 0, 0, numerator / torch.where(denominator == 0, 1, guarded))


def linear_rule(
    relevance: Float[Tensor, "*batch d_out"], x: Float[Tensor, "*batch d_in"], weight: Float[Tensor, "d_out d_in"]
) -> Float[Tensor, "*batch d_in"]:
    """Relevance of inputs: that of each output, in proportion to the positive products x_i w_ji; the bias gets none."""
    x_up, x_down = x.clamp(min=0), x.clamp(max=0)
    w_up, w_down = weight.to(x.dtype).clamp(min=0), weight.to(x.dtype).clamp(max=0)
    share = quotient(relevance, F.linear(x_up, w_up) + F.linear(x_down, w_down))
    return x_up * (share @ w_up) + x_down * (share @ w_down)


def combined_rule(
    relevance: Float[Tensor, "batch 1"],
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    shares: Float[Tensor, "batch d_out"],
) -> Float[Tensor, "batch d_in"]:
    """The linear rule for one output of each image, the sum of all in shares: a layer of those sums of rows."""
    rows = shares.to(weight) @ weight
    one_by_one = zip(relevance.split(1), x.split(1), rows.split(1), strict=True)
    return torch.cat([linear_rule(of_output, of_image, row) for of_output, of_image, row in one_by_one])


def add_rule(
    relevance: Float[Tensor, "batch *rest"], first: Float[Tensor, "batch *rest"], second: Float[Tensor, "batch *rest"]
) -> tuple[Float[Tensor, "batch *rest"], Float[Tensor, "batch *rest"]]:
    """Relevance of u and v in z = u + v.

    The relevance of each element is first split into u R/z and v R/z. Where z is near 0 these are large and of opposite
    signs, so both are then rescaled, per image, so that their totals split sum R in proportion to |sum u R/z| and |sum
    v R/z|.
    """
    ratio = quotient(relevance, first + second)
    parts = first * ratio, second * ratio
    dims = tuple(range(1, relevance.ndim))
    totals = [part.sum(dims, keepdim=True) for part in parts]
    scale = quotient(relevance.sum(dims, keepdim=True), totals[0].abs() + totals[1].abs())
    return parts[0] * totals[0].sign() * scale, parts[1] * totals[1].sign() * scale


def clone_rule(first: Float[Tensor, "*shape"], second: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Relevance of an activation that two branches read: the sum of theirs."""
    return first + second


def matmul_rule(
    relevance: Float[Tensor, "*batch row col"],
    first: Float[Tensor, "*batch row inner"],
    second: Float[Tensor, "*batch inner col"],
) -> tuple[Float[Tensor, "*batch row inner"], Float[Tensor, "*batch inner col"]]:
    """Relevance of U and V in Z = U V: each product u_ik v_kj gets the share u_ik v_kj / z_ij, half for each factor."""
    of_first, of_second = matmul_slopes(relevance, first, second)
    return first * of_first, second * of_second


def matmul_slopes(
    relevance: Float[Tensor, "*batch row col"],
    first: Float[Tensor, "*batch row inner"],
    second: Float[Tensor, "*batch inner col"],
) -> tuple[Float[Tensor, "*batch row inner"], Float[Tensor, "*batch inner col"]]:
    """The factors by which `matmul_rule` multiplies U and V.

    If U = U' M is linear in another U', like rotated queries in unrotated ones, the products of Z = U' M V are split in
    the same way by U' times these values times M^T.
    """
    ratio = quotient(relevance, first @ second)
    return ratio @ second.mT / 2, first.mT @ ratio / 2


def mean_rule(
    relevance: Float[Tensor, "batch d_model"], x: Float[Tensor, "batch token d_model"]
) -> Float[Tensor, "batch token d_model"]:
    """Relevance of tokens from that of their mean: in proportion to the values with the sign of the mean.

    The paper's models have no mean over tokens. The quotient x / sum x would explode where values cancel, as in a sum
    over hundreds of tokens; the linear rule, which uses positive values, would give the relevance of a negative mean to
    the tokens that oppose it.
    """
    mean = x.mean(dim=1, keepdim=True)
    agreeing = (x * mean.sign()).clamp(min=0)
    return agreeing * quotient(relevance[:, None], agreeing.sum(dim=1, keepdim=True))
