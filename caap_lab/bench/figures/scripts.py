"""The scripts in figures/, by name: figures are written as PDF, PNG and CSV, tables as Markdown, LaTeX and CSV.

The script of a figure has a function `draw(data)`, which is called with a `FigureData` and returns a `FigureResult`, or
several of them with different names. Its `NEEDS` declare what it reads from the benchmark's tables, so that nothing
else is required, and everything is checked before anything is computed; a function `check(data)` raises InputError for
problems that only show in the images. Those of gallery.py are also called with the names of the requested figures,
`sheets`.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from tqdm.auto import tqdm

from caap_lab.bench.figures.about import about_figure
from caap_lab.bench.figures.check import check_figures
from caap_lab.bench.figures.data import FigureData, FigureResult
from caap_lab.bench.figures.needs import Need, table_words, trial_needs
from caap_lab.bench.paper.profiles import DEMO_MODELS
from caap_lab.bench.paper.published import tables as table_numbers
from caap_lab.checkout import checkout_folder, installed_folder
from caap_lab.errors import InputError
from caap_lab.files import atomic_path, check_folder
from caap_lab.models.names import nearest
from caap_lab.plots.printed import add_caption
from caap_lab.plots.style import save_figure

TABLES = {f"tab{number:02d}": number for number in table_numbers()}
"""Names of the paper's tables."""
GALLERY = "gallery"
SHEETS = tuple(f"fig{number}" for number in range(11, 41))
"""Figures 11 to 40, drawn by the script `GALLERY`, all or some of them."""


def figures_folder() -> Path:
    """The folder of the scripts: figures/ of a checkout, or that of the installed package."""
    return checkout_folder("figures") or installed_folder("figures")


def figure_names(folder: Path | None = None) -> list[str]:
    """Names of the figures, in order: all scripts except tables.py.

    Args:
        folder: Folder of the scripts; by default `figures_folder()`.
    """
    scripts = sorted((folder or figures_folder()).glob("*.py"))
    return [path.stem for path in scripts if path.stem != "tables" and not path.stem.startswith("_")]


def load_script(name: str, folder: Path | None = None) -> ModuleType:
    """The module of a script.

    Args:
        name: "fig01" to "fig10", "gallery" or "tables".
        folder: Folder of the scripts; by default `figures_folder()`.
    """
    return _load((folder or figures_folder()).resolve() / f"{name}.py")


@cache
def _load(path: Path) -> ModuleType:
    spec = spec_from_file_location(f"caap_lab_figures_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def check_names(names: Sequence[str], folder: Path | None = None) -> list[str]:
    """Names of figures and tables without duplicates; "all" means every one.

    Raises:
        InputError: there is no figure or table with a given name.
    """
    known = [*figure_names(folder), *TABLES]
    if "all" in names:
        return known
    for name in names:
        if name not in known and name not in SHEETS:
            written = re.sub(r"(?<!\d)\d(?!\d)", r"0\g<0>", name.lower())  # fig7 means fig07, not fig17
            raise InputError(
                f"There is no figure or table {name!r}.{nearest(written, [*known, *SHEETS])} There are all, "
                f"{', '.join(known)}, and of the gallery {SHEETS[0]} to {SHEETS[-1]}."
            )
    return list(dict.fromkeys(names))


def needs_of(names: Sequence[str], folder: Path | None = None) -> dict[str, tuple[Need, ...] | None]:
    """What figures and tables read from the benchmark's tables, by name; None for a script without `NEEDS`.

    Args:
        names: Names of figures and tables, or "all".
        folder: Folder of the scripts; by default `figures_folder()`.
    """
    needs: dict[str, tuple[Need, ...] | None] = {}
    for name in check_names(names, folder):
        script = GALLERY if name in SHEETS else name
        needs[name] = trial_needs([TABLES[name]]) if name in TABLES else _needs(script, folder)
    return needs


def figure_sweeps(names: Sequence[str] = ("all",), folder: Path | None = None) -> list[tuple[str, Need]]:
    """The sweeps of CAAP that figures consist of: each figure's name with table, axis and values.

    Each runs over the table's models and its images, or the first `FigureData.sweep_images` of them.
    """
    found = needs_of(names, folder).items()
    return [(name, need) for name, needs in found for need in needs or () if need.what == "sweep"]


def make(names: Sequence[str], data: FigureData, out: Path, folder: Path | None = None) -> list[Path]:
    """Write figures as PDF, PNG and the numbers in them as CSV, and tables as Markdown, LaTeX and CSV.

    Args:
        names: Names of figures and tables, or "all" for those whose tables are in the profile.
        data: The data of the figures; its folder stores every result, so nothing is computed a second time.
        out: Folder for the files.
        folder: Folder of the scripts; by default `figures_folder()`.

    Raises:
        InputError: raised before anything is computed if there is no figure or table with a given name, if something is
            missing or cannot be used, or if nothing can be written into `out`; and raised after all others are written
            if a figure could not be drawn, for example because trials are missing.
    """
    check_folder(out)
    needs = needs_of(names, folder)
    everything = "all" in names
    reads = {name: {need.table for need in some or ()} for name, some in needs.items()}
    absent = [name for name, tables in reads.items() if tables and not tables & data.tables] if everything else []
    _leave_out(needs, absent, f"the run has only {table_words(sorted(data.tables))}")
    check_figures(data, [need for some in needs.values() for need in some or ()])
    chosen = dict.fromkeys(GALLERY if name in SHEETS else name for name in needs if name not in TABLES)
    scripts = {name: load_script(name, folder) for name in chosen}
    sheets = () if GALLERY in needs else tuple(sheet for sheet in SHEETS if sheet in needs)
    for name in [name for name, script in scripts.items() if hasattr(script, "check")]:
        try:
            scripts[name].check(data, sheets) if name == GALLERY else scripts[name].check(data)
        except InputError as error:
            if not everything:
                raise
            _leave_out(needs, [name], str(error))
            del scripts[name]
    data.compute([n.table for some in needs.values() for n in some or () if n.what == "trials"])
    written: list[Path] = []
    failed: list[str] = []
    jobs: dict[str, Callable[[], Iterable[Path]]] = {
        name: partial(_draw, name, script, data, sheets, out) for name, script in scripts.items()
    }
    numbers = [TABLES[name] for name in needs if name in TABLES]
    if numbers:
        jobs["tables"] = partial(load_script("tables", folder).write, data, numbers, out)
    for name, job in tqdm(jobs.items(), desc="figures", unit="figure"):
        try:
            written += job()
        except InputError as error:  # possibly after days for all others
            if len(jobs) == 1:
                raise
            failed.append(f"{name}: {error}")
    if data.running.get("progress", True):
        tqdm.write(data.progress, sys.stderr)
    if failed:
        raise InputError("\n".join([*failed, f"All others are in {out}."]))
    return written


def _draw(name: str, script: ModuleType, data: FigureData, sheets: Sequence[str], out: Path) -> list[Path]:
    """Write the figures of a script."""
    written = []
    drawn = script.draw(data, sheets) if name == GALLERY else script.draw(data)
    for result in [drawn] if isinstance(drawn, FigureResult) else drawn:
        own = result.name or name
        written += _write(own, result, out, demo=data.plan.profile == "demo")
        title = (script.__doc__ or "").partition("\n")[0]
        about = about_figure(f"{own}: {title}", data, getattr(script, "NEEDS", ()), result)
        written.append(_write_text(out / f"{own}.txt", about))
    return written


def _leave_out(needs: dict[str, tuple[Need, ...] | None], names: Sequence[str], why: str) -> None:
    for name in names:
        del needs[name]
    if names:
        tqdm.write(f"Left out: {', '.join(names)}. {why[:1].upper()}{why[1:].rstrip('.')}.", sys.stderr)


def _needs(name: str, folder: Path | None) -> tuple[Need, ...] | None:
    needs = getattr(load_script(name, folder), "NEEDS", None)
    return None if needs is None else tuple(needs)


def _demo_caption(name: str) -> str:
    """A caption for a figure of the demo profile, with the models that replace those of the paper."""
    own = ", ".join(f"{model} for {family}" for family, model in DEMO_MODELS.items())
    figure = name.removeprefix("fig").lstrip("0")
    what = f"Generated scenes and bundled models, laid out as figure {figure} of the paper"
    return f"{what}:\n{own}; all sizes of a family share its one model."


def _write_text(path: Path, text: str) -> Path:
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _write(name: str, result: FigureResult, out: Path, demo: bool) -> list[Path]:
    if demo:
        add_caption(result.figure, _demo_caption(name))
    pictures = save_figure(result.figure, out / name)
    with atomic_path(out / f"{name}.csv") as part:
        result.data.to_csv(part, index=False)
    return [*pictures, out / f"{name}.csv"]
