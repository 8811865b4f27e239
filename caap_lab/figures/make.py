"""All figures and tables by name, written as PDF, PNG and CSV."""

from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from caap_lab.bench.published import tables as table_numbers
from caap_lab.bench.tables import make_tables
from caap_lab.errors import InputError
from caap_lab.figures.attention import fig06
from caap_lab.figures.curves import fig08, fig09
from caap_lab.figures.qualitative import fig01, fig02, fig03, gallery
from caap_lab.figures.radar import TABLES as RADAR_TABLES
from caap_lab.figures.radar import fig10
from caap_lab.figures.settings import fig04, fig05, fig07
from caap_lab.figures.world import Draw, World
from caap_lab.files import atomic_path
from caap_lab.models.names import nearest
from caap_lab.plots.style import save_figure

FIGURES: dict[str, Draw] = {
    "fig01": fig01,
    "fig02": fig02,
    "fig03": fig03,
    "fig04": fig04,
    "fig05": fig05,
    "fig06": fig06,
    "fig07": fig07,
    "fig08": fig08,
    "fig09": fig09,
    "fig10": fig10,
    "gallery": gallery,
}
_CELLS = {"fig08": (1,), "fig09": (1,), "fig10": RADAR_TABLES}
_DEMO = "Demo profile: the bundled models and scenes stand in for the paper's, under the paper's names."
TABLES = {f"tab{number:02d}": number for number in table_numbers()}


def check_names(names: Sequence[str]) -> list[str]:
    """The names that are meant, in order; "all" is every figure and table.

    Raises:
        InputError: there is no figure or table of a name.
    """
    known = [*FIGURES, *TABLES]
    wanted = known if "all" in names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise InputError(
                f"There is no figure or table {name!r}.{nearest(name, known)} There are {', '.join(known)}."
            )
    return wanted


def _cells_of(name: str) -> tuple[int, ...]:
    """Tables whose trials a figure or table shows."""
    return (TABLES[name],) if name in TABLES else _CELLS.get(name, ())


def make(names: Sequence[str], world: World, out: Path) -> list[Path]:
    """Write figures as PDF, PNG and the numbers in them as CSV, and tables as Markdown, LaTeX and CSV.

    Args:
        names: From `FIGURES` and `TABLES`, or "all".
        world: What they are drawn from; its folder keeps every result, so that a second time nothing is computed.
        out: Folder for the files.

    Raises:
        InputError: there is no figure or table of a name; or none of a table's trials could be computed.
    """
    written = []
    wanted = check_names(names)
    world.compute(table for name in wanted for table in _cells_of(name))  # at once: each run reads what is there
    for name in tqdm([name for name in wanted if name in FIGURES], unit="figure"):
        drawn = FIGURES[name](world)
        if world.plan.profile == "demo":
            title = drawn.figure.get_suptitle()
            laid_out = drawn.figure.get_layout_engine() is not None
            place = {} if laid_out else {"y": 1 - 0.05 / drawn.figure.get_figheight()}
            drawn.figure.suptitle(f"{title}\n{_DEMO}" if title else _DEMO, fontsize=9, **place)
        written += save_figure(drawn.figure, out / name)
        with atomic_path(out / f"{name}.csv") as part:
            drawn.data.to_csv(part, index=False)
        written.append(out / f"{name}.csv")
    numbers = [TABLES[name] for name in wanted if name in TABLES]
    tables = make_tables(world.result(numbers)) if numbers else []  # all at once: every result reads the run anew
    written += [path for table in tables for path in table.write(out)]
    if missing := sorted(set(numbers) - {table.number for table in tables}):
        raise InputError(f"No trial of table {', '.join(map(str, missing))} could be computed; the rest is in {out}.")
    return written
