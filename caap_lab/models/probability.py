"""From logits to probabilities, for all methods, metrics and plots."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.checks import check_choice
from caap_lab.errors import InputError
from caap_lab.models.device_dtype import widened

PROBABILITIES = ("auto", "softmax", "sigmoid")
"""How logits become probabilities. "softmax": classes are mutually exclusive. "sigmoid": each class is independent, as
in a multi-label head. "auto": sigmoid for a head with one output, whose softmax is always 1, otherwise softmax."""


def resolved_probability(probability: str, n_classes: int) -> str:
    """Either "softmax" or "sigmoid", for one of `PROBABILITIES` and a number of outputs.

    Raises:
        InputError: the word is unknown, or it is "softmax" for a head with one output.
    """
    check_choice("probability", probability, PROBABILITIES)
    if probability == "auto":
        return "sigmoid" if n_classes == 1 else "softmax"
    if probability == "softmax" and n_classes == 1:
        raise InputError(
            "probability='softmax' is always 1 for a head with one output; use 'sigmoid', or 'auto', which does so."
        )
    return probability


def probabilities(
    logits: Float[Tensor, "*cell classes"], probability: str = "auto", *, log: bool = False
) -> Float[Tensor, "*cell classes"]:
    """Probabilities of classes, in at least float32.

    Args:
        logits: Classes on the last axis.
        probability: One of `PROBABILITIES`.
        log: Return their logarithms instead, without loss of precision at small values.
    """
    wide = widened(logits)
    if resolved_probability(probability, logits.shape[-1]) == "sigmoid":
        return F.logsigmoid(wide) if log else wide.sigmoid()
    return wide.log_softmax(dim=-1) if log else wide.softmax(dim=-1)
