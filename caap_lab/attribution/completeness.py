"""Completeness of gradient times input: does it, with the biases' share, add up to the logit at every block?"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from caap_lab.attribution.reading import block_hooks
from caap_lab.hooked.base import Images, check_kind
from caap_lab.hooked.batches import batches, check_images
from caap_lab.hooked.model import HookedViT


def completeness_error(
    model: HookedViT,
    images: Images,
    target: int | str | Sequence[int | str] | None = None,
    *,
    progress: bool = True,
) -> Float[Tensor, "image layer"]:
    """|sum_t,d h^l_{t,d} dy/dh^l_{t,d} + sum_b <b, dy/db> - y| / |y| for every block l (LibraGrad, Mehri et al. 2025).

    y is the target's logit, h^l the residual stream entering block l, and b every bias from block l on. Within
    `libragrad` it is near zero; with plain gradients it is not. One forward and one backward pass an image.

    Args:
        model: The model.
        images: One image, or several.
        target: One for all images or one each; None for the model's own prediction.
        progress: Show a progress bar for more than one image.

    Returns:
        Relative errors, on the CPU. Where the head reads class tokens of several blocks (a DINOv2 head of four), only
        layers up to the first of these: later streams do not hold all that the head reads.
    """
    check_kind(model, "completeness_error")
    singles = check_images(images)
    wanted = None if target is None else model.targets(target, len(singles))
    biases = dict(_biases(model))
    asked = {name: bias.requires_grad for name, bias in biases.items()}
    rows = []
    try:
        for bias in biases.values():
            bias.requires_grad_(True)
        bar = tqdm(
            batches(model, singles, 1), total=len(singles), unit="image", disable=not progress or len(singles) == 1
        )
        for row, image in enumerate(bar):
            rows.append(_errors(model, image, None if wanted is None else wanted[row], biases))
    finally:
        for name, bias in biases.items():
            bias.requires_grad_(asked[name])
    return torch.stack(rows)


def _errors(model: HookedViT, image: Tensor, target: int | None, biases: dict[str, nn.Parameter]) -> Tensor:
    entering: list[Tensor] = []

    def keep(x: Tensor, hook: object) -> Tensor:
        entering.append(x.view_as(x))
        return entering[-1]

    with torch.enable_grad(), model.hooks(fwd_hooks=[(name, keep) for name in block_hooks(model, "resid_pre")]):
        logits = model(image.requires_grad_())[0]
        y = logits[int(logits.argmax()) if target is None else target]
        gradients = torch.autograd.grad(y, [*entering, *biases.values()], allow_unused=True)
    products = [
        0.0 if gradient is None else float((value.detach() * gradient).double().sum())
        for value, gradient in zip([*entering, *biases.values()], gradients, strict=True)
    ]
    of_bias = dict(zip(biases, products[model.n_layers :], strict=True))
    sums = [
        product + sum(share for name, share in of_bias.items() if _block_of(name, model.n_layers) >= layer)
        for layer, product in enumerate(products[: model.n_layers - model.class_layers + 1])
    ]
    logit = float(y.detach())
    return (torch.tensor(sums) - logit).abs() / abs(logit)


def _biases(model: HookedViT) -> Iterator[tuple[str, nn.Parameter]]:
    """Everything that is added to the stream from block 0 on."""
    for name, parameter in model.named_parameters():
        added = name.endswith("bias") or name == "vit.attn_pool.pos_embed"
        if added and _block_of(name, model.n_layers) >= 0:
            yield name, parameter


def _block_of(name: str, n_layers: int) -> int:
    """The block that a parameter belongs to: -1 before the first, n_layers behind the last."""
    if name.startswith("vit.blocks."):
        return int(name.split(".")[2])
    return -1 if name.startswith(("vit.patch_embed.", "vit.norm_pre.")) else n_layers
