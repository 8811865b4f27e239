"""Score-CAM (Wang et al. 2020, CVPR Workshops, arXiv 1910.01279) on the patch tokens of a ViT."""

import torch
from torch import Tensor
from torch.nn import functional as F

from caap_lab.attribution.masking import scores_in_chunks
from caap_lab.attribution.method import method
from caap_lab.attribution.reading import block_hooks, on_grid, read_activations
from caap_lab.hooked.batches import check_count
from caap_lab.hooked.model import HookedViT


@torch.no_grad()
def score_cam(model: HookedViT, images: Tensor, targets: Tensor, *, chunk_size: int = 64) -> Tensor:
    """map_p = ReLU(sum_k w_k a_{p,k}), w = softmax_k of y(x * minmax(up(a_k))).

    a is the last block's first normalisation at the patches, as in token Grad-CAM; `up` is bilinear to the image's size
    and `minmax` brings each channel to 0..1. `chunk_size` masked images run at once; it does not change results.
    """
    check_count("chunk_size", chunk_size)
    spec = model.spec
    _, (entering,) = read_activations(model, images, block_hooks(model, "ln1.hook_normalized")[-1:])
    a = entering[:, spec.n_prefix :]
    weights = []
    for image, channels, target in zip(images, a.mT, targets, strict=True):

        def masked(part: Tensor, image: Tensor = image) -> Tensor:
            up = F.interpolate(part, spec.image_size, mode="bilinear", align_corners=False)
            low, high = up.amin((2, 3), keepdim=True), up.amax((2, 3), keepdim=True)
            return image * (up - low) / (high - low).clamp(min=torch.finfo(up.dtype).tiny)

        grids = channels.reshape(-1, 1, *spec.grid)
        weights.append(scores_in_chunks(model, grids, masked, target, chunk_size, "logit").softmax(0))
    return on_grid(model, (torch.stack(weights)[:, None] * a).sum(-1).relu())


SCORE_CAM = method(
    score_cam,
    name="score_cam",
    family="masking",
    source="Wang et al. 2020, arXiv 1910.01279",
    needs="forward passes",
    forwards="1 + d_model",
    backwards="0",
)
