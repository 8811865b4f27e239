"""ViT-CX: masks from the last block's own features, weighted by their effect (Xie et al. 2023, arXiv 2211.03064)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from caap_lab.attribution.activations_and_gradients import block_hooks, read_activations
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.masking import scores_in_chunks
from caap_lab.attribution.method import method
from caap_lab.checks import check_count, check_seed, check_share
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Target, Targets
from caap_lab.models.vit import HookedViT


@torch.no_grad()
def vit_cx(
    model: HookedViT,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    distance: float = 0.1,
    noise: float = 0.1,
    seed: int = 0,
    chunk_size: int = 64,
    probability: str = "auto",
) -> Float[Tensor, "batch height width"]:
    """map(u) = 1/N sum_n P_n M_n(u) / sum_m M_m(u), at pixel resolution [batch, height, width].

    Channels of the last block's first LayerNorm, enlarged to pixels (bilinear) and scaled to [0, 1], are clustered by
    cosine distance (complete linkage). A mask M_n is a cluster's sum, scaled to [0, 1]. Its weight is
    P_n = p_c(x M_n + e_n) - p_c(x + e_n) + p_c(x), with e_n = noise N(0, 1) (1 - M_n).

    Channels that are constant cannot be scaled and are left out, as are such sums; with none left the map is 0. A pixel
    outside all masks is also 0.

    Args:
        model: The model.
        images: Preprocessed images.
        targets: What is explained in each image.
        distance: Channels at this cosine distance or above are not in the same cluster.
        noise: Standard deviation of the noise, in normalised space.
        seed: Seed of the noise, which for the n-th mask is the same in all images.
        chunk_size: Images, or channels, run at once.
        probability: "softmax", "sigmoid" for a multi-label head, or "auto": a sigmoid for one output, else softmax.
    """
    check_share("distance", distance)
    check_share("noise", noise)
    check_seed(seed)
    check_count("chunk_size", chunk_size)
    hook = block_hooks(model, "ln1.normalized")[-1]
    maps = []
    for image, target in zip(images[:, None], targets, strict=True):
        logits, (features,) = read_activations(model, image, [hook])
        tokens = widened(features[0, model.spec.n_prefix :])
        grids = _sums_of_clusters(model, tokens.T.reshape(-1, *model.spec.grid), distance, chunk_size)
        p = target.probability(logits, probability)[0].to(tokens.dtype)
        maps.append(_weighted(model, image, target, grids, p, noise, seed, chunk_size, probability))
    return torch.stack(maps)


def _sums_of_clusters(
    model: HookedViT, channels: Float[Tensor, "channel row col"], distance: float, chunk_size: int
) -> Float[Tensor, "mask row col"]:
    """Sums of clusters on the patch grid; enlarging, which is linear, turns them into the paper's sums of pixels."""
    channels = _varying(channels)
    if not len(channels):
        return channels
    scaled = torch.cat([_scaled(part, _enlarge(model, part)) for part in channels.split(chunk_size)])
    labels = _clusters(model, scaled, distance).to(scaled.device)
    return _varying(torch.stack([scaled[labels == n].sum(dim=0) for n in range(int(labels.max()) + 1)]))


def _clusters(model: HookedViT, scaled: Float[Tensor, "channel row col"], distance: float) -> Int[Tensor, "channel"]:
    """Cluster of each channel, by cosine distance of the enlarged maps, which are never all in memory at once.

    Enlarging is A Y B^T with fixed A and B, so the inner product of maps over pixels is <Y_i, (A^T A) Y_j (B^T B)>.
    """
    if len(scaled) < 2:
        return torch.zeros(len(scaled), dtype=torch.long, device="cpu")
    from sklearn.cluster import AgglomerativeClustering

    y = scaled.cpu().double()
    down, across = (
        F.interpolate(
            torch.eye(cells, dtype=torch.double, device="cpu")[None], size, mode="linear", align_corners=False
        )[0]
        for cells, size in zip(model.spec.grid, model.spec.image_size, strict=True)
    )
    products = y.flatten(1) @ ((down @ down.T) @ y @ (across @ across.T)).flatten(1).T
    norms = products.diagonal().sqrt()
    apart = (1 - products / norms[:, None] / norms).clamp(min=0).fill_diagonal_(0)
    fitted = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=distance
    ).fit(((apart + apart.T) / 2).numpy())
    return torch.from_numpy(fitted.labels_).long()


def _weighted(
    model: HookedViT,
    image: Float[Tensor, "1 3 height width"],
    target: Target,
    grids: Float[Tensor, "mask row col"],
    p: Float[Tensor, ""],
    noise: float,
    seed: int,
    chunk_size: int,
    probability: str,
) -> Float[Tensor, "height width"]:
    generator = torch.Generator(device="cpu").manual_seed(seed)
    total, weighted = (p.new_zeros(model.spec.image_size) for _ in range(2))
    for part in grids.split(chunk_size) if len(grids) else ():
        large = _enlarge(model, part)
        masks = _scaled(large, large)[:, None].to(image.dtype)
        # Drawn one by one, so that a mask's noise does not depend on the chunks.
        drawn = torch.stack(
            [torch.randn(image.shape[1:], generator=generator, dtype=torch.float32, device="cpu") for _ in masks]
        )
        added = noise * drawn.to(image.device, image.dtype) * (1 - masks)
        both = torch.cat([image * masks + added, image + added])
        scores = scores_in_chunks(model, both, lambda made: made, target, chunk_size, probability=probability)
        masked, whole = scores.chunk(2)
        for weight, mask in zip(masked - whole + p, masks[:, 0], strict=True):
            weighted += weight * mask
            total += mask
    return torch.where(total > 0, weighted / total, 0) / max(1, len(grids))


def _enlarge(model: HookedViT, grids: Float[Tensor, "map row col"]) -> Float[Tensor, "map height width"]:
    return F.interpolate(grids[:, None], model.spec.image_size, mode="bilinear", align_corners=False)[:, 0]


def _scaled(maps: Float[Tensor, "map row col"], by: Float[Tensor, "map height width"]) -> Tensor:
    """Maps shifted and scaled such that `by` would range from 0 to 1."""
    low, high = by.amin(dim=(1, 2), keepdim=True), by.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low)


def _varying(grids: Float[Tensor, "map row col"]) -> Float[Tensor, "varying row col"]:
    """The maps that are not constant up to rounding."""
    flat = grids.flatten(1)
    span = flat.amax(dim=1) - flat.amin(dim=1)
    return grids[span > 100 * torch.finfo(grids.dtype).eps * flat.abs().amax(dim=1)]


VIT_CX = method(
    vit_cx,
    name="vit_cx",
    family="masking",
    source="ViT-CX, Xie et al. 2023, arXiv 2211.03064",
    needs="forward passes",
    sign="level",
    # A mask has about eight channels (measured on photos and ViTs of width 192).
    forwards=Passes(lambda size, options: 1 + 2 * size.channels / 8, "1 + 2 a mask (some tens to hundreds)"),
    score="attribution to prob",
)
