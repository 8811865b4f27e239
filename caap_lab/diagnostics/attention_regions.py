"""Where the patches of an object attend to, layer by layer and head by head (CAAP paper, section 3.2 and Fig. 6)."""

from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.attribution.activations_and_gradients import block_hooks
from caap_lab.attribution.attention_rows import widened
from caap_lab.checks import check_choice, check_count, check_share
from caap_lab.data.image_set import ImageSet
from caap_lab.diagnostics.region_pairs import (
    INTER,
    RegionPairs,
    attention_distance,
    attention_entropy,
    pair_kinds,
    patch_distances,
)
from caap_lab.diagnostics.regions import Masks, Photo, photos_with_regions
from caap_lab.errors import InputError
from caap_lab.models.base import Images, check_kind
from caap_lab.models.running import runs_model
from caap_lab.models.vit import HookedViT
from caap_lab.statistics import MeanAndError, over_present

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Quantity = Literal["weight", "mass", "distance", "entropy"]
Heads = Literal["mean"] | int | None


@dataclass(frozen=True, eq=False)
class AttentionRegions:
    """Attention between objects, background and prefix tokens, for every image, layer and head.

    A kind of pairs is NaN in an image that has no such pair: inter-object in one with a single object.
    """

    kinds: tuple[str, ...]
    """Kinds of (query, key) pairs: "intra-object" (a patch itself counts), "inter-object", and the others in words,
    such as "object-to-background" and "object-to-class"."""
    weight: Float[np.ndarray, "image kind layer head"]
    """Attention a_ij as a mean over pairs; not renormalised, so the prefix tokens have their part of it."""
    mass: Float[np.ndarray, "image kind layer head"]
    """Sum over keys of a_ij as a mean over queries: the share of a query's attention. The kinds of one kind of query
    add up to 1, less what goes to patches left out."""
    distance: Float[np.ndarray, "image layer head"]
    """Pixels between the centres of query and key, weighted by attention renormalised over patches; mean over patches
    as queries."""
    entropy: Float[np.ndarray, "image layer head"]
    """Of the attention over all tokens, in nats; mean over patches as queries."""
    regions: Int[np.ndarray, "image row col"]
    """Each patch's object from 0, -1 for background, -2 if left out."""
    images: tuple[str | int, ...]
    """Names, or places from 0 where they have none."""
    overlap: float
    model_name: str

    def mean(self, quantity: Quantity = "weight", *, heads: Heads = None) -> Float[np.ndarray, "*kind_layer_head"]:
        """Mean over the images that have the pairs.

        Args:
            quantity: "weight" or "mass" gives [kind, layer, head]; "distance" or "entropy" [layer, head].
            heads: None keeps all; "mean" takes each image's mean over heads, and a number that head: no head axis.
        """
        return self._over_images(quantity, heads).mean

    def standard_error(
        self, quantity: Quantity = "weight", *, heads: Heads = None
    ) -> Float[np.ndarray, "*kind_layer_head"]:
        """Standard error of `mean` over images (ddof 0); 0 for one image."""
        return self._over_images(quantity, heads).standard_error

    def _over_images(self, quantity: Quantity, heads: Heads) -> MeanAndError:
        check_choice("quantity", quantity, ("weight", "mass", "distance", "entropy"))
        values: np.ndarray = getattr(self, quantity)
        if heads == "mean":
            values = values.mean(axis=-1)
        elif heads is not None:
            n_heads = values.shape[-1]
            if isinstance(heads, bool) or not isinstance(heads, Integral) or not 0 <= heads < n_heads:
                raise InputError(f"heads={heads!r} must be 'mean' or a number from 0 to {n_heads - 1}.")
            values = values[..., heads]
        return over_present(values)

    def to_dataframe(self) -> "pd.DataFrame":
        """One row an image, layer, head and kind: model, image, layer, head, kind, weight, mass."""
        import pandas as pd

        n_layers, n_heads = self.distance.shape[1:]
        index = pd.MultiIndex.from_product(
            [self.images, range(n_layers), range(n_heads), self.kinds], names=["image", "layer", "head", "kind"]
        )
        columns = {name: np.moveaxis(getattr(self, name), 1, -1).reshape(-1) for name in ("weight", "mass")}
        frame = pd.DataFrame(columns, index=index).reset_index()
        frame.insert(0, "model", self.model_name)
        return frame

    def over_layers(self, quantity: Literal["weight", "mass"] = "weight", *, heads: Heads = "mean") -> "pd.DataFrame":
        """Mean over images and standard error, one row per kind and layer: kind, layer, mean, se, n (images).

        Args:
            quantity: "weight" or "mass".
            heads: "mean" takes each image's mean over heads first; a number takes that head.
        """
        import pandas as pd

        check_choice("quantity", quantity, ("weight", "mass"))
        mean, error = self._over_images(quantity, heads)
        index = pd.MultiIndex.from_product([self.kinds, range(mean.shape[1])], names=["kind", "layer"])
        columns = {"mean": mean.reshape(-1), "se": error.reshape(-1), "n": len(self.images)}
        return pd.DataFrame(columns, index=index).reset_index()

    def plot(
        self,
        ax: "Axes | None" = None,
        *,
        quantity: Literal["weight", "mass"] = "weight",
        heads: Literal["mean"] | int = "mean",
    ) -> "Axes":
        """The paper's Fig. 6: weight or mass of the kinds of pairs between patches over layers.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            quantity: "weight" or "mass".
            heads: "mean" over heads, or the number of one.
        """
        from caap_lab.plots.attention import REGION_LABELS, plot_regions

        check_choice("quantity", quantity, tuple(REGION_LABELS))
        which = "mean over heads" if heads == "mean" else f"head {heads}"
        frame = self.over_layers(quantity, heads=heads)
        title = f"{self.model_name}, {self._counted_images}, {which}"
        return plot_regions(frame, ax, ylabel=REGION_LABELS[quantity], title=title)

    def plot_distance(self, ax: "Axes | None" = None) -> "Axes":
        """Attention distance over layers: a dot a head, a line for their mean."""
        return self._plot_heads("distance", ax)

    def plot_entropy(self, ax: "Axes | None" = None) -> "Axes":
        """Entropy of attention over layers: a dot a head, a line for their mean."""
        return self._plot_heads("entropy", ax)

    def _plot_heads(self, quantity: Literal["distance", "entropy"], ax: "Axes | None") -> "Axes":
        from caap_lab.plots.attention import HEAD_LABELS, plot_heads

        mean, error = self._over_images(quantity, "mean")
        title = f"{self.model_name}, {self._counted_images}"
        return plot_heads(self.mean(quantity), mean, error, ax, ylabel=HEAD_LABELS[quantity], title=title)

    @property
    def _counted_images(self) -> str:
        return f"{len(self.images)} image{'s' * (len(self.images) != 1)}"

    def __repr__(self) -> str:
        """Sizes, and where intra-object attention is highest."""
        intra = self.mean("mass", heads="mean")[0]
        several = int(np.isfinite(self.mass[:, self.kinds.index(INTER), 0, 0]).sum())
        return (
            f"AttentionRegions: {self.model_name}, {self._counted_images} "
            f"({several} with several objects) x {len(self.kinds)} kinds of pairs x "
            f"{self.distance.shape[1]} layers x {self.distance.shape[2]} heads; "
            f"intra-object mass is highest in layer {int(intra.argmax())} ({intra.max():.3f}), "
            f"{intra[0]:.3f} in the first and {intra[-1]:.3f} in the last"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        return {"text/plain": repr(self), "image/png": figure_png(cast("Figure", self.plot().figure))}


@runs_model
@torch.no_grad()
def attention_regions(
    model: HookedViT,
    images: Images | ImageSet,
    masks: "Masks | list[Masks] | None" = None,
    *,
    ignored: Any = None,
    overlap: float = 0.5,
    batch_size: int = 8,
    progress: bool = True,
) -> AttentionRegions:
    """Attention within objects, between objects, and between objects, background and prefix tokens.

    ```python
    cl.attention_regions(model, image, {"cat": cat, "dog": dog})
    cl.attention_regions(model, cl.open_images("imagenet-s:PATH").sample(128))
    ```

    Equation 6 of the CAAP paper (arXiv 2603.13652) splits a patch's attention into what stays within its object and
    what does not. A patch belongs to the object that covers the largest share of it, if that is at least `overlap`;
    to the one with fewer pixels where two cover the same; all other patches are background.

    Args:
        model: A Vision Transformer in evaluation mode.
        images: Images, or a data set whose images have masks.
        masks: The objects of an image: a bool mask [H, W] as the model saw it (`model.preprocessing.mask` makes one),
            or a list or dict of them. For several images, a list with one such entry each. Masks of the same pixels
            count as one object. Left out for a data set, which brings its own.
        ignored: Pixels that the annotation leaves open: a mask, or a list of one an image. Patches that are mostly such
            belong to no kind of pairs. Left out for a data set.
        overlap: Least share of a patch that makes it an object's, from 0 (any pixel) to 1.
        batch_size: Images run at once. The attention of one layer of a batch is in memory at a time.
        progress: Show a progress bar when there is more than one batch.

    Raises:
        InputError: the model has no attention or is in training mode, masks are missing or do not fit, or no patch is
            an object's.
    """
    check_kind(model, "attention_regions")
    check_count("batch_size", batch_size)
    check_share("overlap", overlap)
    count, photos = photos_with_regions(model, images, masks, ignored, overlap)
    parts, names, regions = [], [], []
    with tqdm(total=count, unit="image", disable=not progress or count <= batch_size) as bar:
        while batch := list(islice(photos, batch_size)):
            parts.append(_measure(model, batch))
            names += [photo.name for photo in batch]
            regions += [photo.regions for photo in batch]
            bar.update(len(batch))
    if not any((found >= 0).any() for found in regions):
        raise InputError(f"No object covers a share of {overlap} of any patch; set overlap lower.")
    weight, mass, distance, entropy = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return AttentionRegions(
        kinds=pair_kinds(model.spec),
        weight=weight,
        mass=mass,
        distance=distance,
        entropy=entropy,
        regions=np.stack(regions),
        images=tuple(names),
        overlap=overlap,
        model_name=model.model_name,
    )


def _measure(model: HookedViT, batch: list[Photo]) -> tuple[np.ndarray, ...]:
    """Weight and mass [image, kind, layer, head], distance and entropy [image, layer, head]."""
    pairs = RegionPairs(model.spec, np.stack([photo.regions for photo in batch]))
    distances = patch_distances(model.spec)
    layers: list[tuple[Tensor, ...]] = []

    def read(pattern: Tensor, hook: Any) -> None:
        pattern = widened(pattern)
        distance = attention_distance(pattern, distances).cpu().double()
        entropy = attention_entropy(pattern, model.spec.n_patches).cpu().double()
        layers.append((pairs.sums(pattern), distance, entropy))

    with model.hooks(fwd_hooks=[(name, read) for name in block_hooks(model, "attn.pattern")]):
        model(model.preprocess([photo.image for photo in batch]), stop_at_layer=model.n_layers)
    sums, distance, entropy = (torch.stack(found, dim=-2) for found in zip(*layers, strict=True))
    return tuple(found.numpy() for found in (*pairs.weight_and_mass(sums), distance, entropy))
