"""From the logits of patched runs to the score of a target, as CAAP's setting `score` names it."""

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.models.targets import Target


def set_scores(target: Target, logits: Float[Tensor, "set columns"], score: str) -> Float[Tensor, " set"]:
    """A target's score in each run, in float64.

    Args:
        target: What is explained.
        logits: Of the runs.
        score: One of CAAP's scores: a logit is the target's value, the others are its probability.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if score == "logit":
        return target.value(wide).double()
    return target.probability(wide, "sigmoid" if "sigmoid" in score else "auto", log=score.startswith("log")).double()
