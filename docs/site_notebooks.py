"""Makes pages of the notebooks for the site, with outputs and a link to download each.

A notebook that is committed with outputs is shown as it is; of the others, `make docs` runs copies first
(experiments/site_notebooks.py). Links between notebooks and pages are those of the repository, where `notebooks` and
`docs` stand beside each other as in JupyterLab; here they are rewritten to the site's addresses.
"""

import base64
import hashlib
import json
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXECUTED = ROOT / "runs" / "site_notebooks"
LINK = re.compile(r"\]\(([^)#\s]+)")
log = logging.getLogger("mkdocs.hooks.site_notebooks")


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add a page, its pictures and the file itself for each notebook; called by MkDocs before it reads the pages."""
    from mkdocs.structure.files import File

    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text, pictures = page_of(path.stem, notebook_with_outputs(path))
        made: dict[str, str | bytes] = {f"{path.stem}.md": text, path.name: path.read_bytes(), **pictures}
        for name, content in made.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of a page to notebooks; called by MkDocs for each page."""
    return markdown if page.file.generated_by else site_links(markdown, f"docs/{page.file.src_uri}")


def notebook_with_outputs(path: Path) -> dict[str, Any]:
    """The notebook, or its executed copy if that is of the same code."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if any(cell.get("outputs") for cell in notebook["cells"]):
        return notebook
    copy = EXECUTED / path.name
    if copy.exists():
        executed = json.loads(copy.read_text(encoding="utf-8"))
        if _code(executed) == _code(notebook):
            texts = [cell["source"] for cell in notebook["cells"]]  # a text may have changed since
            if len(texts) == len(executed["cells"]):
                for cell, text in zip(executed["cells"], texts, strict=True):
                    cell["source"] = text
                return executed
    log.warning(f"{path.name} has no outputs of its present code: python -m experiments.site_notebooks")
    return notebook


def page_of(name: str, notebook: dict[str, Any]) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page in Markdown, and its pictures by name."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(site_links(source, f"notebooks/{name}.ipynb"))
            continue
        parts.append(f'<div class="notebook-code" markdown>\n\n````python\n{source}\n````\n\n</div>')
        shown = "\n\n".join(filter(None, (_output(one, name, pictures) for one in _joined(cell["outputs"]))))
        if shown:
            parts.append(f'<div class="notebook-output" markdown>\n\n{shown}\n\n</div>')
    title, *rest = parts[0].split("\n", 1)
    parts[0] = f"{title}\n\n[Download this notebook]({name}.ipynb){{ download }}\n\n{''.join(rest).lstrip()}"
    return "\n\n".join(parts) + "\n", pictures


def site_links(markdown: str, place: str) -> str:
    """Links between notebooks and pages as the site has them.

    Args:
        markdown: The text.
        place: Path of the page or the notebook in the repository.
    """
    here = _site_path(place)
    assert here is not None

    def rewritten(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link[1]))
        there = None if "://" in link[1] else _site_path(target)
        return link[0] if there is None else f"]({posixpath.relpath(there, posixpath.dirname(here) or '.')}"

    return LINK.sub(rewritten, markdown)


def _site_path(path: str) -> str | None:
    """Where the site has a file of the repository, as a path of its source; None for what it has not."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return re.sub(r"\.ipynb$", ".md", path) if path.startswith("notebooks/") else None


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs, with printed text in one piece: the kernel sends it in several."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        if found and "text" in output and output["name"] == found[-1].get("name"):
            found[-1] = {**output, "text": ["".join(found[-1]["text"]), "".join(output["text"])]}
        else:
            found.append(output)
    return found


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    """An output as Markdown; a picture goes into `pictures`."""
    data = output.get("data", {})
    if "image/png" in data:
        png = base64.b64decode("".join(data["image/png"]))
        file = f"{name}_{hashlib.sha256(png).hexdigest()[:10]}.png"
        pictures[file] = png
        return f"![Output of the cell above]({file})"
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    if "text/html" in data:
        return "<div>" + re.sub(r"\n\s*", "\n", "".join(data["text/html"])) + "</div>"
    text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
    return f"````text\n{text}\n````" if text else ""


def _code(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
