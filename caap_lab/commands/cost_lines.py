"""The cost of a run as `caap-lab doctor` prints it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caap_lab.bench.paper.cost_report import CostReport
    from caap_lab.bench.paper.costs import Share

_NOTES = {
    "--protocol": " (its numbers differ from rise; compare within one protocol)",
    "--precision": " (see --compare for what it changes)",
}
"""Notes on options, by the option's name."""


def cost_lines(cost: "CostReport", tables: Sequence[int], device: str, precision: str, timed: bool) -> list[str]:
    """Lines with the cost by model, method, table and figure, and the options that would save the most.

    Args:
        cost: The report.
        tables: Numbers of the chosen tables.
        device: Device on which passes were timed.
        precision: Number format in which passes were timed.
        timed: False if no pass was timed.
    """
    whole = f"table {tables[0]}" if len(tables) == 1 else f"{len(tables)} tables"
    where = f"; time by one process on {device} in {precision}" if timed else ""
    lines = [
        f"Cost of {whole} in forward passes, a backward pass counted as two{where}",
        f"  {'model':27}{'trials':>9}{'passes':>15}{'s per pass':>12}{'time':>12}",
    ]
    for one in cost.models:
        each = "" if one.seconds_per_pass is None else f"{one.seconds_per_pass:.2g}"
        lines.append(f"  {one.model:27}{one.trials:9,}{one.passes:15,.0f}{each:>12}{duration(one.seconds):>12}")
    known = [one.seconds for one in cost.models if one.seconds is not None]
    total = sum(known) if known and len(known) == len(cost.models) else None
    trials, passes = sum(one.trials for one in cost.models), sum(one.passes for one in cost.models)
    lines.append(f"  {'all':27}{trials:9,}{passes:15,.0f}{'':12}{duration(total):>12}")
    if not passes:
        return lines
    unit = "time" if cost.in_time else "passes"
    lines += ["", f"  {'method':27}{'passes':>15}{'of maps':>15}{'of curves':>15}{f'of all {unit}':>15}"]
    for share in cost.methods:
        parts = f"{share.map_passes:15,.0f}{share.passes - share.map_passes:15,.0f}"
        lines.append(f"  {share.name:27}{share.passes:15,.0f}{parts}{share.share:15.1%}")
    if len(tables) > 1:
        lines += ["", f"  {'table':27}{'passes':>15}{f'of all {unit}':>15}{'shared with others':>20}"]
        lines += [f"  {one.name:27}{one.passes:15,.0f}{one.share:15.1%}{one.shared:20.1%}" for one in cost.tables]
    if cost.figures:
        lines += ["", f"  {'sweeps of figures':27}{'passes':>15}{f'added to all {unit}':>20}"]
        lines += [f"  {one.name:27}{one.passes:15,.0f}{one.share:+20.1%}" for one in cost.figures]
    lines.append("")
    if cost.choices:
        lines.append(f"  Options that save the most {unit} of tables and sweeps, each on its own:")
        lines += [f"    {one.name} saves {one.share:.0%}{_note(one)}" for one in cost.choices]
    lines.append(f"  Results take about {_size(cost.disk_bytes)} on disk.")
    return [*lines, *(f"  {sentence}" for sentence in cost.memory)]


def duration(seconds: float | None) -> str:
    """Seconds in a readable unit; empty for None."""
    if seconds is None:
        return ""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}" if seconds >= 10 * length else f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: int) -> str:
    for unit, length in (("GB", 1e9), ("MB", 1e6)):
        if count >= length / 10:
            return f"{count / length:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _note(choice: "Share") -> str:
    return _NOTES.get(choice.name.partition(" ")[0], "")
