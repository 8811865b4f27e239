"""What a patch or a box says for the classes, as a table."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from caap_lab.escaping import for_html
from caap_lab.models.base import HookedModel
from caap_lab.models.probability import probabilities

SHOWN = 5
"""Likeliest classes listed; the target is added where it is not among them."""


def class_table(
    title: str,
    logits: Float[Tensor, "classes"],
    others: Mapping[str, Float[Tensor, "classes"] | None],
    target: int | None,
    model: HookedModel,
    against: int | None = None,
    name: str = "inserted",
) -> str:
    """HTML of the likeliest classes with their logits, and what other runs give for the same classes.

    Args:
        title: Which run it is.
        logits: Its logits.
        others: Logits to compare with; None where they are not known yet.
        target: The class in bold.
        model: Knows the classes' names.
        against: The class in italics, which the target is compared with.
        name: Of the column of the run's own logits.
    """
    best = logits.argsort(descending=True, stable=True)[:SHOWN].tolist()
    shown = list(dict.fromkeys([*best, *(index for index in (target, against) if index is not None)]))
    columns = {name: logits} | {name: values for name, values in others.items() if values is not None}
    heads = "".join(f"<th>{for_html(name)}</th>" for name in ("class", "probability", *columns))
    lines = [f"<tr>{heads}</tr>"]
    shares = probabilities(logits)
    for index in shown:
        text = for_html(f"{index}: {model.class_names.name(index)}")
        shown_name = f"<b>{text}</b>" if index == target else f"<i>{text}</i>" if index == against else text
        lines.append(
            f"<tr><td>{shown_name}</td>"
            + "".join(
                f'<td class="number">{value}</td>'
                for value in (
                    f"{float(shares[index]):.1%}",
                    *(f"{float(values[index]):.3f}" for values in columns.values()),
                )
            )
            + "</tr>"
        )
    return f"<table><caption>{for_html(title)}; logits</caption>{''.join(lines)}</table>"
