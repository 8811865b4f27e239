"""CAAP on CNNs (paper appendix B.3): cells of the image's maps inserted into the blank run, one pass per cell.

The paper's implementation is not known; this is the free context of a ViT with cells instead of tokens.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.engine.blanks import Blank, MeanActivations, black_image, blank_image, blank_label
from caap_lab.errors import InputError
from caap_lab.models.cnn import HookedCNN


@torch.no_grad()
def score_cells(
    model: HookedCNN,
    blank: Float[Tensor, "1 channel row col"],
    sources: list[Float[Tensor, "image _ _ _"]],
    n_images: int,
    patched: Bool[Tensor, "run cell"],
    start: int,
    chunk_size: int,
) -> Float[Tensor, "image run classes"]:
    """Logits of patched runs, such as that of every cell; `chunk_size` of them at once.

    Args:
        model: The model.
        blank: The blank's maps entering block `start`.
        sources: Images' maps entering block `start` and the patched blocks after it, each [image, channel, row, col].
        n_images: Number of images, also if nothing is patched.
        patched: The cells of the model's grid that each run patches.
        start: First patched block.
        chunk_size: Runs at once.
    """
    sizes = {(maps.shape[-2], maps.shape[-1]) for maps in sources}
    masks = {size: cell_masks(patched, model.grid, size).to(model.device) for size in sizes}
    scores = []
    for image in range(n_images):
        for cells in torch.arange(len(patched), device=model.device).split(chunk_size):
            x = blank.expand(len(cells), -1, -1, -1)
            for layer in range(start, model.n_layers):
                if layer - start < len(sources):
                    source = sources[layer - start][image]
                    x = torch.where(masks[source.shape[1], source.shape[2]][cells], source, x)
                x = model.run_block(layer, x)
            scores.append(model.unembed(x))
    return torch.cat(scores).unflatten(0, (-1, len(patched)))


def cell_masks(
    patched: Bool[Tensor, "run cell"], grid: tuple[int, int], size: tuple[int, int]
) -> Bool[Tensor, "run 1 row col"]:
    """Masks of each run's cells in maps of some size (rows, columns): all positions that they touch."""
    masks = patched.reshape(-1, 1, *grid)
    # The windows of adaptive pooling are the cells that overlap each position, also for finer maps.
    return F.adaptive_max_pool2d(masks.float(), size) > 0


@torch.no_grad()
def entering_maps(
    model: HookedCNN, images: Float[Tensor, "image 3 height width"], start: int, stop: int, logits: bool
) -> tuple[list[Tensor], Float[Tensor, "image classes"] | None]:
    """Maps entering blocks start to stop - 1, each [image, channel, row, col]; and the logits, if requested."""
    x = model.embed(images)
    kept = []
    for layer in range(model.n_layers if logits else stop):
        if start <= layer < stop:
            kept.append(x)
        x = model.run_block(layer, x)
    return kept, model.unembed(x) if logits else None


@torch.no_grad()
def maps_from(model: HookedCNN, maps: Float[Tensor, "image channel row col"], start: int, stop: int) -> list[Tensor]:
    """Maps entering blocks start to stop - 1, from those entering the first of them."""
    found = [maps]
    for layer in range(start, stop - 1):
        found.append(model.run_block(layer, found[-1]))
    return found


def blank_maps(model: HookedCNN, blank: Blank, seed: int, start: int) -> tuple[Float[Tensor, "1 channel row col"], str]:
    """A blank's maps entering block `start`, and its name in results; for "zero_activations" they are zero.

    Raises:
        InputError: the blank consists of mean activations, which a CNN does not support.
    """
    if isinstance(blank, MeanActivations):
        raise InputError(
            "blank=mean_activations(...) is for Vision Transformers; use an image for a CNN, such as 'white'."
        )
    image = blank_image(model, blank, seed)
    (maps,), _ = entering_maps(model, black_image(model) if image is None else image, start, start + 1, logits=False)
    return (torch.zeros_like(maps), str(blank)) if image is None else (maps, blank_label(blank, image))
