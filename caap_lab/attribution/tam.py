"""Transition Attention Maps: attention as a Markov chain, weighted by integrated gradients (Yuan et al. 2021)."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks, on_grid, read_activations, read_gradients
from caap_lab.attribution.attention_rows import query_row
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.method import method
from caap_lab.checks import check_count, first_block
from caap_lab.errors import InputError
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT


def tam(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    steps: int = 20,
    start_layer: int = 0,
) -> Float[Tensor, "batch row col"]:
    """(s W)[patches]: what reaches the class token's last state, times how the score depends on its last attention.

    With Abar^l = mean_h A^l_h:

    - s = Abar^{L-1}[CLS, :], then s <- s Abar^l + s for l = L-2, ..., start;
    - W = mean_h ReLU(1/T sum_t dy_c(alpha_t x) / dA^{L-1}_h[CLS, :]), with T values alpha_t from 0 to 1, both included.

    The path starts at 0 in normalised space. If the head reads other tokens than the class token, their rows are used
    in s and in the gradient; see `attention_rows.query_row`.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        steps: Number of images on the path.
        start_layer: First block of the chain; a negative number counts from the end. The authors' scripts start at
            block 4, which gives other maps.
    """
    start_layer = first_block(model.n_layers, start_layer)
    check_count("steps", steps)
    if steps < 2:
        raise InputError(f"steps={steps} must be at least 2: the path has two ends.")
    hooks = block_hooks(model, "attn.pattern")
    _, patterns = read_activations(model, images, hooks[start_layer:])
    means = [widened(a).mean(dim=1) for a in patterns]
    reached = query_row(model, means[-1])
    for mean in reversed(means[:-1]):
        reached = (reached[:, None] @ mean)[:, 0] + reached
    slopes = torch.zeros_like(query_row(model, widened(patterns[-1])))
    for share in torch.linspace(0, 1, steps, dtype=torch.double, device="cpu").tolist():
        _, _, (gradient,) = read_gradients(model, share * images, targets, hooks[-1:])
        slopes += query_row(model, widened(gradient)) / steps
    return on_grid(model, reached * slopes.clamp(min=0).mean(dim=1))


TAM = method(
    tam,
    name="tam",
    family="attention",
    source="Explaining information flow inside Vision Transformers using Markov chains, Yuan et al. 2021, "
    "NeurIPS workshop XAI4Debugging",
    needs="attention, gradient",
    sign="positive",
    forwards=Passes(lambda size, options: 1 + options["steps"]),
    backwards=Passes(lambda size, options: options["steps"]),
)
