"""`caap-lab lab`: open the notebooks in JupyterLab, for this computer only."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from caap_lab.checkout import PACKAGE, checkout_folder, installed_folder
from caap_lab.cpu_use import contention_now, default_threads
from caap_lab.errors import InputError

HELP = "open the notebooks in JupyterLab, on this computer only"
COPIES = Path("caap_lab_notebooks")
"""Default folder for the copies of an installed package's notebooks and pages."""
SHOWN = {"notebooks": ("*.ipynb",), "docs": ("*.md", "tables/*.md", "tables/*.csv", "images/**/*.png")}
"""Folders next to each other, as in a checkout, so that links between them work; with their file types."""
FIRST = "notebooks/00_tour.ipynb"
NO_NEWS = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--dir", type=Path, help="copy notebooks and pages here; existing files are kept")
    parser.add_argument("--port", type=int, help="8888 by default, or the next free one")
    parser.add_argument(
        "options", nargs="*", metavar="OPTION", help="for JupyterLab, after --, such as -- --no-browser"
    )


def run(parsed: argparse.Namespace) -> int:
    """Run JupyterLab until it is stopped."""
    return open_lab(parsed.dir, parsed.port, parsed.options)


def open_lab(folder: Path | None = None, port: int | None = None, options: Sequence[str] = ()) -> int:
    """Run JupyterLab until it is stopped.

    Args:
        folder: Notebooks and pages are first copied here. By default a checkout is opened directly, and an installed
            package copies them to `caap_lab_notebooks` in the current folder.
        port: JupyterLab's port; by default its own choice.
        options: More options of JupyterLab.
    """
    if find_spec("jupyterlab") is None:
        raise InputError("JupyterLab is not installed: pip install 'caap-lab[notebook]'")
    from jupyterlab.labapp import LabApp

    where = root_folder(folder)
    print(f"Notebooks in {(where / 'notebooks').resolve()}", flush=True)
    if words := contention_now(default_threads()):
        print(words, file=sys.stderr, flush=True)
    os.environ["JUPYTER_CONFIG_PATH"] = config_path(os.environ)
    LabApp.launch_instance(lab_options(where, port, options))
    return 0


def lab_options(folder: Path, port: int | None = None, options: Sequence[str] = ()) -> list[str]:
    """JupyterLab's command line: for this computer only, with its token, without the question about news."""
    chosen = [] if port is None else [f"--port={port}", "--ServerApp.port_retries=0"]
    first = [f"--LabApp.default_url=/lab/tree/{FIRST}"] if (folder / FIRST).exists() else []
    return ["--ip=127.0.0.1", f"--ServerApp.root_dir={folder.resolve()}", *first, *NO_NEWS, *chosen, *options]


def config_path(environment: Mapping[str, str]) -> str:
    """The search path of Jupyter's settings, with one more folder in which the question about news is answered.

    The user's own settings come before it.
    """
    return os.pathsep.join(filter(None, [str(PACKAGE / "lab_defaults"), environment.get("JUPYTER_CONFIG_PATH")]))


def root_folder(folder: Path | None = None) -> Path:
    """The folder to serve, with `notebooks` and `docs` in it; existing files are never overwritten."""
    checkout = checkout_folder("notebooks")
    if checkout is not None and folder is None:
        return checkout.parent
    target = COPIES if folder is None else folder
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; use a folder for the notebooks with --dir.")
    for name, patterns in SHOWN.items():
        source = checkout_folder(name) or installed_folder(name)
        for kept in _copy_missing(source, target / name, patterns):
            print(f"{kept} differs from this version's file and was kept.", file=sys.stderr)
    return target


def _copy_missing(source: Path, target: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """Copy files that do not exist yet; yield existing ones with different content."""
    for file in sorted(path for pattern in patterns for path in source.glob(pattern)):
        copy = target / file.relative_to(source)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        elif copy.read_bytes() != file.read_bytes():
            yield copy
