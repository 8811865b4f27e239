"""The effect of a patch made by hand on the classes: numbers, and a table with bars."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from caap_lab.escaping import for_html
from caap_lab.models.classes import ClassNames
from caap_lab.models.probability import probabilities
from caap_lab.models.targets import Target
from caap_lab.widgets.table_cells import class_cell, share_cell
from caap_lab.widgets.target_box import compared_classes

if TYPE_CHECKING:
    import pandas as pd

LIKELIEST = 3
"""Number of classes shown per run."""
RUNS = ("before", "after", "source")


@dataclass(frozen=True, eq=False)
class PatchResult:
    """Logits of the target photo before and after a patch, and of the source photo.

    Attributes:
        before: Logits of the target photo.
        after: Logits of the target photo with the patch.
        source: Logits of the source photo.
        target: The scored target.
        scores: The target's score in each of these three runs.
        names: Names of the classes.
    """

    before: Float[Tensor, "classes"]
    after: Float[Tensor, "classes"]
    source: Float[Tensor, "classes"]
    target: Target
    scores: dict[str, float]
    names: ClassNames

    @property
    def effect(self) -> float:
        """The target's score with the patch minus without."""
        return self.scores["after"] - self.scores["before"]

    @property
    def share(self) -> float | None:
        """How far the patch moves the score towards that of the source photo: 0 not at all, 1 all the way.

        None if both photos have the same score, within the precision of their logits.
        """
        way = self.scores["source"] - self.scores["before"]
        noise = 1e-4 * max(1.0, abs(self.scores["source"]))
        return None if abs(way) <= noise else self.effect / way

    def shown_classes(self) -> list[int]:
        """The likeliest classes of each run and those that are compared, the likeliest of any run first."""
        shares = [probabilities(getattr(self, run)) for run in RUNS]
        best = [index for share in shares for index in share.topk(min(LIKELIEST, len(share))).indices.tolist()]
        compared = [index for index in compared_classes(self.target) if index is not None]
        return sorted(dict.fromkeys([*best, *compared]), key=lambda i: -max(float(share[i]) for share in shares))

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per class: logits and probabilities of each run, and the patch's change of the logit."""
        import pandas as pd

        columns: dict[str, object] = {
            "index": range(len(self.before)),
            "class": [self.names.name(i) for i in range(len(self.before))],
        }
        for run in RUNS:
            columns[f"logit_{run}"] = getattr(self, run).double().numpy()
        columns["logit_change"] = (self.after - self.before).double().numpy()
        for run in RUNS:
            columns[f"probability_{run}"] = probabilities(getattr(self, run)).double().numpy()
        return pd.DataFrame(columns)


def score_name(target: Target) -> str:
    """The scored quantity, with its unit."""
    return f"logit of {target.name}" if isinstance(target.given, int) else target.name


def score_html(result: PatchResult, from_source: bool) -> str:
    """The target's score before and after, in one line."""
    scores, effect = result.scores, result.effect
    way = ""
    if from_source:
        share = result.share
        said = "as for the target photo" if share is None else f"{share:.0%} of the way"
        way = f'<span class="caap-aside">source photo {scores["source"]:.3f}: {said}</span>'
    return (
        f'<div class="caap-effect"><span>{for_html(score_name(result.target))}</span> '
        f'{scores["before"]:.3f} <span aria-label="to">→</span> <b>{scores["after"]:.3f}</b> '
        f'<b class="{_sign(effect)}">{effect:+.3f}</b> {way}</div>'
    )


def classes_html(result: PatchResult) -> str:
    """The likeliest classes with bars: probabilities and logits before and after, and of the source photo."""
    shown = result.shown_classes()
    of, against = compared_classes(result.target)
    shares = {run: probabilities(getattr(result, run)) for run in RUNS}
    changes = result.after - result.before
    furthest = float(changes[shown].abs().max()) or 1.0
    heads = ("class", "before", "after", "change of logit", "source photo")
    lines = [f"<tr>{''.join(f'<th scope=col>{name}</th>' for name in heads)}</tr>"]
    for index in shown:
        logits = {run: float(getattr(result, run)[index]) for run in RUNS}
        cells = {run: share_cell(float(shares[run][index]), f"<small>{logits[run]:.2f}</small>") for run in RUNS}
        change = _change_cell(float(changes[index]), furthest)
        values = [cells["before"], cells["after"], change, cells["source"]]
        lines.append(f"<tr>{class_cell(index, result.names, of, against)}{''.join(values)}</tr>")
    caption = "Classes <span>probability and logit</span>"
    return f'<div class="caap-wide"><table class="caap-bars"><caption>{caption}</caption>{"".join(lines)}</table></div>'


def _change_cell(change: float, furthest: float) -> str:
    """A bar from the middle, to the right if the logit rises."""
    end = 50 + 50 * change / furthest
    low, high = sorted((50.0, end))
    return (
        f'<td class="number caap-change {_sign(change)}" '
        f'style="--caap-from: {low:.1f}%; --caap-to: {high:.1f}%">{change:+.2f}</td>'
    )


def _sign(change: float) -> str:
    return "caap-rise" if change >= 0 else "caap-fall"
