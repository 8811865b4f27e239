"""Logits and probabilities of several runs side by side: probabilities as bars, logits as numbers."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from caap_lab.escaping import for_html
from caap_lab.models.base import HookedModel
from caap_lab.models.probability import probabilities
from caap_lab.widgets.table_cells import class_cell, share_cell

SHOWN = 5
"""Number of likeliest classes listed; the target is added if it is not among them."""


def class_table(
    title: str,
    logits: Float[Tensor, "classes"],
    others: Mapping[str, Float[Tensor, "classes"] | None],
    target: int | None,
    model: HookedModel,
    against: int | None = None,
    name: str = "inserted",
) -> str:
    """HTML of a run's likeliest classes: probability and logit in this run and in others.

    Args:
        title: Name of the run.
        logits: Its logits.
        others: Logits to compare with; None if they are not known yet.
        target: The class in bold.
        model: The model, for the classes' names.
        against: The class in italics, with which the target is compared.
        name: Column name of the run's own logits.
    """
    best = logits.argsort(descending=True, stable=True)[:SHOWN].tolist()
    shown = list(dict.fromkeys([*best, *(index for index in (target, against) if index is not None)]))
    columns = {name: logits} | {name: values for name, values in others.items() if values is not None}
    heads = "".join(f'<th colspan="2" scope="colgroup">{for_html(name)}</th>' for name in columns)
    lines = [f'<tr><th scope="col">class</th>{heads}</tr>']
    shares = {name: probabilities(values) for name, values in columns.items()}
    for index in shown:
        cells = "".join(
            share_cell(float(shares[name][index])) + f'<td class="number">{float(values[index]):z.3f}</td>'
            for name, values in columns.items()
        )
        lines.append(f"<tr>{class_cell(index, model.class_names, target, against)}{cells}</tr>")
    caption = f"{for_html(title)} <span>probability and logit</span>"
    return f'<table class="caap-classes"><caption>{caption}</caption>{"".join(lines)}</table>'
