"""The scores that CAAP reads from the logits of patched runs.

torch is imported by the functions, when they run, so that the command line can list the names at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """A score: one number for every class, from the logits of all classes."""

    of_logits: Callable[..., Any]
    """Logits [..., classes] -> scores of the same shape, in float32 at least."""
    swept: bool
    """Whether `sweep_scores` compares it by default, as it does with scores of classes that exclude each other."""
    one_output: str = ""
    """What is read in its place from a head with one output, whose softmax is always 1; empty for the same."""


def _logit(logits: Any) -> Any:
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _of_probability(probability: str, log: bool) -> Callable[..., Any]:
    def read(logits: Any) -> Any:
        from caap_lab.models.probability import probabilities

        return probabilities(logits, probability, log=log)

    return read


SCORES: dict[str, Score] = {
    "logit": Score(_logit, swept=True),
    "prob": Score(_of_probability("auto", log=False), swept=True, one_output="sigmoid"),
    "logprob": Score(_of_probability("auto", log=True), swept=True, one_output="logsigmoid"),
    "sigmoid": Score(_of_probability("sigmoid", log=False), swept=False),
    "logsigmoid": Score(_of_probability("sigmoid", log=True), swept=False),
}
"""All scores by name; the one place that knows them."""


def score_read(score: str, n_classes: int) -> str:
    """What is read where a score is asked for: sigmoids for a head with one output, whose softmax is always 1."""
    return (SCORES[score].one_output or score) if n_classes == 1 else score
