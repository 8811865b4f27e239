"""Cost of the maps of a sweep: tokens x blocks, in forward passes of the same model."""

from collections.abc import Sequence
from itertools import groupby

import torch

from caap_lab.bench.target_rule import TargetRule, reads_prediction
from caap_lab.engine.layout import layout
from caap_lab.engine.plan import CaapPlan
from caap_lab.models.vit import HookedViT
from caap_lab.sweeps.sweep_settings import Setting


def sweep_passes(model: HookedViT, settings: Sequence[Setting], rule: TargetRule | int) -> float:
    """Cost of the maps of one image, without metrics and the runs on the blanks, which all images share.

    Args:
        model: The model.
        settings: The sweep's settings.
        rule: The target. For the model's own prediction, the run on the image is complete; a target that depends on it,
            such as the contrast of the prediction to another class, needs a separate run before.
    """
    prediction = rule == "prediction"
    steps = model.spec.n_tokens * model.spec.n_layers if reads_prediction(rule) and not prediction else 0
    for _, same in groupby(sorted(settings, key=lambda s: str(s.shared)), key=lambda s: s.shared):
        plans = [setting.plan for setting in same]
        steps += _source_steps(model, plans, prediction)
        by_start: dict[int, set[int]] = {}
        for plan in plans:
            by_start.setdefault(plan.start, set()).add(plan.cutoffs[0])
        steps += sum(_group_steps(model, plans[0], start, cutoffs) for start, cutoffs in by_start.items())
    return steps / (model.spec.n_tokens * model.spec.n_layers)


def _source_steps(model: HookedViT, plans: Sequence[CaapPlan], prediction: bool) -> int:
    """Tokens x blocks of the run on the image."""
    spec = model.spec
    patched = [plan.cutoffs[0] for plan in plans if plan.cutoffs[0] > plan.start]
    if (
        prediction
        or plans[0].direction == "remove"
        or (patched and plans[0].context == "frozen" and spec.reads_patches)
    ):
        return spec.n_layers * spec.n_tokens
    if not patched:
        return 0
    stop = spec.n_layers if plans[0].context == "frozen" else max(patched)
    return (stop - 1) * spec.n_tokens  # of the last block, only its input


def _group_steps(model: HookedViT, plan: CaapPlan, start: int, cutoffs: set[int]) -> int:
    """Tokens x blocks of the patches' runs for some cutoffs with one start."""
    spec = model.spec
    n_layers, n_prefix_rows = spec.n_layers, spec.n_patches * len(spec.live_prefix)
    if plan.context == "free":
        return len(cutoffs) * spec.n_patches * spec.n_tokens * (n_layers - start)
    patched = sorted(cutoff for cutoff in cutoffs if cutoff > start)
    if not patched:
        return 0
    groups = layout(spec, plan.neighbourhood, plan.tail, 0, spec.n_patches, torch.device("cpu"))
    n_patch_rows = len(groups.live.tokens) - n_prefix_rows
    steps = n_prefix_rows * (patched[-1] - 1 - start)  # the blocks up to the cutoff, shared by all cutoffs
    for cutoff in patched:
        blocks = n_layers - (cutoff - 1)
        steps += n_prefix_rows * blocks
        if plan.context == "clamped":  # if the head reads no patch, only prefix rows run in the last block
            steps += n_patch_rows * (blocks if spec.reads_patches else blocks - 1)
    return steps
