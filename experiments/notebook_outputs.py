"""Runs notebooks and stores small outputs in them, so that the repository's page shows the results.

    python -m experiments.notebook_outputs           # those of STORED
    python -m experiments.notebook_outputs 03        # one of them

Pictures get a palette; progress bars and living widgets are not stored. A cell that shows photographs says which
weights it needs: without them, its sentence that it was skipped is stored.
"""

import argparse
import base64
import hashlib
import io
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from caap_lab.widgets.panel import SAVED_STYLE

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
STORED = ("01_quickstart", "03_attention_and_cutoff", "06_widgets")
"""Notebooks that are committed with outputs; all others are committed without."""
COLOURS = 128
"""Number of colours of a stored picture."""
WIDGET = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("python -m experiments.notebook_outputs", description=__doc__)
    parser.add_argument("numbers", nargs="*", help="numbers of notebooks, such as 03; all that are stored by default")
    chosen = parser.parse_args().numbers
    for name in STORED:
        if not chosen or name[:2] in chosen:
            store_outputs(NOTEBOOKS / f"{name}.ipynb")


def store_outputs(path: Path) -> None:
    """Run a notebook in an empty folder and write it with its outputs."""
    notebook = executed(path)
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def executed(path: Path) -> NotebookNode:
    """A notebook with the outputs of a run in an empty folder, as they are stored."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["OMP_NUM_THREADS"] = "1"  # a note about busy cores should not be stored
    with tempfile.TemporaryDirectory() as work:
        client = NotebookClient(
            notebook,
            timeout=1800,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            record_timing=False,
            resources={"metadata": {"path": work}},
        )
        client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs if (kept := small(output)) is not None]
    notebook.metadata = {
        "kernelspec": notebook.metadata.kernelspec,
        "language_info": {"name": "python"},
        "caap_lab": {"outputs_of": sources_digest(notebook)},
    }
    return notebook


def small(output: NotebookNode) -> NotebookNode | None:
    """An output as it is stored; None for one that only a live widget would show."""
    data = output.get("data", {})
    if data.pop(WIDGET, None) is not None and data.keys() <= {"text/plain"}:
        return None
    if data.get("text/html") == SAVED_STYLE:
        return None
    if "image/png" in data:
        data["image/png"] = with_palette(data["image/png"])
    return output


def with_palette(png: str) -> str:
    """A PNG in base64 with a palette of its colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    written = io.BytesIO()
    picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        written, "PNG", optimize=True
    )
    return base64.b64encode(written.getvalue()).decode()


def sources_digest(notebook: NotebookNode) -> str:
    """Hash of the code cells to which stored outputs belong."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
