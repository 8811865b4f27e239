"""Runs the notebooks that are committed without outputs, for the site; `make docs` does this before it builds.

    python -m experiments.site_notebooks           # all whose code, or whose package, has changed since

Executed notebooks are stored in `runs/site_notebooks`, which git ignores, and docs/site_notebooks.py makes pages of
them. They run before the build, not in it, so that they run at the same time, each in a separate process, only after a
change, and so that MkDocs needs no extension. Notebooks that are committed with outputs are shown as they are.
"""

import hashlib
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

import nbformat

from experiments.notebook_outputs import NOTEBOOKS, STORED, executed, sources_digest

EXECUTED = NOTEBOOKS.parent / "runs" / "site_notebooks"
PACKAGE = NOTEBOOKS.parent / "caap_lab"


def main() -> None:
    """Run the command line."""
    EXECUTED.mkdir(parents=True, exist_ok=True)
    package = digest_of(sorted(PACKAGE.rglob("*.py")))
    paths = [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if path.stem not in STORED]
    due = [path for path in paths if not is_current(path, package)]
    with ThreadPoolExecutor(max(1, min(len(due), cpu_count() or 1))) as pool:
        for name in pool.map(lambda path: keep_executed(path, package), due):
            print(f"executed {name}", flush=True)
    print(f"{len(paths) - len(due)} of {len(paths)} notebooks were up to date", file=sys.stderr)


def keep_executed(path: Path, package: str) -> str:
    """Run a notebook and store it with its outputs; returns its name."""
    notebook = executed(path)
    notebook.metadata["caap_lab"]["package"] = package
    nbformat.write(notebook, EXECUTED / path.name)
    return path.name


def is_current(path: Path, package: str) -> bool:
    """Whether the executed copy of a notebook has its present code and is from this package."""
    copy = EXECUTED / path.name
    if not copy.exists():
        return False
    about = nbformat.read(copy, as_version=4).metadata.get("caap_lab", {})
    return about.get("outputs_of") == sources_digest(nbformat.read(path, as_version=4)) and about["package"] == package


def digest_of(paths: Iterable[Path]) -> str:
    """Hash of the contents of files."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


if __name__ == "__main__":
    main()
