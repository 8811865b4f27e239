"""Features of a sparse autoencoder at all tokens of a store, and the images where one is strongest."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.activations.store import ActivationStore
from caap_lab.checks import check_count, is_whole
from caap_lab.digests.fingerprint import same_model
from caap_lab.errors import InputError
from caap_lab.files import atomic_path, save_tensors
from caap_lab.labels import counted
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import check_images
from caap_lab.models.device_dtype import exact
from caap_lab.models.vit import HookedViT
from caap_lab.tables.frame import Frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from caap_lab.mechanisms.sparse_autoencoder import SparseAutoencoder

_FACTS = ("autoencoder", "name", "layer", "model_name", "fingerprint", "n_features", "dropped", "explained")


@dataclass(frozen=True, eq=False)
class SparseFeatures:
    """The strongest features of every token: `len` is the number of images."""

    values: Float[Tensor, "image token kept"]
    """Features of each token in decreasing order; 0 if it has fewer."""
    indices: Int[Tensor, "image token kept"]
    """Indices of these features."""
    n_active: Int[Tensor, "image token"]
    """Number of features of each token that are not 0, stored or not."""
    autoencoder: str
    """Name of the autoencoder."""
    name: str
    """Hook name of the activations."""
    layer: int | None
    """Their layer."""
    model_name: str
    fingerprint: str
    """Name of the model."""
    n_features: int
    dropped: float
    """Fraction of the features' absolute sum that was not stored."""
    explained: float
    """Fraction of the activations' variance, over tokens, that the autoencoder reconstructs; 1 is all. If it is low,
    the autoencoder was trained on another model, layer or hook point, or on inputs with another mean or scale."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.values)

    def of(self, feature: int) -> Float[Tensor, "image token"]:
        """One feature at every token, 0 where it was not stored."""
        self._check(feature)
        return (self.values * (self.indices == feature)).sum(-1)

    @property
    def frequency(self) -> Float[np.ndarray, " feature"]:
        """Fraction of tokens at which each feature is not 0, counting stored features only."""
        active = self.indices[self.values != 0].flatten().numpy()
        return np.bincount(active, minlength=self.n_features) / self.n_active.numel()

    def top(self, model: HookedViT, images: Images, feature: int, n: int = 9) -> "TopImages":
        """The images with a patch at which a feature is strongest, and the values at their patches.

        Args:
            model: The model of the activations.
            images: All images of the store, in its order.
            feature: The feature.
            n: At most this many images; images without the feature at any patch are omitted.

        Raises:
            InputError: another model or number of images, or the feature is not active at any patch.
        """
        check_kind(model, "SparseFeatures.top")
        check_count("n", n)
        if not same_model(self.fingerprint, model.fingerprint):
            raise InputError(f"The features are from {self.model_name}, but this is another model, {model.model_name}.")
        singles = check_images(images)
        if len(singles) != len(self):
            raise InputError(f"These features are from {counted(len(self), 'image')}; {len(singles)} were given.")
        rows, cols = model.grid
        maps = self.of(feature)[:, -rows * cols :].reshape(-1, rows, cols)
        strongest = maps.flatten(1).amax(1)
        order = [int(i) for i in strongest.argsort(descending=True, stable=True)[:n] if strongest[i] > 0]
        if not order:
            raise InputError(f"Feature {feature} is not active at any patch of these images.")
        pixels = [model.preprocessing.to_rgb(model.preprocess([singles[i]])[0]) for i in order]
        title = f"feature {feature} of {self.autoencoder}, {self.name}"
        where = title if self.layer is None else f"{title} {self.layer}"
        return TopImages(where, np.array(order), maps[order].numpy(), np.stack(pixels))

    def strongest(self, image: int, n: int = 10) -> pd.DataFrame:
        """Features of an image in decreasing order: `feature`, its highest value, and the token with that value."""
        check_count("n", n)
        if not is_whole(image) or not 0 <= image < len(self):
            raise InputError(f"Image {image!r} does not exist: there are images 0 to {len(self) - 1}.")
        tokens, kept = self.values.shape[1:]
        frame = Frame(
            {
                "feature": self.indices[image].flatten().numpy(),
                "value": self.values[image].flatten().numpy(),
                "token": np.repeat(np.arange(tokens), kept),
            }
        )
        frame = frame[frame["value"] > 0].sort_values("value", ascending=False, kind="stable")
        return frame.drop_duplicates("feature").head(n).reset_index(drop=True)

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file."""
        path = Path(path)
        tensors = {"values": self.values, "indices": self.indices, "n_active": self.n_active}
        with atomic_path(path) as part:
            save_tensors(tensors, part, {"facts": json.dumps({fact: getattr(self, fact) for fact in _FACTS})})
        return path

    @classmethod
    def load(cls, path: str | Path) -> "SparseFeatures":
        """Read a file written by `save`.

        Raises:
            InputError: not such a file.
        """
        try:
            with safe_open(Path(path), framework="pt") as file:
                facts = json.loads((file.metadata() or {})["facts"])
                tensors = {name: file.get_tensor(name) for name in ("values", "indices", "n_active")}
            return cls(**tensors, **{fact: facts[fact] for fact in _FACTS})
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path} is not a file of sparse features, or is damaged: {error}") from error

    def __repr__(self) -> str:
        """Sizes, sparsity, and the fraction that is omitted."""
        at = self.name if self.layer is None else f"{self.name} {self.layer}"
        active, explained, dropped = self.n_active.double().mean(), 100 * self.explained, 100 * self.dropped
        return (
            f"SparseFeatures: {self.autoencoder}, {self.n_features:,} features at {at} of {self.model_name}, "
            f"{counted(len(self), 'image')}; {float(active):.1f} features per token, {explained:.1f} % of "
            f"the variance explained, {dropped:.2g} % of the features not stored"
        )

    def _check(self, feature: int) -> None:
        if not is_whole(feature) or not 0 <= feature < self.n_features:
            raise InputError(f"Feature {feature!r} does not exist: there are features 0 to {self.n_features - 1}.")


@dataclass(frozen=True, eq=False)
class TopImages:
    """Images in which a feature is strongest, the strongest first. In Jupyter it is displayed as a figure."""

    title: str
    images: Int[np.ndarray, " image"]
    """Their indices in the store."""
    maps: Float[np.ndarray, "image row col"]
    """The feature at each patch."""
    pixels: UInt8[np.ndarray, "image height width 3"]
    """The images, as the model's input."""

    def to_dataframe(self) -> pd.DataFrame:
        """One row per image: its index, the highest value, and the row and column of that patch."""
        cells = self.maps.reshape(len(self.maps), -1).argmax(axis=1)
        rows, cols = np.unravel_index(cells, self.maps.shape[1:])
        return Frame({"image": self.images, "value": self.maps.max(axis=(1, 2)), "row": rows, "col": cols})

    def plot(self) -> "Figure":
        """Each image with its patches coloured by the feature's value, on one scale, the strongest patch framed."""
        from caap_lab.plots.top_images import plot_top_images

        return plot_top_images(self.pixels, self.maps, [f"image {image}" for image in self.images], title=self.title)

    def __repr__(self) -> str:
        """Title, and the strongest image."""
        return f"TopImages: {self.title}; strongest in image {self.images[0]} ({self.maps[0].max():.4g})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        return {"text/plain": repr(self), "image/png": figure_png(self.plot())}


@torch.no_grad()
def read_features(
    sae: "SparseAutoencoder",
    store: ActivationStore,
    name: str,
    layer: int | None,
    *,
    keep: int,
    batch_size: int,
    progress: bool,
) -> SparseFeatures:
    """See `SparseAutoencoder.features`."""
    check_count("keep", keep)
    check_count("batch_size", batch_size)
    if (name, layer) not in store:
        store[:1][name, layer]  # its message lists the activations in the store
    shape = tuple(store[:1][name, layer].shape[1:])
    if len(shape) != 2 or shape[1] != sae.width:
        raise InputError(
            f"This autoencoder reads {sae.width} values of each token, but {name} has shape {list(shape)} per image."
        )
    size = (len(store), shape[0], min(int(keep), sae.n_features))
    values = torch.empty(size, dtype=torch.float32, device="cpu")
    indices = torch.empty(size, dtype=torch.int32, device="cpu")
    active = torch.empty(size[:2], dtype=torch.int32, device="cpu")
    sums = _Sums(sae.width)
    bar = tqdm(total=len(store) * shape[0], desc="sparse features", unit="token", delay=1.0, disable=not progress)
    at = 0
    with bar:
        for first in range(0, len(store), batch_size):
            rows = store[first : first + batch_size][name, layer].flatten(0, 1)
            for piece in sae.in_pieces(rows):
                features = sae.encode(piece)
                order = features.abs().topk(size[2], dim=-1).indices
                kept = features.gather(-1, order)
                place = slice(at, at + len(piece))
                values.view(-1, size[2])[place], indices.view(-1, size[2])[place] = kept.cpu(), order.int().cpu()
                active.view(-1)[place] = (features != 0).sum(-1).int().cpu()
                sums.add(piece, sae.decode(features), features, kept)
                at += len(piece)
                bar.update(len(piece))
    return SparseFeatures(
        values,
        indices,
        active,
        autoencoder=sae.name,
        name=name,
        layer=layer,
        model_name=store.model_name,
        fingerprint=store.fingerprint,
        n_features=sae.n_features,
        dropped=sums.dropped,
        explained=sums.explained,
    )


class _Sums:
    """Sums over tokens, from which fractions are computed at the end."""

    def __init__(self, width: int) -> None:
        self._count, self._square, self._error = 0, 0.0, 0.0
        self._total = torch.zeros(width, dtype=torch.float64, device="cpu")
        self._all, self._kept = 0.0, 0.0

    def add(self, x: Tensor, back: Tensor, features: Tensor, kept: Tensor) -> None:
        wide = exact(x.cpu())
        self._count += len(x)
        self._total += wide.sum(0)
        self._square += float(wide.square().sum())
        self._error += float((wide - exact(back.cpu())).square().sum())
        self._all += float(exact(features).abs().sum())
        self._kept += float(exact(kept).abs().sum())

    @property
    def dropped(self) -> float:
        return max(0.0, 1 - self._kept / self._all) if self._all else 0.0

    @property
    def explained(self) -> float:
        spread = self._square - float(self._total.square().sum()) / self._count
        return 1 - self._error / spread if spread > 0 else float("nan")
