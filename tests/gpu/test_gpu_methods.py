"""Every attribution method on a CUDA device, in three number formats, against float64 on the CPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from helpers.on_gpu import FAMILIES, FORMATS, MARGIN, Seen, both, difference, needs_gpu, on_gpu

pytestmark = needs_gpu

SEEN: dict[str, Seen] = {
    "caap": (4e-6, 0.011, 0.04),
    "grad_cam": (1.6e-6, 0.008, 0.05),
    "rollout": (6e-7, 0.0011, 0.008),
    "transformer_attribution": (4e-6, 4e-6, 4e-6),  # computed in float64 whatever the format
    "vit_cx": (2.4e-6, 0.12, 3.0),
    "tam": (1.1e-6, 0.0023, 0.03),
    "ixg_plus": (1.2e-5, 0.02, 0.11),
    "libra_ixg_plus": (2.3e-6, 0.0065, 0.037),
    "mda": (2.1e-6, 0.0051, 0.6),
    "mutex": (7e-7, 0.17, 0.21),
    "simple_insertion": (2.5e-6, 0.006, 0.04),
    "simple_deletion": (1.7e-6, 0.005, 0.04),
    "input_x_gradient": (6.6e-6, 0.022, 0.09),
    "integrated_gradients": (3.2e-6, 0.0054, 0.071),
    "smoothgrad": (6.2e-7, 0.0011, 0.013),
    "full_grad_plus": (2.5e-6, 0.011, 0.049),
    "grad_cam_plus_plus": (3.1e-5, 0.19, 1.5),
    "score_cam": (7.1e-5, 0.05, 1.0),
    "attcat": (4.7e-6, 0.014, 0.13),
    "grad_sam": (4e-6, 0.0086, 0.044),
    "gen_att": (4.2e-6, 0.0093, 0.049),
    "rise": (5.7e-7, 0.0028, 0.051),
    "occlusion": (2.9e-6, 0.016, 0.092),
    "tis": (6e-7, 0.048, 0.063),
    "atman": (3e-6, 0.012, 0.15),
    "legrad": (4e-7, 0.001, 0.0085),
    "attn_lrp": (2.1e-6, 0.0026, 0.026),
    "rank_sum": (0.01, 0.04, 0.04),  # seen on a CPU, but in float32: there it was 0, and this allows one turned pair
    "shapley": (1.3e-6, 0.0032, 0.035),  # seen on a CPU, where occlusion and RISE differ as much as on an H100
}
UNSTABLE = {
    "rank_sum": "two patches change places where their scores are near",
    "vit_cx": "which channels form a cluster turns on one distance, and weights are differences of near probabilities",
    "mda": "the order in which patches are taken turns on near scores",
    "mutex": "patches are taken one after another, each the best so far by near scores",
    "tis": "which tokens form a mask turns on near activations",
    "grad_cam_plus_plus": "a denominator of either sign may come close to zero, and one channel then outweighs all",
    "score_cam": "a sum over channels of either sign, cut off at zero, which leaves one cell or none",
}
"""Methods in which rounding to half precision can turn a choice, or is magnified where two values nearly cancel.

One turned choice moves a whole map, so there most maps have to keep the order of patches, instead of each its values.
"""
QUICK: dict[str, dict[str, Any]] = {"rise": {"samples": 64}, "shapley": {"samples": 64}}


def maps_by(name: str) -> Callable[[Any, torch.Tensor], list[torch.Tensor]]:
    """Calls of one method for class 1: in half precision the predicted class could be another."""
    options = QUICK.get(name, {})
    return lambda model, images: [m.scores for m in cl.attribute(model, images, name, 1, progress=False, **options)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", SEEN)
def test_every_method(name: str, dtype: str) -> None:
    pairs = [pair for family in FAMILIES for pair in zip(*both(family, FORMATS[dtype], maps_by(name)), strict=True)]
    if dtype != "fp32" and name in UNSTABLE:
        ranks = [spearmanr(found.flatten(), expected.flatten()).statistic for found, expected in pairs]
        assert np.median(np.nan_to_num(ranks, nan=1)) > {"fp16": 0.95, "bf16": 0.85}[dtype]
    else:
        bound = MARGIN * dict(zip(FORMATS, SEEN[name], strict=True))[dtype]
        assert max(difference(found, expected) for found, expected in pairs) < bound


def test_no_method_is_left_out() -> None:
    assert set(SEEN) == {name for name, method in METHODS.items() if "vit" in method.models}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["beit", "rope_mixed", "deit_distilled", "conv_stem", "dino_head4"])
def test_every_method_on_other_families(family: str, name: str) -> None:
    try:
        found, expected = both(family, torch.float32, maps_by(name))
    except cl.InputError as refused:
        pytest.skip(str(refused))
    for one, other in zip(found, expected, strict=True):
        assert difference(one, other) < 1e-3


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("subject", ["resnet18", "vgg_bn", "densenet", "mixer", "mixer gmixer", "plain_net", "swin"])
def test_methods_on_other_models(subject: str, dtype: str) -> None:
    kind = on_gpu(subject, torch.float32).kind
    for name, method in METHODS.items():
        if kind in method.models and name not in UNSTABLE:
            for found, expected in zip(*both(subject, FORMATS[dtype], maps_by(name)), strict=True):
                # A ReLU whose input is near 0 opens or shuts with rounding, and a pixel's gradient jumps with it.
                assert difference(found, expected) < {"fp32": 1e-3, "fp16": 0.6, "bf16": 0.6}[dtype], name


VECTOR = torch.randn(24, generator=torch.Generator().manual_seed(4))
TARGETS: dict[str, Any] = {
    "contrast": cl.contrast(1, 4),
    "against the mean": cl.contrast(1),
    "direction": cl.direction(VECTOR, "probe"),
    "function": lambda logits: logits[:, 1] - 0.5 * logits[:, 3],
    "one each": [1, cl.contrast(2, 3)],
}


@pytest.mark.parametrize("target", TARGETS)
def test_every_kind_of_target(target: str) -> None:
    for name in ("caap", "input_x_gradient", "gen_att", "score_cam", "occlusion", "legrad"):

        def maps(model: Any, images: torch.Tensor, name: str = name) -> list[torch.Tensor]:
            return [m.scores for m in cl.attribute(model, images, name, TARGETS[target], progress=False)]

        for found, expected in zip(*both("dinov2_registers", torch.float32, maps), strict=True):
            assert difference(found, expected) < 1e-3, name
