"""Test-time registers: the activations of neurons behind tokens of unusually large norm, moved to an added token."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.mechanisms.outlier_tokens import TokenNorms, token_norms
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import batches
from caap_lab.models.device_dtype import widened
from caap_lab.models.moved_neurons import move_neurons
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import runs_model
from caap_lab.models.vit import HookedViT
from caap_lab.tables.frame import Frame


@dataclass(frozen=True, eq=False)
class RegisterNeurons:
    """MLP neurons that are most active at patches of unusually large norm. In Jupyter it is displayed as a table."""

    table: pd.DataFrame
    """One row per neuron, the largest difference first: layer, neuron, mean activation at `outliers` and `elsewhere`
    (all other patches), and their `difference`."""
    norms: TokenNorms
    """Token norms of the images on which the neurons were found."""
    threshold: float
    """Multiple of the median norm of an image's patches above which a patch counts as an outlier."""
    layer: int
    """Block after which norms were read; neurons of later blocks are not considered."""
    n_outliers: int
    """Number of outlying patches, in all images."""

    def top(self, count: int) -> "RegisterNeurons":
        """The first neurons of the table."""
        check_count("count", count)
        return replace(self, table=self.table.head(count))

    def moved(self, model: HookedViT) -> HookedViT:
        """A model with one more token, at which these neurons act instead of at all others.

        The added token gets each neuron's largest activation over the patches and the added token itself; at all other
        tokens it is 0. The new model shares the weights of the given one, which is not changed.

        Args:
            model: The model in which they were found, or one with the same blocks (for example with other prompts).

        Raises:
            InputError: the model does not have these layers or neurons.
        """
        check_kind(model, "moved")
        signs: dict[int, dict[int, int]] = {}
        for layer, neuron, difference in self.table[["layer", "neuron", "difference"]].itertuples(index=False):
            if layer >= model.n_layers or neuron >= model.spec.d_mlp:
                raise InputError(
                    f"{model.model_name} has no neuron {neuron} in layer {layer}: they belong to another model."
                )
            signs.setdefault(int(layer), {})[int(neuron)] = 1 if difference > 0 else -1
        more = model.with_extra_tokens(1)
        move_neurons(more.vit, signs)
        return more.rewrapped(more.vit, name=f"{model.model_name} + test-time register")

    def __repr__(self) -> str:
        """Number of neurons, their layers, and the images on which they were found."""
        layers = sorted(self.table["layer"].unique())
        within = f"layer{'s' * (len(layers) != 1)} {', '.join(map(str, layers))}"
        outliers = f"{self.n_outliers} patch{'es' * (self.n_outliers != 1)}"
        return (
            f"RegisterNeurons: {len(self.table)} of {self.norms.model_name} in {within}, found on "
            f"{outliers} in {counted(self.norms.n_images, 'image')}, of more than {self.threshold:g} times the "
            f"median norm after block {self.layer}"
        )

    def _repr_html_(self) -> str:
        return Frame(self.table)._repr_html_()


@runs_model
def register_neurons(
    model: HookedViT,
    images: Images,
    *,
    top: int = 10,
    threshold: float = 3.0,
    layer: int | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> RegisterNeurons:
    """Neurons that cause patches of very large norm, for test-time registers (Jiang et al. 2025, arXiv 2506.08010).

    ```python
    neurons = cl.register_neurons(model, photos)        # a few dozen photos of any kind
    calm = neurons.moved(model)                         # a hooked model with one more token
    cl.caap(calm, photo); cl.token_norms(calm, photos)
    ```

    For each MLP neuron up to the block after which norms stand out most: its mean activation at outliers minus that at
    all other patches; the neurons with the largest differences are returned. The cost is two forward passes per image.

    Args:
        model: The model.
        images: Images on which the neurons are searched.
        top: Number of neurons.
        threshold: A patch is an outlier if its norm exceeds this multiple of the median norm of its image's patches.
        layer: Block after which norms are read, and the last whose neurons are considered; None for the one where the
            largest patch stands out most.
        batch_size: Images run at once.
        progress: Show progress bars.

    Raises:
        InputError: no patch of these images is an outlier, as in many small models.
    """
    check_kind(model, "register_neurons")
    check_count("top", top)
    norms = token_norms(model, images, batch_size=batch_size, progress=progress)
    found = torch.from_numpy(norms.outliers(threshold, layer))[:, model.spec.n_prefix :]
    layer = norms.outlier_layer if layer is None else layer
    at, elsewhere = _means(model, images, found, layer, batch_size, progress)
    difference = at - elsewhere
    order = difference.abs().flatten().argsort(descending=True, stable=True)[:top]
    layers, neurons = order // difference.shape[1], order % difference.shape[1]
    columns: Mapping[str, Any] = {
        "layer": layers,
        "neuron": neurons,
        "outliers": at[layers, neurons],
        "elsewhere": elsewhere[layers, neurons],
        "difference": difference[layers, neurons],
    }
    table = Frame({name: numbers.numpy() for name, numbers in columns.items()})
    return RegisterNeurons(table, norms, float(threshold), layer, int(found.sum()))


@torch.no_grad()
def _means(
    model: HookedViT, images: Images, outliers: Bool[Tensor, "image patch"], layer: int, batch_size: int, progress: bool
) -> tuple[Tensor, Tensor]:
    """Mean activation [layer, neuron] of neurons up to a layer at outliers and at all other patches."""
    names = [f"blocks.{number}.mlp.hook_post" for number in range(layer + 1)]
    sums = {name: torch.zeros(2, model.spec.d_mlp, dtype=torch.float64, device="cpu") for name in names}
    kinds = torch.stack([outliers, ~outliers])
    here = kinds

    def add(post: Tensor, hook: HookPoint) -> None:
        patches = widened(post[:, model.spec.n_prefix :])
        sums[str(hook.name)] += torch.einsum("kip,ipn->kn", here.to(patches), patches).double().cpu()

    first = 0
    with images_shown("neurons", len(outliers), batch_size, progress) as bar:
        for batch in batches(model, images, batch_size):
            here = kinds[:, first : first + len(batch)]
            first += len(batch)
            with model.hooks(fwd_hooks=[(name, add) for name in names]):
                model(batch, stop_at_layer=layer + 1)
            bar.update(len(batch))
    means = torch.stack([sums[name] for name in names], dim=1) / kinds.sum((1, 2)).double()[:, None, None]
    return means[0], means[1]
