"""What the maps of a sweep cost: tokens x blocks, in forward passes of the same model."""

from collections.abc import Sequence
from itertools import groupby

from caap_lab.context.engine import Plan
from caap_lab.hooked.model import HookedViT
from caap_lab.hooked.tokens import neighbourhood_offsets
from caap_lab.sweeps.settings import Setting


def sweep_passes(model: HookedViT, settings: Sequence[Setting], prediction: bool) -> float:
    """Cost of one image's maps, without metrics and the blanks' own runs, which all images share.

    Args:
        model: The model.
        settings: The sweep's settings.
        prediction: True if the model's own prediction is explained, for which the image runs to the end.
    """
    steps = 0
    for _, same in groupby(sorted(settings, key=lambda s: str(s.shared)), key=lambda s: s.shared):
        group = list(same)
        cutoffs = {setting.plan.cutoffs[0] for setting in group}
        steps += _steps(model, group[0].plan, cutoffs, str(group[0].options["neighbourhood"]), prediction)
    return steps / (model.spec.n_tokens * model.spec.n_layers)


def _steps(model: HookedViT, plan: Plan, cutoffs: set[int], neighbourhood: str, prediction: bool) -> int:
    """Tokens x blocks of the maps for some cutoffs from one pass."""
    spec, start = model.spec, plan.start
    n_layers, n_live = spec.n_layers, len(spec.live_prefix)
    patched = sorted(cutoff for cutoff in cutoffs if cutoff > start)
    runs_source = prediction or bool(patched)
    last = n_layers if prediction or plan.context == "frozen" else max(patched, default=0)
    steps = last * spec.n_tokens if runs_source else 0
    if plan.context == "free":
        return steps + len(cutoffs) * spec.n_patches * spec.n_tokens * (n_layers - start)
    if not patched:
        return steps
    n_rows = len(neighbourhood_offsets(neighbourhood)) if plan.tail == "exact" else 1
    steps += spec.n_patches * n_live * (patched[-1] - 1 - start)  # the class rows' way, which all cutoffs share
    for cutoff in patched:
        blocks = n_layers - (cutoff - 1)
        steps += spec.n_patches * n_live * blocks
        if plan.context == "clamped":  # the head reads no patch: the last block moves the class rows alone
            steps += spec.n_patches * n_rows * (blocks if spec.reads_patches else blocks - 1)
    return steps
