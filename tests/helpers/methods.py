"""What tests have to know of every method besides what the registry says. A new method needs one line here."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from caap_lab.attribution.cost import ModelSize

Options = dict[str, Any]


def _equal(counted: float, stated: float, size: ModelSize) -> bool:
    return math.isclose(counted, stated, rel_tol=1e-6)


def _one_mask_less(counted: float, stated: float, size: ModelSize) -> bool:
    """Half of the patches and the class token are a little more than half; equal masks run once."""
    return 1 < counted < 1.05 * stated


def _clusters(counted: float, stated: float, size: ModelSize) -> bool:
    """A mask is a cluster of channels."""
    return 3 <= counted + 1e-6 <= 1 + 2 * size.channels + 1e-5


def _with_blurs(counted: float, stated: float, size: ModelSize) -> bool:
    """Blurs of up to 36 widths are tried."""
    return stated <= counted + 1e-6 <= stated + 36


def _caap(counted: float, stated: float, size: ModelSize) -> bool:
    """Its own pass stops at the cutoff."""
    return math.isclose(counted, stated - 1) if size.kind == "cnn" else math.isclose(counted, stated, rel_tol=0.15)


def _rank_sum(counted: float, stated: float, size: ModelSize) -> bool:
    """CAAP's, and a pass of LibraGrad's or Grad-CAM's."""
    return _caap(counted - 1, stated - 1, size)


@dataclass(frozen=True)
class Facts:
    """Of one method."""

    quick: Options = field(default_factory=dict)
    """Options that make it quick."""
    others: tuple[Options, ...] = ()
    """Further options under which it keeps every contract on ViTs, besides `quick`."""
    feature_maps: bool = False
    """True if a map of a CNN or black box has the size of its last feature maps, not of its grid."""
    pixels: bool = False
    """True if a map has a score for each pixel."""
    needs_class_token: Options | None = None
    """Options that a model without a class token refuses."""
    single_precision: float = 1e-3
    """Largest difference of a map in float32, as a share of the highest score."""
    may_be_zero: bool = False
    """True if a map may be all zeros, for a class that the image speaks against."""
    answers_every_class: bool = True
    """False if maps of two classes may be equal: all zeros, or too few masks to tell probabilities apart."""
    seeded: Options | None = None
    """Options under which its seed decides something."""
    cost_of: Options = field(default_factory=dict)
    """Sizes of the ViT whose passes are counted; CAAP's cost is that of a deep one with many patches."""
    keeps_blank_runs: bool = False
    """True if a first map costs the run on a blank as well, which the model keeps."""
    readings: int = 1
    """How often it reads the head in its forward pass: once for each block, say."""
    cost_fits: Callable[[float, float, ModelSize], bool] = _equal
    """(counted forward passes, stated ones, size) -> whether they agree."""
    wrong: tuple[tuple[Options, str], ...] = ()
    """Options that are refused, with what the message says."""


CHUNK = "chunk_size must be a whole number of at least 1"

FACTS: dict[str, Facts] = {
    "caap": Facts(
        others=(
            {"tail": "interpolated"},
            {"attention": "cached"},
            {"context": "free"},
            {"context": "frozen"},
            {"direction": "remove"},
        ),
        seeded={"blank": "noise"},
        cost_of={"img_size": 64, "depth": 12},
        keeps_blank_runs=True,
        cost_fits=_caap,
        wrong=(({"tail": "long"}, "tail='long'"), ({"chunk_size": 0}, CHUNK), ({"cutof": 3}, "Nearest: cutoff")),
    ),
    "grad_cam": Facts(
        others=({"version": "last_input"}, {"version": "attention"}),
        feature_maps=True,
        may_be_zero=True,
        wrong=(
            ({"version": "tokens"}, "version='tokens' is not known; use one of token, last_input, attention"),
            ({"layer": 3}, "grad_cam has no option 'layer'"),
        ),
    ),
    "rollout": Facts(
        wrong=(
            ({"start_layer": 4}, "start_layer=4 must be a whole number from 0 to 3"),
            ({"start_layer": -5}, "start_layer=-5 must be .* or from -4 to -1"),
        ),
    ),
    "transformer_attribution": Facts(
        single_precision=1e-2,  # quotients are by values near 0
        wrong=(({"start_layer": True}, "start_layer=True"),),
    ),
    "vit_cx": Facts(
        pixels=True,
        seeded={},
        cost_fits=_clusters,
        wrong=(
            ({"distance": -0.1}, "distance=-0.1"),
            ({"noise": math.nan}, "noise=nan"),
            ({"seed": 2**63}, "seed"),
            ({"chunk_size": -3}, CHUNK),
        ),
    ),
    "tam": Facts(
        {"steps": 3},
        wrong=(({"steps": 1}, "at least 2"), ({"steps": 2.5}, "steps"), ({"start_layer": 9}, "start_layer=9")),
    ),
    "ixg_plus": Facts(),
    "libra_ixg_plus": Facts(),
    "mda": Facts(
        {"steps": 3},
        may_be_zero=True,
        answers_every_class=False,
        cost_fits=_with_blurs,
        wrong=(
            ({"gamma": 1.5}, "gamma=1.5"),
            ({"threshold": 0}, "threshold=0"),
            ({"kappa": "low"}, "kappa='low'"),
            ({"steps": 0}, "steps"),
            ({"start_layer": 4}, "from 0 to 3"),
            ({"chunk_size": 0}, CHUNK),
            ({"tau": 0.9}, "no option 'tau'"),
        ),
    ),
    "mutex": Facts(
        cost_fits=_one_mask_less,
        wrong=(
            ({"min_cut": -0.1}, "min_cut=-0.1"),
            ({"token_ratio": 0}, "token_ratio=0 must be a number above 0"),
            ({"token_ratio": 1.1}, "token_ratio=1.1"),
            ({"start_layer": 4}, "start_layer=4"),
            ({"chunk_size": 0}, CHUNK),
        ),
    ),
    "simple_insertion": Facts(
        seeded={"blank": "noise"},
        wrong=(
            ({"neighbourhood": "box9"}, "no neighbourhood 'box9'"),
            ({"blank": "zero_activations"}, "consists of activations"),
        ),
    ),
    "simple_deletion": Facts(
        seeded={"blank": "noise"},
        wrong=(({"blank": "grey"}, "no blank 'grey'"), ({"seed": -1}, "seed=-1"), ({"chunk_size": 0}, CHUNK)),
    ),
    "input_x_gradient": Facts(),
    "integrated_gradients": Facts(
        {"steps": 7},
        wrong=(({"steps": 0}, "steps must be a whole number of at least 1"), ({"chunk_size": 1.5}, CHUNK)),
    ),
    "smoothgrad": Facts(
        {"samples": 4, "noise": 0.2, "seed": 4},
        others=(
            {"samples": 4, "noise": 0.2, "seed": 4, "kind": "signed"},
            {"samples": 4, "noise": 0.2, "seed": 4, "kind": "times_input"},
        ),
        seeded={},
        wrong=(
            ({"samples": -1}, "samples must be a whole number of at least 1"),
            ({"noise": -0.1}, "noise=-0.1 must be a number at least 0 and at most 1"),
            ({"noise": "much"}, "noise='much' must be a number"),
            ({"seed": 0.5}, "seed=0.5 must be a whole number"),
            ({"kind": "squared"}, "kind='squared' is not known; use one of absolute, signed, times_input"),
            ({"chunk_size": 0}, CHUNK),
        ),
    ),
    "full_grad_plus": Facts(others=({"first_term": "entering_block"},)),
    "grad_cam_plus_plus": Facts(feature_maps=True),
    "score_cam": Facts(feature_maps=True, wrong=(({"chunk_size": 0}, CHUNK),)),
    "attcat": Facts(),
    "grad_sam": Facts(
        others=({"rows": "cls"},),
        needs_class_token={"rows": "cls"},
        wrong=(({"rows": "first"}, "rows='first' is not known; use one of all, cls"),),
    ),
    "gen_att": Facts(wrong=(({"start_layer": 1.5}, "start_layer=1.5"),)),
    "rise": Facts(
        {"samples": 20},
        answers_every_class=False,
        seeded={},
        wrong=(
            ({"samples": 0}, "samples"),
            ({"cells": 2.5}, "cells"),
            ({"keep": 0}, "above 0 and below 1"),
            ({"keep": 1.0}, "above 0 and below 1"),
            ({"seed": "one"}, "seed='one'"),
            ({"chunk_size": True}, CHUNK),
        ),
    ),
    "occlusion": Facts(
        others=({"blank": "blur", "window": 20, "stride": 12},),
        seeded={"blank": "noise"},
        wrong=(
            ({"window": 0}, "window must be a whole number of at least 1"),
            ({"stride": 1.5}, "stride must be a whole number"),
            ({"window": 4, "stride": 6}, "A stride of 6 pixels skips pixels between windows of 4;"),
            ({"blank": "grey"}, "no blank 'grey'"),
            ({"blank": "zero_activations"}, "consists of activations"),
            ({"seed": -1}, "seed=-1"),
            ({"chunk_size": 0}, CHUNK),
        ),
    ),
    "shapley": Facts(
        {"samples": 20},
        others=({"samples": 20, "score": "prob", "blank": "mean"},),
        seeded={},
        wrong=(
            ({"samples": 0}, "samples must be a whole number"),
            ({"samples": 7}, "samples=7 must be an even number of at least 4"),
            ({"until": 0}, "until=0 must be a number above 0"),
            ({"score": "margin"}, "score='margin' is not known"),
            ({"blank": "zero_activations"}, "consists of activations"),
            ({"seed": -1}, "seed=-1"),
            ({"chunk_size": 0}, CHUNK),
        ),
    ),
    "tis": Facts(
        {"clusters": 5},
        seeded={},
        cost_fits=_one_mask_less,
        wrong=(
            ({"clusters": 0}, "clusters"),
            ({"kept": 0}, "kept=0"),
            ({"seed": -1}, "seed=-1"),
            ({"chunk_size": 0}, CHUNK),
        ),
    ),
    "atman": Facts(
        wrong=(
            ({"factor": 2}, "factor=2"),
            ({"similarity": 1.5}, "similarity=1.5 must be a number from -1 to 1"),
            ({"chunk_size": 0}, CHUNK),
        ),
    ),
    "legrad": Facts(
        others=({"class_token": "own"},),
        readings=4,
        wrong=(
            ({"start_layer": 4}, "start_layer=4 must be a whole number from 0 to 3"),
            ({"class_token": "cls"}, "class_token='cls' is not known; use one of mean, own"),
        ),
    ),
    "attn_lrp": Facts(
        others=({"rules": "cp_lrp", "gamma": 0.25},),
        wrong=(
            ({"rules": "lrp"}, "rules='lrp' is not known; use one of attn_lrp, cp_lrp"),
            ({"gamma": -0.1}, "gamma=-0.1 must be a number of at least 0"),
            ({"patch_gamma": math.inf}, "patch_gamma=inf must be a number"),
            ({"patch_gamma": 0.25}, "needs at='pixels'"),
            ({"at": "tokens"}, "at='tokens' is not known; use one of embedding, pixels"),
        ),
    ),
    "rank_sum": Facts(
        cost_of={"img_size": 64, "depth": 12},
        keeps_blank_runs=True,
        cost_fits=_rank_sum,
        wrong=(
            ({"first": "capp"}, "there is no method 'capp'. Nearest: caap"),
            ({"second": 3}, "second=3 is not a method as text"),
            ({"second": "caap:cutof=3"}, "caap has no option 'cutof'"),
        ),
    ),
}
QUICK = {name: facts.quick for name, facts in FACTS.items()}
"""Options that make methods quick."""
