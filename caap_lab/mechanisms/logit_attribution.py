"""Direct logit attribution: the contribution of every part of a model to a target's score."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.activations.labelled import labelled_dataset
from caap_lab.checks import check_count
from caap_lab.mechanisms.logit_parts import LogitParts, logit_parts
from caap_lab.mechanisms.logit_result import Components, LogitAttribution
from caap_lab.mechanisms.residual_stack import check_by
from caap_lab.mechanisms.stream_parts import as_array
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import batches, check_images
from caap_lab.models.explained import several_explained
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import check_gradients, runs_model
from caap_lab.models.targets import TargetLike, Targets
from caap_lab.models.vit import HookedViT

By = Literal["component", "head", "token", "neuron"]
_FROZEN = "scales of norms, attention patterns, gates"


@runs_model
def logit_attribution(
    model: HookedViT,
    images: Images,
    target: TargetLike | Sequence[TargetLike] | Mapping[str, Any] | None = None,
    *,
    by: By = "component",
    batch_size: int = 32,
    progress: bool = True,
) -> LogitAttribution:
    """The direct contribution of every part of a model to a target's score; the parts add up to the score.

    ```python
    parts = cl.logit_attribution(model, images, "tabby", by="head")
    parts.plot()                                   # layer x head
    parts.total                                    # the logit of each image
    cl.logit_attribution(model, image, cl.contrast("tabby", "tiger cat"), by="token").map(layer=11, head=3)
    ```

    The residual stream is a sum, and the steps after it are linear if the scales of norms are fixed at their values for
    the image: the contribution of a part is its vector times the gradient of the score with respect to the stream, with
    these scales as constants. Subtracting a mean is linear. The remaining terms are never dropped; they are parts with
    the name of their module: biases of norms ("vit.norm.bias") and of the head ("vit.head.bias").

    - Average pooling: contributions are summed over the tokens that the head reads.
    - A linear head of DINOv2: a part adds to the class token of every later block that the head reads.
    - Two heads (distilled DeiT): their mean, as in the model.
    - Attention pooling (SigLIP): through the values, with the pattern fixed. The MLP after it is not linear in the
        pooled token: its output is one more component, "vit.attn_pool.mlp".
    - Text embeddings (CLIP): a scaled cosine, with the length of the image's embedding fixed. `by="head"` and
        `by="token"` are the analysis of Gandelsman, Efros and Steinhardt (ICLR 2024, arXiv 2310.05916) without its mean
        ablation: what each head writes in the direction of a text, and from which tokens.

    These are direct effects: changes that a part causes in later parts count for those. For total effects, patch
    (`cl.sweep`).

    by="component" and by="head" cost about one forward pass per batch; by="token" computes patterns explicitly;
    by="neuron" runs the first layers of the MLPs again for the tokens that the head reads (a third of a forward pass
    for average pooling, almost nothing for a class token).

    Args:
        model: The model.
        images: Any number of images.
        target: A class, a contrast, a direction, or a weighted sum of logits as a function; one for all images, or one
            per image; {name: target, ...} for several, which become the last axis `target`. None: each image's
            prediction.
        by: "component": embeddings, each attention and MLP output, biases. "head": each attention head [layer, head].
            "token": each source token through each head, pattern times value [layer, head, token]. "neuron": each MLP's
            neurons [layer, neuron].
        batch_size: Images run at once.
        progress: Show a progress bar for more than one batch.

    Raises:
        InputError: the model is not a Vision Transformer, or its head or a target is not linear.
    """
    check_kind(model, "logit_attribution")
    check_count("batch_size", batch_size)
    check_by(by, get_args(By))
    check_gradients(model, "logit_attribution")
    singles = check_images(images)
    several: dict[str, Targets] = {}
    if target is not None:
        model, several = several_explained(model, target, len(singles))
    else:
        model._require_classifier()
    found: list[LogitParts] = []
    used: list[Targets] = []
    start = 0
    with images_shown("logit attribution", len(singles), batch_size, progress) as bar:
        for batch in batches(model, singles, batch_size):
            rows = slice(start, start + len(batch))
            parts, targets = logit_parts(model, batch, [each[rows] for each in several.values()] or None, by)
            found.append(parts)
            used += targets[:1]
            start += len(batch)
            bar.update(len(batch))
    names = [one.name for targets in used for one in targets]
    return _result(model, found, several, names, by, isinstance(target, Mapping))


def _result(
    model: HookedViT, found: list[LogitParts], several: dict[str, Targets], names: list[str], by: By, many: bool
) -> LogitAttribution:
    last = {"target": list(several)} if many else {}

    def joined(parts: list[Tensor]) -> Float[np.ndarray, "image ..."]:
        array = np.concatenate([as_array(part) for part in parts])
        return array if many else array[..., 0]

    said = ", ".join(several) or (names[0] if len(names) == 1 else "each image's prediction")
    # A batch without functions among its targets has no such constants.
    labels = list(dict.fromkeys(name for parts in found for name in parts.components))
    each = ([parts.components.get(name, torch.zeros_like(parts.score)) for parts in found] for name in labels)
    components = np.stack([joined(parts) for parts in each], axis=1)
    attributes: dict[str, Any] = {"model": model.model_name, "quantity": "share of the score (logits)", "target": said}
    attributes |= {"by": by, "frozen": _FROZEN}
    data = labelled_dataset({"component": labels, **last}, {"value": components}, **attributes)
    rest = Components(data)
    if by != "component":
        layers = joined([parts.layers for parts in found if parts.layers is not None])
        axes = {"layer": range(model.n_layers)}
        inside = {"head": ("head",), "token": ("head", "token"), "neuron": ("neuron",)}[by]
        axes |= {name: range(size) for name, size in zip(inside, layers.shape[2:], strict=False)}
        data = labelled_dataset({**axes, **last}, {"value": layers}, **attributes)
    data = data.assign(score=(("image", *last), joined([parts.score for parts in found])))
    if not many:
        data = data.assign(target=("image", names))
    spec = model.spec
    return LogitAttribution(data, rest=None if by == "component" else rest, n_prefix=spec.n_prefix, grid=spec.grid)
