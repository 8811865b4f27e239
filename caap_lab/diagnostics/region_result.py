"""The result of `attention_regions`: labelled values of every image, kind of pairs, layer and head."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int

from caap_lab.checks import check_choice
from caap_lab.diagnostics.region_pairs import INTER
from caap_lab.errors import InputError
from caap_lab.labels import counted, label_array
from caap_lab.statistics import MeanAndError, over_present
from caap_lab.tables.frame import Frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Quantity = Literal["weight", "mass", "distance", "entropy"]
Heads = Literal["mean"] | int | None


class OtherQueries(NamedTuple):
    """Weight and mass of queries that are neither patches nor the class token."""

    kinds: Sequence[str]
    weight: Float[np.ndarray, "image kind *layer head"]
    mass: Float[np.ndarray, "image kind *layer head"]


@dataclass(frozen=True, eq=False)
class AttentionRegions:
    """Attention between objects, background and prefix tokens, for every image, layer and head.

    A kind of pairs is NaN in an image without such pairs: for example inter-object with a single object.
    """

    data: xr.Dataset
    """`weight` and `mass` with the axes image, kind, layer, head; `distance` and `entropy` with image, layer, head;
    `regions` with image, row, col. Attributes: `overlap` and the `model`.

    If there are such queries, `prefix_weight` and `prefix_mass` of the distillation token and of registers with the
    axes image, prefix_kind, layer, head; `pool_weight` and `pool_mass` of a head with attention pooling with image,
    pool_kind, pool_head."""

    @classmethod
    def of(
        cls,
        kinds: Sequence[str],
        weight: Float[np.ndarray, "image kind layer head"],
        mass: Float[np.ndarray, "image kind layer head"],
        distance: Float[np.ndarray, "image layer head"],
        entropy: Float[np.ndarray, "image layer head"],
        regions: Int[np.ndarray, "image row col"],
        images: Sequence[str | int],
        *,
        overlap: float,
        model_name: str,
        prefix: OtherQueries | None = None,
        pool: OtherQueries | None = None,
    ) -> "AttentionRegions":
        """A result from its values, which are described under the properties of the same names."""
        pairs, heads = ("image", "kind", "layer", "head"), ("image", "layer", "head")
        others, places = {}, {}
        for name, axes, found in (("prefix", ("layer", "head"), prefix), ("pool", ("pool_head",), pool)):
            if found is not None:
                others[f"{name}_weight"] = (("image", f"{name}_kind", *axes), found.weight)
                others[f"{name}_mass"] = (("image", f"{name}_kind", *axes), found.mass)
                places[f"{name}_kind"] = list(found.kinds)
        return cls(
            xr.Dataset(
                {
                    "weight": (pairs, weight),
                    "mass": (pairs, mass),
                    "distance": (heads, distance),
                    "entropy": (heads, entropy),
                    "regions": (("image", "row", "col"), regions),
                    **others,
                },
                coords={
                    "image": label_array(images),
                    "kind": list(kinds),
                    "layer": np.arange(distance.shape[1]),
                    "head": np.arange(distance.shape[2]),
                    **places,
                },
                attrs={"overlap": overlap, "model": model_name},
            )
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of (query, key) pairs.

        "intra-object" (a patch itself counts), "inter-object", and the others in words, such as
        "object-to-background" and "object-to-class".
        """
        return tuple(self.data["kind"].values.tolist())

    @property
    def weight(self) -> Float[np.ndarray, "image kind layer head"]:
        """Attention a_ij as a mean over pairs; not renormalised, so prefix tokens receive part of it."""
        return self.data["weight"].values

    @property
    def mass(self) -> Float[np.ndarray, "image kind layer head"]:
        """Sum over keys of a_ij as a mean over queries: the fraction of a query's attention.

        The kinds of one kind of query add up to 1, minus the attention to patches that are ignored.
        """
        return self.data["mass"].values

    @property
    def distance(self) -> Float[np.ndarray, "image layer head"]:
        """Pixels between the centres of query and key, as a mean over patches as queries.

        Weighted by attention renormalised over patches.
        """
        return self.data["distance"].values

    @property
    def entropy(self) -> Float[np.ndarray, "image layer head"]:
        """Entropy of the attention over all tokens, in nats; mean over patches as queries."""
        return self.data["entropy"].values

    @property
    def regions(self) -> Int[np.ndarray, "image row col"]:
        """Each patch's object from 0, -1 for background, -2 for patches that are ignored."""
        return self.data["regions"].values

    @property
    def images(self) -> tuple[str | int, ...]:
        """Names, or indices from 0 if there are no names."""
        return tuple(self.data["image"].values.tolist())

    @property
    def overlap(self) -> float:
        """Minimum fraction of a patch that an object has to cover."""
        return float(self.data.attrs["overlap"])

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return str(self.data.attrs["model"])

    def mean(self, quantity: Quantity = "weight", *, heads: Heads = None) -> Float[np.ndarray, "*kind_layer_head"]:
        """Mean over the images with such pairs.

        Args:
            quantity: "weight" or "mass" returns [kind, layer, head]; "distance" or "entropy" [layer, head].
            heads: None for all heads; "mean" for each image's mean over heads, or the number of a head: no head axis.
        """
        return self._over_images(quantity, heads).mean

    def standard_error(
        self, quantity: Quantity = "weight", *, heads: Heads = None
    ) -> Float[np.ndarray, "*kind_layer_head"]:
        """Standard error of `mean` over images (ddof 0); NaN for one image, which does not show it."""
        return self._over_images(quantity, heads).standard_error

    def _over_images(self, quantity: Quantity, heads: Heads) -> MeanAndError:
        check_choice("quantity", quantity, ("weight", "mass", "distance", "entropy"))
        values = self.data[quantity].values
        if heads == "mean":
            values = values.mean(axis=-1)
        elif heads is not None:
            n_heads = values.shape[-1]
            if isinstance(heads, bool) or not isinstance(heads, Integral) or not 0 <= heads < n_heads:
                raise InputError(f"heads={heads!r} must be 'mean' or a number from 0 to {n_heads - 1}.")
            values = values[..., heads]
        return over_present(values)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per image, layer, head and kind: model, image, layer, head, kind, weight, mass."""
        frame = self.data[["weight", "mass"]].to_dataframe(["image", "layer", "head", "kind"]).reset_index()
        frame.insert(0, "model", self.model_name)
        return frame

    def other_queries(self) -> pd.DataFrame:
        """The table for other queries: registers, a distillation token, and a head with attention pooling.

        The pooling head's layer is called "pool"; its kinds are "pool-to-object", "pool-to-background" and so on. The
        table is empty for a model without such queries.
        """
        columns = ["model", "image", "layer", "head", "kind", "weight", "mass"]
        tables = []
        for name, axes in (("prefix", ["layer", "head"]), ("pool", ["pool_head"])):
            if f"{name}_mass" in self.data:
                table = self.data[[f"{name}_weight", f"{name}_mass"]].to_dataframe(["image", *axes, f"{name}_kind"])
                names = {f"{name}_{column}": column for column in ("weight", "mass", "kind", "head")}
                tables.append(table.reset_index().rename(columns=names))
        if not tables:
            return pd.DataFrame(columns=columns)
        tables[-1] = tables[-1] if "layer" in tables[-1] else tables[-1].assign(layer="pool")
        return Frame(pd.concat(tables, ignore_index=True).assign(model=self.model_name)[columns])

    def over_layers(self, quantity: Literal["weight", "mass"] = "weight", *, heads: Heads = "mean") -> pd.DataFrame:
        """Mean over images and standard error, one row per kind and layer: kind, layer, mean, se, n (images).

        Args:
            quantity: "weight" or "mass".
            heads: "mean" for each image's mean over heads; a number for that head.
        """
        check_choice("quantity", quantity, ("weight", "mass"))
        mean, error = self._over_images(quantity, heads)
        index = pd.MultiIndex.from_product([self.kinds, range(mean.shape[1])], names=["kind", "layer"])
        columns = {"mean": mean.reshape(-1), "se": error.reshape(-1), "n": len(self.images)}
        return Frame(columns, index=index).reset_index()

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
            heads: "mean" over heads, or the number of a head.
        """
        from caap_lab.plots.attention import REGION_LABELS, plot_regions

        check_choice("quantity", quantity, tuple(REGION_LABELS))
        which = "mean over heads" if heads == "mean" else f"head {heads}"
        frame = self.over_layers(quantity, heads=heads)
        title = f"{self.model_name}, {self._counted_images}, {which}"
        return plot_regions(frame, ax, ylabel=REGION_LABELS[quantity], title=title)

    def plot_distance(self, ax: "Axes | None" = None) -> "Axes":
        """Attention distance over layers: one dot per head, and a line for their mean."""
        return self._plot_heads("distance", ax)

    def plot_entropy(self, ax: "Axes | None" = None) -> "Axes":
        """Entropy of attention over layers: one dot per head, and a line for their mean."""
        return self._plot_heads("entropy", ax)

    def _plot_heads(self, quantity: Literal["distance", "entropy"], ax: "Axes | None") -> "Axes":
        from caap_lab.plots.attention import HEAD_LABELS, plot_heads

        mean, error = self._over_images(quantity, "mean")
        title = f"{self.model_name}, {self._counted_images}"
        return plot_heads(self.mean(quantity), mean, error, ax, ylabel=HEAD_LABELS[quantity], title=title)

    @property
    def _counted_images(self) -> str:
        return counted(len(self.images), "image")

    def __repr__(self) -> str:
        """Sizes, and the layer with the highest intra-object attention."""
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
