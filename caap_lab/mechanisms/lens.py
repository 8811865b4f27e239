"""The logit lens: class scores of each token after each block, by the final norm and the head."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.activations.labelled import labelled_dataset
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.mechanisms.lens_result import LogitLens
from caap_lab.mechanisms.stream_parts import as_array
from caap_lab.models.base import Images, check_kind
from caap_lab.models.batches import batches, check_images
from caap_lab.models.explained import several_explained
from caap_lab.models.names import check_layers
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Contrast, TargetLike, Targets
from caap_lab.models.tokens import TokensLike, token_numbers
from caap_lab.models.vit import HookedViT

KEPT_CLASSES = 10
"""Number of classes with the highest logits that are stored for every token in any case."""


@runs_model
@torch.no_grad()
def logit_lens(
    model: HookedViT,
    images: Images,
    target: TargetLike | Sequence[TargetLike] | Mapping[str, Any] | None = None,
    *,
    tokens: TokensLike = None,
    layers: int | Iterable[int] | None = None,
    classes: Sequence[int | str] | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> LogitLens:
    """Class scores of each token after each block, as the final norm and the head compute them from this token only.

    ```python
    lens = cl.logit_lens(model, image, target="tabby")
    lens.plot()                          # a small map per layer
    lens.rank()                          # rank of the class [image, layer, token]
    lens.top(3, layer=8, token=0)        # highest classes of the class token after block 8
    lens.correlation(cl.caap(model, image, target="tabby"))
    ```

    Each token passes through the final norm and the head as if all tokens that the head reads were equal to this one:

    - Class-token heads read it instead of the class token: after the last block, the scores of the class token are the
        model's own.
    - For average pooling, the mean of one token is the token. After the last block, the mean of the scores over the
        tokens that the head reads is the model's logits if the head is linear after the mean; not if a norm follows the
        pooling (BEiT, `fc_norm`).
    - An attention pooling (SigLIP) reads its value whatever the pattern, then applies its projection and MLP.
    - DINOv2's linear heads read it as each of their class tokens and as the mean patch; both heads of a distilled DeiT
        read it.

    The lens can mislead. The head was trained on the tokens that it reads after the last block: earlier blocks, and
    tokens that it never reads, may hold information in directions that the head does not use, so a low rank does not
    prove that the information is absent. Patches can even have a lower score for a class where they matter more: in
    DeiT-tiny and in CLIP ViT-B/16 the lens's maps correlate negatively with CAAP's at every block, in ViT-tiny they
    agree a little from the middle blocks on; see `docs/tables/logit_lens.md`. As a check, use `LogitLens.correlation`
    with a map that intervenes, such as CAAP's. Vilas et al. (NeurIPS 2023, arXiv 2310.18969) show where class
    information becomes readable in supervised ViTs.

    The cost is one forward pass, and one run of the head per token and layer.

    Args:
        model: The model.
        images: Any number of images.
        target: Store only the score of this target (and the rank of its class): see `cl.contrast`; one for all images,
            one per image, or {name: target, ...}, which become the last axis `target`. This needs little memory for
            many images.
        tokens: As for `Patch`; None for all.
        layers: Blocks after which tokens are read; None for all.
        classes: Store only the logits of these classes; None for all, [image, layer, token, class].
        batch_size: Images run at once.
        progress: Show a progress bar for more than one batch.

    Raises:
        InputError: the model is not a Vision Transformer or has no classifier, both `target` and `classes` are given,
            or the logits do not fit into memory.
    """
    check_kind(model, "logit_lens")
    check_count("batch_size", batch_size)
    if target is not None and classes is not None:
        raise InputError("Give target=... or classes=..., not both.")
    if classes is not None and (isinstance(classes, str) or not isinstance(classes, Iterable) or not list(classes)):
        raise InputError(f"classes={classes!r} must be a list of classes, at least one.")
    singles = check_images(images)
    several: dict[str, Targets] = {}
    if target is None:
        model._require_classifier()
    else:
        model, several = several_explained(model, target, len(singles))
    rows, chosen = token_numbers(model.spec, tokens), sorted(set(check_layers(layers, model.n_layers)))
    columns = list(range(model.n_classes)) if classes is None else model.targets(list(classes), len(classes))
    _check_memory(len(singles) * len(chosen) * len(rows), len(several) or len(columns), model.dtype)

    values: list[np.ndarray] = []
    ranks: list[np.ndarray] = []
    best: list[tuple[np.ndarray, np.ndarray]] = []
    start = 0
    with images_shown("logit lens", len(singles), batch_size, progress) as bar:
        for batch in batches(model, singles, batch_size):
            of_batch = [each[start : start + len(batch)] for each in several.values()]
            read = _layers(model, batch, chosen, rows)
            found = [_keep(logits, of_batch, columns, model.n_classes) for logits in read]
            values.append(np.stack([value for value, _, _ in found], axis=1))
            ranks.append(np.stack([rank for _, rank, _ in found], axis=1))
            best.append(tuple(np.stack(part, axis=1) for part in zip(*[top for _, _, top in found], strict=True)))  # type: ignore[arg-type]
            start += len(batch)
            bar.update(len(batch))
    names = model.class_names
    many = isinstance(target, Mapping)
    kept = {} if not several else {"rank": np.concatenate(ranks)}
    variables = {"value": np.concatenate(values), **kept}
    if several and not many:
        variables = {name: array[..., 0] for name, array in variables.items()}
    last = {"target": list(several)} if many else {} if several else {"class": [names.name(c) for c in columns]}
    data = labelled_dataset(
        {"layer": chosen, "token": rows, **last},
        variables,
        model=model.model_name,
        quantity=f"lens: score of {', '.join(several)} (logits)" if several else "lens (logits)",
        target=", ".join(several) if several else "none",
        differences=bool(several) and all(isinstance(t.given, Contrast) for each in several.values() for t in each),
    )
    if several and not many:
        (targets,) = several.values()
        data = data.assign(target=("image", [one.name for one in targets]))
    indices, logits = (np.concatenate(parts) for parts in zip(*best, strict=True))
    return LogitLens(
        data,
        leading=(indices, logits),
        columns=tuple(columns) if not several else (),
        class_names=names,
        n_prefix=model.spec.n_prefix,
        grid=model.spec.grid,
    )


def _layers(
    model: HookedViT, images: Float[Tensor, "batch 3 height width"], layers: list[int], rows: list[int]
) -> Iterator[Float[Tensor, "batch row columns"]]:
    """Logits of each single token after each of some blocks; blocks after the last of them do not run."""
    resid = model.embed(images)
    for layer in range(layers[-1] + 1):
        resid = model.run_block(layer, resid)
        if layer in layers:
            yield read_alone(model, resid[:, rows])


def read_alone(model: HookedViT, tokens: Float[Tensor, "batch row d_model"]) -> Float[Tensor, "batch row columns"]:
    """Logits of every token as if all tokens that the head reads were equal to this one."""
    readout, spec = model.readout, model.spec
    normalized = model.architecture.final_norm(tokens).flatten(0, 1)
    # A head removes the prefix tokens, and one token after them is its own mean; a pooling with its own positions needs
    # every token.
    count = spec.n_tokens if readout.adds_positions else spec.n_prefix + 1
    at_once = max(1, len(normalized) // count)
    logits = [
        readout.scores(readout.pool(some[:, None].expand(-1, count, -1), [some] * (readout.class_layers - 1)))
        for some in normalized.split(at_once)
    ]
    return torch.cat(logits).unflatten(0, tokens.shape[:2])


def _keep(
    logits: Float[Tensor, "batch row columns"], several: Sequence[Targets], columns: list[int], n_classes: int
) -> tuple[np.ndarray, Float[np.ndarray, "batch row *target"], tuple[np.ndarray, np.ndarray]]:
    """What is stored for one layer: scores, ranks of the targets' classes (NaN for none), the highest classes."""
    classes = logits[..., :n_classes]
    top = classes.topk(min(KEPT_CLASSES, n_classes), dim=-1)
    first = top.indices.int().cpu().numpy(), as_array(top.values)
    if not several:
        return as_array(classes[..., columns]), np.zeros(logits.shape[:2], dtype=np.float32), first
    scores = [torch.stack([t.value(x) for t, x in zip(targets, logits, strict=True)]) for targets in several]
    ranks = [torch.stack([_rank(x, t.index) for t, x in zip(targets, classes, strict=True)]) for targets in several]
    return as_array(torch.stack(scores, dim=-1)), as_array(torch.stack(ranks, dim=-1)), first


def _rank(logits: Float[Tensor, "row classes"], index: int | None) -> Float[Tensor, " row"]:
    if index is None:
        return torch.full((len(logits),), torch.nan, dtype=torch.float32, device=logits.device)
    return (logits > logits[:, index : index + 1]).sum(dim=-1).float() + 1


def _check_memory(places: int, width: int, dtype: torch.dtype) -> None:
    needed = 2 * places * width * max(4, dtype.itemsize)  # batches, and then all of them in one
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"The lens's logits need {needed / 2**30:,.1f} GiB and {free / 2**30:,.1f} GiB are free. Give target=... "
            "or classes=..., or fewer tokens, layers or images."
        )
