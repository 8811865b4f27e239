"""FullGrad+: IxG+ plus the terms of the biases (FullGrad, Srinivas & Fleuret 2019, NeurIPS, arXiv 1905.00780).

As a sum over blocks it is a baseline of Mehri et al. 2024 (CVPR Workshops) and Mehri et al. 2025 (CVPR, LibraGrad).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import on_grid
from caap_lab.attribution.biases import POSITIONS, BiasTerm, read_biases
from caap_lab.attribution.method import method
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

_OF_POOLED_TOKENS = ("vit.attn_pool.kv", "vit.attn_pool.k_norm", POSITIONS)


def full_grad_plus(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    first_term: str = "before_norm_pre",
) -> Float[Tensor, "batch row col"]:
    """Sum over all blocks l of FullGrad^l_t = sum_d h^l_{t,d} dy/dh^l_{t,d} + sum_b <b, dy/db_t>; signed.

    h^l enters block l. The b are all biases from block l to the logit: those of linear layers and norms in blocks l ...
    L-1, of the final norm, and of the head. So the biases in block k count k + 1 times in the map, and those after the
    last block L times. dy/db_t is the gradient where b is added to token t.

    Biases after the pooling do not belong to a token. They are assigned to the class token, which the map leaves out
    like all prefix tokens; in a model without one they are spread evenly over the tokens that the head reads. Under
    `libragrad` all tokens of FullGrad^l, prefix tokens included, sum to the logit y at every l; see
    `full_grad_of_tokens`.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        first_term: Where h^0 is read in models with a norm before block 0; see `ixg_plus`. By default it is read before
            the norm, whose bias then belongs to FullGrad^0.
    """
    return on_grid(model, full_grad_of_tokens(model, images, targets, first_term).sum(1))


def full_grad_of_tokens(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    first_term: str = "before_norm_pre",
) -> Float[Tensor, "batch layer token"]:
    """FullGrad^l_t for every block l and every token t, prefix tokens first; see `full_grad_plus`."""
    _, streams, biases = read_biases(model, images, targets, first_term)
    found = torch.stack([products.sum(-1) for products in streams], dim=1)
    for term in biases:
        found[:, : term.block + 1] += _of_tokens(model, term)[:, None]
    return found


def _of_tokens(model: HookedViT, term: BiasTerm) -> Float[Tensor, "batch token"]:
    """A bias's products summed over channels, at the tokens to which it is added."""
    products = term.products.sum(-1)
    if products.ndim == 3:
        products = products.sum(1)  # over heads, after a norm of queries or keys
    if term.block < model.n_layers or (term.name == "vit.norm" and products.ndim == 2):
        return products
    found = products.new_zeros(len(products), model.spec.n_tokens)
    read = list(model.spec.read_tokens)
    if term.name in _OF_POOLED_TOKENS:
        found[:, read] = products
    elif "cls" in model.spec.prefix:
        found[:, 0] = products.reshape(len(products), -1).sum(1)
    else:
        found[:, read] = products.reshape(len(products), -1).sum(1, keepdim=True) / len(read)
    return found


FULL_GRAD_PLUS = method(
    full_grad_plus,
    name="full_grad_plus",
    family="gradient",
    source="FullGrad, Srinivas & Fleuret 2019, arXiv 1905.00780; summed over blocks in LibraGrad, Mehri et al. 2025, "
    "CVPR",
    needs="gradient",
    sign="signed",
    forwards=1,
    backwards=1,
)
