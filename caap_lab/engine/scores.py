"""The scores that CAAP computes from the logits of patched runs.

torch is imported when the functions run, so that the command line can list the names quickly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caap_lab.models.targets import Target


@dataclass(frozen=True)
class Score:
    """A score: one number for every class, from the logits of all classes."""

    of_logits: Callable[..., Any]
    """Logits [..., classes] -> scores of the same shape, in at least float32."""
    swept: bool
    """Whether `sweep_scores` compares it by default, as it does for scores of mutually exclusive classes."""
    one_output: str = ""
    """The score that replaces it for a head with one output, whose softmax is always 1; empty for the same."""


def _logit(logits: Any) -> Any:
    from caap_lab.models.device_dtype import widened

    return widened(logits)


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
"""All scores by name."""


def target_score(target: "Target", logits: Any, score: str) -> Any:
    """A target's score, from logits [..., columns] of the model that `explained` returns; in at least float32.

    For a class it is that class's score. "logit" is the value of any target. As a probability, a contrast of two
    classes is the sigmoid of their difference, whatever the head is; one against the mean of all classes is its class's
    own with "prob", as a softmax does not see what all logits share, and with "sigmoid" that of the logit less the
    mean.

    Raises:
        InputError: see `check_score`.
    """
    from caap_lab.models.device_dtype import widened

    check_score(target, score)
    if score == "logit":
        return widened(target.value(logits))
    return target.probability(logits, "sigmoid" if "sigmoid" in score else "auto", log=score.startswith("log"))


def check_score(target: "Target", score: str) -> None:
    """Raise InputError for a probability of a target without one.

    Raises:
        InputError: the target has none; the message says what to use instead.
    """
    from caap_lab.errors import InputError

    if score != "logit" and not target.has_probability:
        raise InputError(
            f"score={score!r} is a probability, but the target {target.name!r} has none: use score='logit', which is "
            "its value."
        )


DROP = "drop in "
"""Before a score's name: what it loses when a patch is removed."""


def score_read(score: str, n_classes: int, direction: str = "insert") -> str:
    """What a map's score is. "drop in" it where patches are removed.

    Of a head with one output, whose softmax is always 1, sigmoids are read.
    """
    read = (SCORES[score].one_output or score) if n_classes == 1 else score
    return DROP + read if direction == "remove" else read


def score_of_run(score: str) -> str:
    """The score that is read of a patched run, from a map's score: "logit" for "drop in logit"."""
    return score.removeprefix(DROP)
