"""Grad-CAM (Selvaraju et al. 2017, ICCV, arXiv 1610.02391): on feature maps, and in three forms for ViTs."""

from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import (
    block_hooks,
    on_grid,
    read_gradients,
    read_layer_gradients,
)
from caap_lab.attribution.attention_rows import query_row
from caap_lab.attribution.method import method
from caap_lab.checks import check_choice
from caap_lab.models.base import HookedModel
from caap_lab.models.black_box import BlackBoxModel
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT

Maps = Float[Tensor, "batch channel row col"]
VERSIONS = ("token", "last_input", "attention")


def grad_cam(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    version: str = "token",
) -> Float[Tensor, "batch row col"]:
    """Activations a of the last block, weighted by the mean gradient of each channel k or head h.

    Versions:

    - "token": a is the last block's first normalisation at the patches p;
      w_k = mean_p dy/da_{p,k}, map_p = ReLU(sum_k w_k a_{p,k}). This is the version of the pytorch-grad-cam package.
    - "last_input": a enters the last block; the mean goes over all tokens t, prefix tokens too, and there is no ReLU:
      w_k = mean_t dy/da_{t,k}, map_p = sum_k w_k a_{p,k} (LibraGrad, Mehri et al. 2025).
    - "attention": A is the last block's attention from the class token to the patches;
      w_h = mean_p dy/dA_{h,p}, map_p = ReLU(mean_h w_h A_{h,p}) (Chefer et al. 2021). If the head reads other or more
      tokens than the class token, A and its gradient are means over their query rows; see `query_row`.

    The published min-max scaling to 0..1 is left out: it does not change the order of patches.
    """
    check_choice("version", version, VERSIONS)
    if version == "attention":
        return _attention(model, images, targets)
    if version == "last_input":
        _, (a,), (gradient,) = read_gradients(model, images, targets, block_hooks(model, "resid_pre")[-1:])
        return on_grid(model, (gradient.mean(1, keepdim=True) * a).sum(-1))
    return cam(model, images, targets)


def cam(
    model: HookedModel, images: Float[Tensor, "batch 3 height width"], targets: Targets
) -> Float[Tensor, "batch row col"]:
    """ReLU(sum_k w_k a_k), w_k = mean over the map of dy/da_k, of the maps a of `cam_maps`.

    On a CNN this is the original method; the result has the resolution of the last block. The published min-max scaling
    to 0..1 is left out.
    """
    return weighted_maps(*cam_maps(model, images, targets))


def cam_of_layer(
    model: BlackBoxModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    layer: str | None = None,
) -> Float[Tensor, "batch row col"]:
    """The original method at a layer of a black box, by name; None for the layer with the last maps.

    The result has the resolution of the layer.
    """
    return weighted_maps(*read_layer_gradients(model, images, targets, model.find_layer(layer)))


def weighted_maps(a: Maps, gradient: Maps) -> Float[Tensor, "batch row col"]:
    """ReLU(sum_k w_k a_k), w_k = mean over the map of dy/da_k."""
    return (gradient.mean((2, 3), keepdim=True) * a).sum(1).relu()


def cam_maps(
    model: HookedModel, images: Float[Tensor, "batch 3 height width"], targets: Targets
) -> tuple[Float[Tensor, "batch channel row col"], Float[Tensor, "batch channel row col"]]:
    """The maps that CAM methods weight, and the gradient of the score with respect to them."""
    _, (a,), (gradient,) = read_gradients(model, images, targets, [cam_hook(model)])
    return as_maps(model, a), as_maps(model, gradient)


def cam_hook(model: HookedModel) -> str:
    """The hook point of those maps: a CNN's last block, or the first normalisation of a ViT's last block.

    After the last attention, patches have no gradient if the head reads only the class token.
    """
    return block_hooks(model, "ln1.hook_normalized" if model.kind == "vit" else "resid_post")[-1]


def as_maps(model: HookedModel, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch channel row col"]:
    """An activation at `cam_hook` as maps of its channels; without prefix tokens."""
    return on_grid(model, x).movedim(3, 1) if model.kind == "vit" else x


def _attention(
    model: HookedViT, images: Float[Tensor, "batch 3 height width"], targets: Targets
) -> Float[Tensor, "batch row col"]:
    _, (pattern,), (gradient,) = read_gradients(model, images, targets, block_hooks(model, "attn.pattern")[-1:])
    a, gradient = (query_row(model, x)[..., model.spec.n_prefix :] for x in (pattern, gradient))
    return on_grid(model, (gradient.mean(-1, keepdim=True) * a).mean(1).relu())


GRAD_CAM = method(
    grad_cam,
    name="grad_cam",
    family="gradient",
    source="Selvaraju et al. 2017, arXiv 1610.02391",
    needs="gradient",
    sign="positive",
    signed_with={"version": ("last_input",)},
    forwards=1,
    backwards=1,
    reads="feature maps",
    on={"cnn": cam, "black_box": cam_of_layer},
)
