"""Ablations: remove heads, layers or tokens one at a time, and measure how much the target loses."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from caap_lab.activations.patch import Patch
from caap_lab.activations.store import ActivationStore
from caap_lab.activations.sweep import cell_edits, cell_patches, sweep
from caap_lab.activations.sweep_result import SweepResult
from caap_lab.checks import check_choice, check_count, check_seed, whole_numbers
from caap_lab.errors import InputError
from caap_lab.mechanisms.reference import REPLACEMENTS, is_edit, reference_source, replacement_name
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import batches, check_images
from caap_lab.models.explained import predicted_targets, several_explained
from caap_lab.models.names import check_layers
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Contrast
from caap_lab.models.vit import HookedViT

PARTS = {"attn": "attn_out", "mlp": "mlp_out"}
"""Parts of a block that `ablate_layers` can replace, and the hook points of their outputs."""
Source = Any
"""What `cl.Patch` accepts."""


@dataclass(frozen=True, eq=False, repr=False)
class Ablation(SweepResult):
    """Change of each image's score when a part is replaced (below 0: a loss), and what replaced the part.

    The main variable, `effect`, is the score with the part replaced minus the score without. `data` also has both
    scores; its attributes record the model, the metric, the hook points and the `replacement`.
    """

    @property
    def replacement(self) -> str:
        """What replaced the parts: "mean over 32 images"."""
        return str(self.data.attrs["replacement"])

    @property
    def condition(self) -> str:
        """The replacement, for titles and texts."""
        return str(self.data.attrs["condition"])


@runs_model
def ablate_heads(
    model: HookedViT,
    images: Images,
    target: Any = None,
    *,
    layers: int | Iterable[int] | None = None,
    heads: int | Iterable[int] | None = None,
    replacement: Any = "mean",
    reference: Images | ActivationStore | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Ablation:
    """Replace each head's output (z, before the output projection), one head at a time, at all tokens.

    ```python
    found = cl.ablate_heads(model, photos, "tabby")     # each head by its mean over the photos
    found.mean                                          # [layer, head]
    cl.ablate_heads(model, photos, cl.contrast("tabby", "tiger cat"), layers=range(8, 12), replacement="shuffled")
    ```

    The cost is one forward pass per head and image, minus the blocks before the head's block.

    Args:
        model: The model.
        images: Any number of images.
        target: What is explained, see `cl.contrast`: one for all images, one per image, or several by name, {"name":
            target}, which become the last axis. None for the model's own prediction on each image.
        layers: Layers; None for all.
        heads: Heads; None for all.
        replacement: "mean" (each token's mean over the reference images), "token_mean" (over their tokens as well),
            "shuffled" (the same head of another image), "noise" (Gaussian, with each channel's mean and standard
            deviation) or "zero", which models rarely see: effects then mix lost information with the response to
            unusual input. Also a store with the activations, a number, or an edit of `cl.directions`.
        reference: Images, or a store with these activations, from which the replacement is computed; None for the
            images themselves.
        seed: Seed of "shuffled" and "noise".
        batch_size: Rows run at once: cells times images.
        progress: Show progress bars.

    Returns:
        Effects [image, layer, head].

    Raises:
        InputError: a single image has no mean over images and no other image; a layer or head does not exist.
    """
    check_kind(model, "ablate_heads")
    chosen = list(range(model.spec.n_heads)) if heads is None else _numbers(heads)
    over: dict[str, list[Any]] = {"layer": check_layers(layers, model.spec.n_layers), "head": chosen}
    making = _Making(["z"], replacement, reference, seed)

    def patch(source: Source, layer: int, head: int) -> Patch:
        return Patch("z", layer, heads=[head], source=source)

    return _ablate(model, images, target, patch, over, making, batch_size, progress)


@runs_model
def ablate_layers(
    model: HookedViT,
    images: Images,
    target: Any = None,
    *,
    parts: str | Sequence[str] = ("attn", "mlp"),
    layers: int | Iterable[int] | None = None,
    replacement: Any = "mean",
    reference: Images | ActivationStore | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Ablation:
    """Replace what each block's attention or MLP adds to the residual stream, one at a time, at all tokens.

    ```python
    lost = cl.ablate_layers(model, images)    # [image, layer, "attn" or "mlp"]
    lost.mean, lost.plot()
    ```

    Args:
        model: The model.
        images: Any number of images.
        target: As in `ablate_heads`.
        parts: "attn" and "mlp", or one of them.
        layers: Layers; None for all.
        replacement: As in `ablate_heads`; "zero" removes the part.
        reference: As in `ablate_heads`.
        seed: Seed of "shuffled" and "noise".
        batch_size: Rows run at once: cells times images.
        progress: Show progress bars.

    Returns:
        Effects [image, layer, part].

    Raises:
        InputError: as in `ablate_heads`.
    """
    check_kind(model, "ablate_layers")
    chosen = [parts] if isinstance(parts, str) else list(parts)
    for part in chosen:
        check_choice("parts", part, list(PARTS))
    over: dict[str, list[Any]] = {"layer": check_layers(layers, model.spec.n_layers), "part": chosen}
    making = _Making([PARTS[part] for part in chosen], replacement, reference, seed)

    def patch(source: Source, layer: int, part: str) -> Patch:
        return Patch(PARTS[part], layer, source=source)

    return _ablate(model, images, target, patch, over, making, batch_size, progress)


@runs_model
def ablate_tokens(
    model: HookedViT,
    images: Images,
    target: Any = None,
    *,
    tokens: Mapping[str, Any],
    layers: int | Iterable[int] | None = None,
    replacement: Any = "mean",
    reference: Images | ActivationStore | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Ablation:
    """Replace tokens at the input of a block (resid_pre), one set of tokens and one block at a time.

    ```python
    cl.ablate_tokens(model, photos, tokens={"registers": [1, 2, 3, 4], "patches": cl.tokens.patches()})
    ```

    Args:
        model: The model.
        images: Any number of images.
        target: As in `ablate_heads`.
        tokens: Name to tokens as `cl.Patch` accepts them: a choice of `cl.tokens`, token numbers, or booleans [image,
            token] to choose different tokens in each image.
        layers: Blocks at whose input they are replaced; None for all. The blocks from there on run as usual.
        replacement: As in `ablate_heads`.
        reference: As in `ablate_heads`.
        seed: Seed of "shuffled" and "noise".
        batch_size: Rows run at once: cells times images.
        progress: Show progress bars.

    Returns:
        Effects [image, layer, tokens].

    Raises:
        InputError: as in `ablate_heads`.
    """
    check_kind(model, "ablate_tokens")
    if not isinstance(tokens, Mapping) or not tokens:
        raise InputError("tokens= takes choices by name: {'patches': cl.tokens.patches(), ...}.")
    over: dict[str, list[Any]] = {"layer": check_layers(layers, model.spec.n_layers), "tokens": list(map(str, tokens))}
    choices = {str(name): choice for name, choice in tokens.items()}
    making = _Making(["resid_pre"], replacement, reference, seed)

    def patch(source: Source, layer: int, tokens: str) -> Patch:
        return Patch("resid_pre", layer, tokens=choices[tokens], source=source)

    return _ablate(model, images, target, patch, over, making, batch_size, progress)


@dataclass(frozen=True, eq=False)
class _Making:
    """How to compute the source of an ablation's patches."""

    points: list[str]
    """Short names of the hook points that are replaced."""
    replacement: Any
    reference: Any
    seed: int

    @contextmanager
    def source(
        self, model: HookedViT, images: list[Any], layers: list[int], batch_size: int, progress: bool
    ) -> Iterator[Any]:
        """The source, for as long as it is needed."""
        check_seed(self.seed)
        named = isinstance(self.replacement, str)
        if named:
            check_choice("replacement", self.replacement, REPLACEMENTS)
        if named and self.replacement != "zero":
            made = (self.points, layers, self.replacement, self.reference, self.seed)
            with reference_source(model, images, *made, batch_size, progress) as source:
                yield source
            return
        if self.reference is not None:
            raise InputError(f"reference= applies only to {', '.join(REPLACEMENTS[:-1])}; omit it.")
        yield 0.0 if named else self.replacement


def _ablate(
    model: HookedViT,
    images: Images,
    target: Any,
    patch: Callable[..., Patch],
    over: Mapping[str, list[Any]],
    making: _Making,
    batch_size: int,
    progress: bool,
) -> Ablation:
    check_count("batch_size", batch_size)
    singles = check_images(images)
    _check(model, target, patch, over, len(singles))
    with making.source(model, singles, over["layer"], batch_size, progress) as source:
        metric = _predictions(model, singles, batch_size) if target is None else target
        cell = partial(patch, source)
        found = sweep(model, singles, cell, over=over, metric=metric, batch_size=batch_size, progress=progress)
    name = replacement_name(source)
    condition = name if is_edit(source) else f"replaced by {name}"
    attributes = {"replacement": name, "condition": condition, "points": ", ".join(making.points)}
    if target is None and len(singles) > 1:
        against = ", against the mean of all classes" * isinstance(metric[0], Contrast)
        attributes["metric"] = f"logit of the predicted class{against}"
    return Ablation(found.data.assign_attrs(attributes))


def _check(
    model: HookedViT, target: Any, patch: Callable[..., Patch], over: Mapping[str, list[Any]], count: int
) -> None:
    """Raise InputError for invalid targets, heads or tokens before a replacement is computed from many images."""
    if target is None:
        model._require_classifier()
    elif not callable(target):  # the sweep tries functions
        several_explained(model, target, count)
    cell_edits(model, cell_patches(partial(patch, 0.0), over), count)


@torch.no_grad()
def _predictions(model: HookedViT, images: Images, batch_size: int) -> list[Any]:
    """The model's own prediction for each image, as targets."""
    logits = torch.cat([model(batch).cpu() for batch in batches(model, images, batch_size)])
    return [target.given for target in predicted_targets(model, logits)]


def _numbers(given: Any) -> list[int]:
    numbers = whole_numbers("heads", given)
    if not numbers:
        raise InputError("No heads were given; omit heads to choose all of them.")
    return numbers
