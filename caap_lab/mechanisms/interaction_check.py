"""A cheap check for maps and traces of patched runs: do single effects add up to the joint effect?"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.map_target import map_targets
from caap_lab.checks import check_count
from caap_lab.digests.tensors import tensor_digest
from caap_lab.engine.plan import check_ready
from caap_lab.engine.scores import score_of_run, target_score
from caap_lab.engine.sets import PatchSets
from caap_lab.engine.settings import CaapSettings
from caap_lab.errors import InputError
from caap_lab.mechanisms.gap import InteractionCheck
from caap_lab.mechanisms.trace_gap import check_trace
from caap_lab.mechanisms.trace_result import Trace
from caap_lab.models.base import HookedModel, Images, check_kind
from caap_lab.models.running import runs_model


@runs_model
@torch.no_grad()
def interaction_check(
    model: HookedModel,
    result: AttributionMap | Trace,
    image: Images = None,
    *,
    top: int = 10,
    blank: Any = None,
) -> InteractionCheck:
    """How far the sum of single effects is from the joint effect of the highest patches, for one additional run.

    ```python
    m = cl.caap(model, "cat.jpg")
    cl.interaction_check(model, m)
    traced = cl.trace(model, clean, corrupted)
    cl.interaction_check(model, traced)
    ```

    Scores of single patches, heads or tokens include their interactions with everything that is not patched. These grow
    with the distance between the two runs, and are small if the model is nearly linear (Vaidyanathan et al. 2026, arXiv
    2606.27510). If the single effects of the highest ones do not add up to their joint effect, sums of such scores and
    comparisons of their sizes mean little.

    For a map, the highest patches whose neighbourhoods share no patch are used, because shared patches would count
    twice in the sum. The single effects of a CAAP map are its own scores minus the blank's. Scores of other methods are
    not effects: for these, the highest patches are also inserted into the blank one by one, with CAAP's default
    settings. For a trace, the cells with the largest effects by absolute value are used (means over pairs); in the
    residual stream, which carries what is inserted to later layers, each token or region is used once, in the layer
    with its largest effect.

    Args:
        model: The model that produced the result.
        result: A map of any method, or a trace.
        image: The image of the map, if the model was given a tensor; a map of a photo contains the pixels, and traces
            contain theirs.
        top: How many of the highest patches or cells; fewer if there are no more.
        blank: The blank of the map, if it was an image or your own activations.

    Returns:
        Joint effect, sum of single effects and their gap for each image or pair, the distance between the runs, and the
        cost of the check.

    Raises:
        InputError: the result is not this model's, or its image is needed.
    """
    check_count("top", top)
    if isinstance(result, Trace):
        if result.pairs.model.fingerprint != model.fingerprint:
            raise InputError(f"This trace is from another model than {model.model_name}, or its weights have changed.")
        return check_trace(result, top)
    if not isinstance(result, AttributionMap):
        raise InputError(f"interaction_check takes an AttributionMap or a Trace, not {type(result).__name__}.")
    check_kind(model, "interaction_check of a map", ("vit", "cnn"))
    check_ready(model)
    if result.fingerprint != model.fingerprint or result.grid != model.grid:
        raise InputError(f"This map is from another model than {model.model_name}, or its weights have changed.")
    own = result.method == "caap"
    model, (target,) = map_targets(model, result)
    sets = PatchSets.of(model, _settings(result, blank) if own else CaapSettings())
    runs = sets.of_image(_image(model, result, image))
    if own and runs.blank != result.settings["blank"]:
        raise InputError(
            f"The map's blank was {result.settings['blank']!r}, not {runs.blank!r}: pass it as blank=..., or use a map "
            "with a named blank."
        )
    cells = _apart(result, sets.neighbourhoods, top)
    numbers = [row * model.grid[1] + col for row, col in cells]
    joint = sets.neighbourhoods[numbers].any(dim=0, keepdim=True)
    masks = torch.cat([torch.zeros_like(joint), joint, *([] if own else [sets.neighbourhoods[numbers]])])
    values = target_score(target, runs.all_logits(masks), sets.settings.score).double().cpu()
    singles = torch.stack([result.scores[cell] for cell in cells]).double().cpu() if own else values[2:]
    compared = "its own scores" if own else "patched runs of its highest patches, with CAAP's default settings"
    return InteractionCheck.of(
        [float(values[1] - values[0])],
        [float((singles - values[0]).sum())],
        [runs.distance(joint[0])],
        model=model.model_name,
        what=f"{result.method}'s {len(cells)} highest patches",
        unit=f"the {sets.settings.score} of {result.target_name}",
        target=result.target_name,
        compared=compared,
        cells=str(cells),
        forward_passes=sets.passes(masks) + 2,  # plus the run of the image, once more for the distance
        **{name: value for name, value in runs.written.items() if name != "score"},
    )


def _settings(m: AttributionMap, blank: Any) -> CaapSettings:
    """The settings of a CAAP map, with the exact tail."""
    kept: dict[str, Any] = {name: value for name, value in m.settings.items() if name != "tail"}
    named = kept["blank"]
    if blank is None and (named.startswith(("image ", "mean_activations "))):
        raise InputError(f"The map was computed with your own blank ({named}): pass it again as blank=...")
    if m.settings.get("context") == "frozen":  # its cutoff is the number of blocks
        kept["cutoff"] = None
    return CaapSettings(**kept | {"blank": named if blank is None else blank, "score": score_of_run(m.score)})


def _image(model: HookedModel, m: AttributionMap, image: Images) -> Float[Tensor, "1 3 height width"]:
    """The input of the map: the given image, or the pixels of the map if they determine it."""
    if image is not None:
        batch = model.preprocess(image)
        if len(batch) != 1:
            raise InputError(f"A map belongs to one image; {len(batch)} were given.")
    else:
        pixels = m.image.permute(2, 0, 1).float().div(255)
        mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
        pixels = (pixels - mean) / std
        batch = model.preprocess(pixels)
    if tensor_digest(batch[0]) != m.image_digest:
        raise InputError(
            "This is not the image of the map."
            if image is not None
            else "The image of the map was a tensor, not a photo: pass it as well, interaction_check(model, m, image)."
        )
    return batch


def _apart(m: AttributionMap, neighbourhoods: Bool[Tensor, "patch patch"], top: int) -> list[tuple[int, int]]:
    """The highest cells whose neighbourhoods share no patch."""
    taken = torch.zeros_like(neighbourhoods[0])
    found: list[tuple[int, int]] = []
    for row, col in m.rank():
        own = neighbourhoods[row * m.grid[1] + col]
        if len(found) < top and not (own & taken).any():
            found.append((row, col))
            taken |= own
    return found
