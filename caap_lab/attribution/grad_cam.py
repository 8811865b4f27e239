"""Grad-CAM (Selvaraju et al. 2017, ICCV, arXiv 1610.02391) in the three forms that are in use for ViTs."""

from torch import Tensor

from caap_lab.attribution.attention import query_row
from caap_lab.attribution.method import method
from caap_lab.attribution.options import check_choice
from caap_lab.attribution.reading import block_hooks, on_grid, read_gradients
from caap_lab.hooked.model import HookedViT

VERSIONS = ("token", "last_input", "attention")


def grad_cam(model: HookedViT, images: Tensor, targets: Tensor, *, version: str = "token") -> Tensor:
    """Activations a of the last block, weighted by the mean gradient of each channel k or head h.

    Versions:

    - "token": a is the last block's first normalisation at the patches p;
      w_k = mean_p dy/da_{p,k}, map_p = ReLU(sum_k w_k a_{p,k}). It is that of the pytorch-grad-cam package.
    - "last_input": a enters the last block; the mean goes over all tokens t, prefix tokens too, and there is no ReLU:
      w_k = mean_t dy/da_{t,k}, map_p = sum_k w_k a_{p,k} (LibraGrad, Mehri et al. 2025).
    - "attention": A is the last block's attention from the class token to the patches;
      w_h = mean_p dy/dA_{h,p}, map_p = ReLU(mean_h w_h A_{h,p}) (Chefer et al. 2021). Where the head reads other tokens
      than the class token, or more, A and its gradient are means over their query rows; see `query_row`.

    The published min-max to 0..1 is left out: it does not change the order of patches.
    """
    check_choice("version", version, VERSIONS)
    if version == "attention":
        return _attention(model, images, targets)
    if version == "last_input":
        _, (a,), (gradient,) = read_gradients(model, images, targets, block_hooks(model, "resid_pre")[-1:])
        return on_grid(model, (gradient.mean(1, keepdim=True) * a).sum(-1))
    a, gradient = last_norm(model, images, targets)
    return on_grid(model, (gradient.mean(1, keepdim=True) * a).sum(-1).relu())


def last_norm(model: HookedViT, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The last block's first normalisation at the patches [batch, patch, d_model], and the score's gradient there.

    Behind the last attention, patches have no gradient where the head reads the class token alone.
    """
    _, (a,), (gradient,) = read_gradients(model, images, targets, block_hooks(model, "ln1.hook_normalized")[-1:])
    patches = slice(model.spec.n_prefix, None)
    return a[:, patches], gradient[:, patches]


def _attention(model: HookedViT, images: Tensor, targets: Tensor) -> Tensor:
    _, (pattern,), (gradient,) = read_gradients(model, images, targets, block_hooks(model, "attn.pattern")[-1:])
    a, gradient = (query_row(model, x)[..., model.spec.n_prefix :] for x in (pattern, gradient))
    return on_grid(model, (gradient.mean(-1, keepdim=True) * a).mean(1).relu())


GRAD_CAM = method(
    grad_cam,
    name="grad_cam",
    family="gradient",
    source="Selvaraju et al. 2017, arXiv 1610.02391",
    needs="gradient",
    forwards="1",
    backwards="1",
)
