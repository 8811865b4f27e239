"""The scripts in figures/, by name: what they draw is written as PDF, PNG and CSV, tables as Markdown, LaTeX and CSV.

A script of a figure has a function `draw(data)`, which takes a `FigureData` and returns a `FigureResult`. Tables of the
benchmark whose trials it reads stand in its `TABLES`, so that missing ones of all figures are computed in one run.
"""

import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from tqdm.auto import tqdm

from caap_lab.bench.figure_data import FigureData, FigureResult
from caap_lab.bench.profiles import DEMO_MODELS
from caap_lab.bench.published import tables as table_numbers
from caap_lab.checkout import checkout_folder, installed_folder
from caap_lab.errors import InputError
from caap_lab.files import atomic_path
from caap_lab.models.names import nearest
from caap_lab.plots.style import save_figure

TABLES = {f"tab{number:02d}": number for number in table_numbers()}
"""Names of the paper's tables."""
_IN_PAPER = {"gallery": "figures 11 to 40"}
"""Which figures of the paper a script draws, where its name does not say it."""


def figures_folder() -> Path:
    """The folder of the scripts: figures/ of a checkout, or the installed package's."""
    return checkout_folder("figures") or installed_folder("figures")


def figure_names(folder: Path | None = None) -> list[str]:
    """Names of the figures, in order: the scripts' without tables.py.

    Args:
        folder: Of the scripts; by default `figures_folder()`.
    """
    scripts = sorted((folder or figures_folder()).glob("*.py"))
    return [path.stem for path in scripts if path.stem != "tables" and not path.stem.startswith("_")]


def load_script(name: str, folder: Path | None = None) -> ModuleType:
    """The module of a script.

    Args:
        name: "fig01" to "fig10", "gallery" or "tables".
        folder: Of the scripts; by default `figures_folder()`.
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
    """Names of figures and tables, each once; "all" stands for every one.

    Raises:
        InputError: there is no figure or table of a name.
    """
    known = [*figure_names(folder), *TABLES]
    chosen = known if "all" in names else list(dict.fromkeys(names))
    for name in chosen:
        if name not in known:
            raise InputError(
                f"There is no figure or table {name!r}.{nearest(name, known)} There are {', '.join(known)}."
            )
    return chosen


def make(names: Sequence[str], data: FigureData, out: Path, folder: Path | None = None) -> list[Path]:
    """Write figures as PDF, PNG and the numbers in them as CSV, and tables as Markdown, LaTeX and CSV.

    Args:
        names: Of figures and tables, or "all".
        data: What they are drawn from; its folder keeps every result, so that a second time nothing is computed.
        out: Folder for the files.
        folder: Of the scripts; by default `figures_folder()`.

    Raises:
        InputError: there is no figure or table of a name; or none of a table's trials could be computed.
    """
    chosen = check_names(names, folder)
    figures = {name: load_script(name, folder) for name in chosen if name not in TABLES}
    numbers = [TABLES[name] for name in chosen if name in TABLES]
    data.compute([*(table for script in figures.values() for table in getattr(script, "TABLES", ())), *numbers])
    written = []
    for name, script in tqdm(figures.items(), desc="figures", unit="figure"):
        written += _write(name, script.draw(data), out, demo=data.plan.profile == "demo")
    return written + (load_script("tables", folder).write(data, numbers, out) if numbers else [])


def _demo_caption(name: str) -> str:
    """What a figure of the demo profile is, and what stands for what in it."""
    own = ", ".join(f"{model} for {family}" for family, model in DEMO_MODELS.items())
    figures = _IN_PAPER.get(name, f"figure {name.removeprefix('fig').lstrip('0')}")
    return f"Generated scenes and bundled models, laid out as {figures} of the paper:\n{own}."


def _write(name: str, result: FigureResult, out: Path, demo: bool) -> list[Path]:
    if demo:
        title, caption = result.figure.get_suptitle(), _demo_caption(name)
        if result.figure.get_layout_engine() is not None:
            result.figure.suptitle(f"{title}\n{caption}".strip(), fontsize=9)
        else:  # a gallery, which has room for one line
            one_line = caption.replace("\n", " ")
            result.figure.suptitle(one_line, fontsize=7, y=1 - 0.05 / result.figure.get_figheight())
    pictures = save_figure(result.figure, out / name)
    with atomic_path(out / f"{name}.csv") as part:
        result.data.to_csv(part, index=False)
    return [*pictures, out / f"{name}.csv"]
