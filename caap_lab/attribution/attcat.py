"""AttCAT (Qiang et al. 2022, NeurIPS): input times gradient of tokens, weighted by the attention they receive."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks, on_grid, read_gradients
from caap_lab.attribution.method import method
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT


def attcat(
    model: HookedViT, images: Float[Tensor, "batch 3 height width"], targets: Targets
) -> Float[Tensor, "batch row col"]:
    """Sum over blocks l of abar^l_t sum_d h^l_{t,d} dy/dh^l_{t,d}; signed.

    h^l enters block l, and abar^l_t is the mean over heads and over all queries of block l's attention to token t.
    """
    hooks = block_hooks(model, "resid_pre") + block_hooks(model, "attn.pattern")
    _, activations, gradients = read_gradients(model, images, targets, hooks)
    entering, patterns = activations[: model.n_layers], activations[model.n_layers :]
    blocks = zip(entering, gradients[: model.n_layers], patterns, strict=True)
    return on_grid(model, torch.stack([(h * g).sum(-1) * a.mean((1, 2)) for h, g, a in blocks]).sum(0))


ATTCAT = method(
    attcat,
    name="attcat",
    family="gradient",
    source="Qiang et al. 2022, NeurIPS",
    needs="gradient, attention",
    sign="signed",
    forwards=1,
    backwards=1,
)
