"""The residual stream as the sum of the contributions of a model's parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.checks import check_count, is_whole
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.mechanisms.frozen import frozen_scales
from caap_lab.mechanisms.layer_table import layer_table
from caap_lab.mechanisms.stream_parts import (
    NORM_PRE_BIAS,
    StreamRun,
    as_array,
    block_points,
    embedding_parts,
    pushed_forward,
    run_stream,
)
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import batches, check_images
from caap_lab.models.names import check_layers
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import check_gradients, runs_model
from caap_lab.models.tokens import TokensLike, token_numbers
from caap_lab.models.vit import HookedViT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

By = Literal["component", "head"]


@dataclass(frozen=True, eq=False, repr=False)
class ResidualStack(LabelledResult):
    """Parts of a residual stream as vectors: `data` has `value` [image, component, token, channel]."""

    @property
    def components(self) -> list[str]:
        """Names of the parts."""
        return self.axes["component"]

    @property
    def total(self) -> Float[np.ndarray, "image token channel"]:
        """The stream itself: the sum of all parts."""
        return self.per_image.sum(axis=1, dtype=np.float64)

    def part(self, component: str) -> Float[np.ndarray, "image token channel"]:
        """One part.

        Raises:
            InputError: there is no such part.
        """
        return self.per_image[:, cast(int, self._place("component", {"component": component}))]

    @property
    def norms(self) -> LabelledResult:
        """The length (L2 norm) of every part at every token."""
        attributes = {**self.data.attrs, "quantity": "length (L2 norm) of the part"}
        axes = {name: self.axes[name] for name in ("component", "token")}
        lengths = np.linalg.norm(self.per_image, axis=-1)
        return Lengths(labelled_dataset(axes, {"value": lengths}, **attributes))

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Mean length of the parts: a bar per part at one token, a heat map over tokens; see `LabelledResult.plot`.

        For heads, layer x head: at one token, or the mean over tokens. The embeddings, which are much longer, are
        omitted. `norms.plot()` shows all parts at every token.
        """
        from caap_lab.plots.parts import plot_parts
        from caap_lab.plots.style import new_axes

        if len(self.axes["token"]) == 1:
            at = {"token": self.axes["token"][0], **at}
        if layer_table(self.components, np.zeros(len(self.components))) is not None and set(at) <= {"token"}:
            return (self.norms if at else self._over_tokens()).plot(ax, **at)
        if set(at) == {"token"}:
            norms, place = self.norms, self.norms._at(at)
            parts = {"part": self.components, "mean": norms.mean[place], "se": norms.standard_error[place]}
            images = counted(self.n_images, "image")
            title = f"{self.model_name}, {images}, token {at['token']}"
            label = norms.quantity if self.n_images == 1 else f"mean {norms.quantity}"
            return plot_parts(pd.DataFrame(parts), ax, label=label, category="component", title=title)
        return self.norms.plot(new_axes(ax, 5.4, 0.17 * len(self.components) + 1.0), **at)

    def _over_tokens(self) -> LabelledResult:
        """Lengths of the parts, the mean over tokens."""
        norms = self.norms
        count = len(self.axes["token"])
        attributes = {**norms.data.attrs, "quantity": f"{norms.quantity}, over {count} tokens"}
        means = {"value": norms.per_image.mean(axis=-1)}
        return Lengths(labelled_dataset({"component": self.components}, means, **attributes))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        return {"text/plain": repr(self), "image/png": figure_png(cast(Any, self.plot().figure))}


class Lengths(LabelledResult):
    """Lengths of vectors, which have no sign."""

    signed = False

    def _table(self, labels: Sequence[Any], values: Float[np.ndarray, " label"]) -> pd.DataFrame | None:
        return layer_table([str(label) for label in labels], values, before=False)


@runs_model
def residual_stack(
    model: HookedViT,
    images: Images,
    *,
    by: By = "component",
    layer: int | None = None,
    tokens: TokensLike = None,
    batch_size: int = 32,
    progress: bool = True,
) -> ResidualStack:
    """The residual stream leaving a block as the sum of its parts.

    ```python
    stack = cl.residual_stack(model, image, by="head", tokens=cl.tokens.cls())
    stack.part("L11H3")        # [image, token, channel]
    stack.total                # the stream: resid_post of the last block
    ```

    The parts are "patch embedding", "positions" (not for rotary ones), "prefix tokens" (class token and registers with
    their positions), and for each block l "attn l" and "mlp l", after LayerScale. With by="head", each head is a part,
    "L0H0", and "attn l bias" is the remaining output of attention. A norm before block 0 (CLIP) is a linear map once
    its scale is fixed for each token, and its bias is a part, as is that of a norm inside attention.

    The cost is one forward pass, and one output projection per head with by="head".

    Args:
        model: The model.
        images: Any number of images.
        by: Complete attention layers, or their heads.
        layer: The block whose output is split into parts; None for the last. Heads on class tokens of several blocks
            (DINOv2) read a stack of each of these.
        tokens: As for `Patch`; None for all.
        batch_size: Images run at once.
        progress: Show a progress bar for more than one batch.

    Raises:
        InputError: the model is not a Vision Transformer, or the parts do not fit into memory.
    """
    check_kind(model, "residual_stack")
    check_count("batch_size", batch_size)
    check_by(by, get_args(By))
    if model.architecture.has_norm_pre:
        check_gradients(model, "residual_stack")
    if layer is not None and not is_whole(layer):
        raise InputError(f"layer={layer!r} must be one whole number: a stack is of the stream leaving one block.")
    last = check_layers(model.n_layers - 1 if layer is None else layer, model.n_layers)[0]
    rows = token_numbers(model.spec, tokens)
    singles = check_images(images)
    found: list[np.ndarray] = []
    names: list[str] = []
    with images_shown("residual stack", len(singles), batch_size, progress) as bar:
        for batch in batches(model, singles, batch_size):
            parts = dict(_parts(model, batch, by, rows, last + 1))
            if not found:
                names = list(parts)
                _check_memory(len(singles), parts)
            found.append(as_array(torch.stack([part.expand(len(batch), -1, -1) for part in parts.values()], 1)))
            bar.update(len(batch))
    axes: dict[str, Sequence[Any]] = {"component": names, "token": rows, "channel": range(model.spec.d_model)}
    return ResidualStack(
        labelled_dataset(
            axes,
            {"value": np.concatenate(found)},
            model=model.model_name,
            quantity=f"part of the residual stream leaving block {last}",
            by=by,
            layer=last,
        )
    )


def check_by(by: Any, known: tuple[str, ...]) -> None:
    """Raise InputError for an unknown kind of part."""
    if by not in known:
        raise InputError(f"by={by!r} must be one of {', '.join(map(repr, known))}.")


def _parts(
    model: HookedViT, images: Tensor, by: By, rows: list[int], layers: int
) -> Iterator[tuple[str, Float[Tensor, "#batch row d_model"]]]:
    points = ["hook_attn_out", "hook_mlp_out", *["attn.hook_result"] * (by == "head")]
    run = run_stream(model, images, block_points(layers, *points), rows, layers)
    yield from _embeddings(model, run, rows)
    for layer in range(layers):
        attention = run.at(layer, "hook_attn_out")
        if by == "head":
            results = run.at(layer, "attn.hook_result")
            yield from ((head_name(layer, head), results[:, :, head]) for head in range(results.shape[2]))
            yield f"attn {layer} bias", attention - results.sum(dim=2)
        else:
            yield f"attn {layer}", attention
        yield f"mlp {layer}", run.at(layer, "hook_mlp_out")


def _embeddings(
    model: HookedViT, run: StreamRun, rows: list[int]
) -> Iterator[tuple[str, Float[Tensor, "#batch row d_model"]]]:
    parts = embedding_parts(model, run)
    before, full = model.architecture.before_blocks, run.kept["hook_full_embed"]
    if model.architecture.has_norm_pre:
        with frozen_scales(model):
            changed = pushed_forward(before, full, list(parts.values()))
        with torch.no_grad():
            bias = before(full) - torch.stack(changed).sum(dim=0)
        parts = {**dict(zip(parts, changed, strict=True)), NORM_PRE_BIAS: bias}
    for name, part in parts.items():
        yield name, part.detach()[:, rows]


def head_name(layer: int, head: int) -> str:
    """The name of a head: "L3H1" is head 1 of block 3."""
    return f"L{layer}H{head}"


def _check_memory(count: int, parts: dict[str, Tensor]) -> None:
    one = next(iter(parts.values()))
    needed = 2 * count * len(parts) * one[0].numel() * one.element_size()  # batches, and then all of them in one
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"{len(parts)} parts of {count} images at {one.shape[1]} tokens need {needed / 2**30:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free. Choose tokens, for example tokens=cl.tokens.cls(), or fewer images."
        )
