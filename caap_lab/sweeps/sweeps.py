"""One function per kind of sweep."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from caap_lab.attribution.caap import caap
from caap_lab.data.image_set import ImageSet
from caap_lab.engine.blanks import BLANKS, Blank
from caap_lab.engine.scores import SCORES
from caap_lab.engine.settings import CONTEXTS, cutoff_blocks
from caap_lab.errors import InputError
from caap_lab.models.base import Images, check_kind
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS
from caap_lab.models.targets import TargetLike
from caap_lab.models.vit import HookedViT
from caap_lab.signatures import shows_options
from caap_lab.sweeps.result import CaapSweep
from caap_lab.sweeps.run_sweep import Options, run_sweep
from caap_lab.sweeps.sweep_settings import Label

_shown = shows_options(run_sweep, caap)


@_shown
def sweep_cutoffs(
    model: HookedViT,
    images: ImageSet | Images,
    target: TargetLike | None = None,
    *,
    cutoffs: Sequence[int | float] | None = None,
    **options: Unpack[Options],
) -> CaapSweep:
    """CAAP maps and metrics over the cutoff (paper Fig. 7): blocks 0 to cutoff - 1 are patched.

    ```python
    sweep = cl.sweep_cutoffs(model, images, cutoffs=[2, 5])
    sweep.plot(), sweep.summary()
    ```

    The maps of an image share the blocks before their cutoffs; `CaapSweep.passes` is the resulting cost.

    All sweeps accept the following arguments. A setting gives the same map as `caap` with that option.

    Args:
        model: A Vision Transformer without hooks.
        images: A data set (`cl.open_images`), or images in any form that the model accepts.
        target: Class index, WordNet id or word for all images; "label" for the labels of a data set; None for the
            model's own prediction on each. Or any other target: `cl.contrast("prediction")`, `cl.contrast("label",
            "tiger cat")`, `cl.logit(...)`, a direction or a function of the logits, see `cl.contrast`.
        cutoffs: Numbers of blocks, or fractions of them; by default all, starting with 0.
        **options: `metrics`: "faithfulness", "localisation"; by default the first, and the second if there are masks;
            () for maps only. `protocol`: protocol of the curves, "rise-28" by default; see `cl.insertion_deletion`.
            `masks`: masks of images that are not a data set, bool [height, width] at the resolution of the model's
            input. `out`: a folder in which each image is stored when it is finished, so that the same call resumes
            where it stopped; it may also contain trials of other sweeps and of `cl.benchmark`. `batch_size`: number of
            changed images that run at once for the curves. `progress`: show a progress bar. All others are `caap`'s own
            and are the same for all settings.

    Raises:
        InputError: an argument is invalid, raised before anything runs; or not a single map could be computed.
    """
    check_kind(model, "sweep_cutoffs")
    _refuse_frozen(options.get("context"))
    wanted = range(model.n_layers + 1) if cutoffs is None else cutoffs
    counts = [cutoff_blocks(cutoff, model.n_layers) for cutoff in wanted]
    return run_sweep(model, images, target, ("cutoff",), {count: {"cutoff": count} for count in counts}, **options)


@_shown
def sweep_ranges(
    model: HookedViT,
    images: ImageSet | Images,
    target: TargetLike | None = None,
    *,
    ranges: Sequence[tuple[int, int]] | None = None,
    **options: Unpack[Options],
) -> CaapSweep:
    """CAAP over ranges of patched blocks: pairs (start, cutoff), blocks start to cutoff - 1; all by default.

    ```python
    sweep = cl.sweep_ranges(model, images, ranges=[(0, 4), (2, 4)])
    ```

    Blocks before `start` are the blank's own. Other arguments are those of `sweep_cutoffs`.
    """
    check_kind(model, "sweep_ranges")
    _refuse_frozen(options.get("context"))
    last = model.n_layers
    wanted = [(a, b) for a in range(last) for b in range(a + 1, last + 1)] if ranges is None else list(ranges)
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in wanted):
        raise InputError("ranges must be pairs (start, cutoff), such as [(0, 4), (2, 4)].")
    changes: dict[Label, dict[str, Any]] = {
        (int(start), cutoff_blocks(cutoff, last)): {"start": start, "cutoff": cutoff} for start, cutoff in wanted
    }
    return run_sweep(model, images, target, ("start", "cutoff"), changes, **options)


@_shown
def sweep_blanks(
    model: HookedViT,
    images: ImageSet | Images,
    target: TargetLike | None = None,
    *,
    blanks: Sequence[str] | Mapping[str, Blank] | None = None,
    **options: Unpack[Options],
) -> CaapSweep:
    """CAAP over blanks (paper Fig. 4): names, or your own labels for values that `caap` accepts as `blank`.

    By default all blanks with a name. Other arguments are those of `sweep_cutoffs`.

    ```python
    other = cl.blanks.mean_activations(photos)
    cl.sweep_blanks(model, images, blanks={"white": "white", "mean of photos": other, "my ground": "ground.png"})
    ```
    """
    wanted = blanks if isinstance(blanks, Mapping) else {name: name for name in _names("blanks", blanks, BLANKS)}
    return run_sweep(model, images, target, ("blank",), {k: {"blank": v} for k, v in wanted.items()}, **options)


@_shown
def sweep_neighbourhoods(
    model: HookedViT,
    images: ImageSet | Images,
    target: TargetLike | None = None,
    *,
    neighbourhoods: Sequence[str] | None = None,
    **options: Unpack[Options],
) -> CaapSweep:
    """CAAP over neighbourhoods, the tokens patched together with each patch (paper Fig. 5); all by default.

    ```python
    sweep = cl.sweep_neighbourhoods(model, images, neighbourhoods=["none", "box1"])
    ```

    Other arguments are those of `sweep_cutoffs`.
    """
    names = _names("neighbourhoods", neighbourhoods, NEIGHBOURHOODS)
    changes: dict[Label, dict[str, Any]] = {name: {"neighbourhood": name} for name in names}
    return run_sweep(model, images, target, ("neighbourhood",), changes, **options)


@_shown
def sweep_contexts(
    model: HookedViT,
    images: ImageSet | Images,
    target: TargetLike | None = None,
    *,
    contexts: Sequence[str] | None = None,
    **options: Unpack[Options],
) -> CaapSweep:
    """CAAP over contexts, which determine the other tokens; by default all contexts that the model supports.

    ```python
    sweep = cl.sweep_contexts(model, images, cutoff=5)
    ```

    Other arguments are those of `sweep_cutoffs`. "free" costs a forward pass per patch.
    """
    check_kind(model, "sweep_contexts")
    known = [context for context in CONTEXTS if context != "dropped" or model.spec.live_prefix]
    changes: dict[Label, dict[str, Any]] = {c: {"context": c} for c in _names("contexts", contexts, known)}
    return run_sweep(model, images, target, ("context",), changes, **options)


@_shown
def sweep_scores(
    model: HookedViT,
    images: ImageSet | Images,
    target: TargetLike | None = None,
    *,
    scores: Sequence[str] | None = None,
    **options: Unpack[Options],
) -> CaapSweep:
    """CAAP over scores: "logit", "prob" and "logprob", or those given, from one pass.

    ```python
    sweep = cl.sweep_scores(model, images)
    ```

    For a head with one output, "prob" is its sigmoid; see `caap`. Other arguments are those of `sweep_cutoffs`.
    """
    swept = [name for name, score in SCORES.items() if score.swept]
    changes: dict[Label, dict[str, Any]] = {score: {"score": score} for score in _names("scores", scores, swept)}
    return run_sweep(model, images, target, ("score",), changes, **options)


def _names(what: str, given: Sequence[str] | None, known: Sequence[str] | Mapping[str, Any]) -> list[str]:
    names = list(known) if given is None else [given] if isinstance(given, str) else list(given)
    if not all(isinstance(name, str) for name in names):
        hint = ", or a mapping from labels to blanks" if what == "blanks" else ""
        raise InputError(f"{what} must be a list of names{hint}.")
    return names


def _refuse_frozen(context: str | None) -> None:
    if context == "frozen":
        raise InputError("context='frozen' patches all blocks from start on, so a cutoff has no effect.")
