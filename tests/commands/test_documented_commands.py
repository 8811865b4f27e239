"""Commands and tables of the documentation are those of the package."""

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from caap_lab.bench.paper.settings import PaperSettings
from caap_lab.bench.paper.settings_file import read_settings
from caap_lab.cli import parser
from experiments.paper_parts import TABLES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def commands(path: Path) -> list[list[str]]:
    """The words of each `caap-lab` command in a page's blocks of code, without the program and comments."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "\n".join(text for language, text in blocks if not language).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("caap-lab ")]


def test_documented_commands_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    caap_lab, count = parser(), 0
    for path in (*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "figures" / "README.md"):
        for words in commands(path):
            try:
                caap_lab.parse_args(words)
            except SystemExit:
                pytest.fail(f"{path.name}: caap-lab {shlex.join(words)}\n{capsys.readouterr().err}")
            count += 1
    assert count > 30


def test_the_page_has_every_entry_of_the_file_of_settings(tmp_path: Path) -> None:
    page = (DOCS / "paper.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+) = (.+?)` \|", page, re.MULTILINE)
    sections = re.findall(r"^\| `\[(\w+)\]` \| (.+?) \| `--", page, re.MULTILINE)
    assert {name for name, _ in (*rows, *sections)} == {field.name for field in fields(PaperSettings)}

    lines = [f"{name} = {value}" for name, value in rows]
    for name, text in sections:
        first, *more = re.findall(r"`(.+? = .+?)`", text)
        lines += [f"[{name}]", first, *more]
    file = tmp_path / "paper.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    settings = read_settings(file)
    assert settings.tables == (1, 2) and settings.images["table 8"] == 250 and "DINOv2-L/14" in settings.heads
    (snippet,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert tomllib.loads(snippet)["data"]


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_the_page_are_those_of_the_package(name: str) -> None:
    assert (DOCS / "tables" / name).read_text(encoding="utf-8") == TABLES[name](), (
        "run python -m experiments.paper_parts"
    )
