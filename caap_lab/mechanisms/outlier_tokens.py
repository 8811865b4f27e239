"""Patch tokens of unusually large norm, in which many Vision Transformers store global information."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.checks import check_count, is_number
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import batches, check_images
from caap_lab.models.device_dtype import widened
from caap_lab.models.names import check_layers
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import runs_model
from caap_lab.models.vit import HookedViT


@dataclass(frozen=True, eq=False, repr=False)
class TokenNorms(LabelledResult):
    """Norm of the residual stream leaving each block, for every image, layer and token."""

    main: ClassVar[str] = "norm"
    signed: ClassVar[bool] = False

    @property
    def ratios(self) -> Float[np.ndarray, "image layer patch"]:
        """Norms of patches divided by the median norm of the patches of their image."""
        patches = self.per_image[:, :, int(self.data.attrs["n_prefix"]) :]
        return patches / np.median(patches, axis=2, keepdims=True)

    @property
    def outlier_layer(self) -> int:
        """The layer after which the largest patch has the highest ratio to the median, over images."""
        return int(self.axes["layer"][int(self.ratios.max(axis=2).mean(axis=0).argmax())])

    def outliers(self, threshold: float = 3.0, layer: int | None = None) -> Bool[np.ndarray, "image token"]:
        """Patches whose norm is more than `threshold` times the median of their image; valid as `tokens=` of a patch.

        Args:
            threshold: Multiple of the median.
            layer: Block after which norms are compared; None for `outlier_layer`.

        Raises:
            InputError: no patch of any image is an outlier.
        """
        if not (is_number(threshold) and threshold > 1):  # NaN is neither above nor below
            raise InputError(
                f"threshold={threshold!r} must be a number above 1, a multiple of the median norm of patches."
            )
        layer = self.outlier_layer if layer is None else layer
        if layer not in self.axes["layer"]:
            raise InputError(f"layer={layer!r} was not recorded; there are {', '.join(map(str, self.axes['layer']))}.")
        ratios = self.ratios[:, self.axes["layer"].index(layer)]
        if not (ratios > threshold).any():
            raise InputError(
                f"No patch of {counted(self.n_images, 'image')} has more than {threshold:g} times the median norm "
                f"after block {layer} of {self.model_name}; the largest has {ratios.max():.3g} times."
            )
        return np.pad(ratios > threshold, ((0, 0), (int(self.data.attrs["n_prefix"]), 0)))


@runs_model
@torch.no_grad()
def token_norms(
    model: HookedViT,
    images: Images,
    *,
    layers: list[int] | range | int | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> TokenNorms:
    """Norms of all tokens after each block: are there outliers, where, and from which block on?

    ```python
    norms = cl.token_norms(model, photos)
    norms.outliers()                    # [image, token]: patches of more than 3 times the median norm
    norms.plot(token=5)
    ```

    Large models store global information in a few patches with little content, whose norms are unusually large (Darcet
    et al., ICLR 2024, arXiv 2309.16588). The cost is one forward pass per image.

    Args:
        model: The model.
        images: Any number of images.
        layers: Layers; None for all.
        batch_size: Images run at once.
        progress: Show a progress bar when there is more than one batch.

    Returns:
        Norms [image, layer, token].
    """
    check_kind(model, "token_norms")
    check_count("batch_size", batch_size)
    chosen = check_layers(layers, model.n_layers)
    count = len(check_images(images))
    kept: dict[str, Tensor] = {}

    def keep(resid: Tensor, hook: HookPoint) -> None:
        kept[str(hook.name)] = widened(resid).norm(dim=-1).cpu()

    names = [f"blocks.{layer}.hook_resid_post" for layer in chosen]
    rows = []
    with images_shown("token norms", count, batch_size, progress) as bar:
        for batch in batches(model, images, batch_size):
            with model.hooks(fwd_hooks=[(name, keep) for name in names]):
                model(batch, stop_at_layer=max(chosen) + 1)
            rows.append(torch.stack([kept[name] for name in names], dim=1))
            bar.update(len(batch))
    spec = model.spec
    return TokenNorms(
        labelled_dataset(
            {"layer": chosen, "token": list(range(spec.n_tokens))},
            {"norm": torch.cat(rows).double().numpy()},
            model=model.model_name,
            quantity="norm of resid_post",
            n_prefix=spec.n_prefix,
        )
    )
