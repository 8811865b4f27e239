"""`caap-lab lab`, up to where JupyterLab takes over; tests/browser starts it."""

import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from jupyter_core import paths as jupyter_paths

from caap_lab import checkout, cli
from caap_lab.commands import lab


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as a wheel brings it, without a checkout around it; the user is in a folder beside it."""
    package = tmp_path / "site-packages" / "caap_lab"
    for name in ("notebooks/01_first.ipynb", "notebooks/02_second.ipynb", "docs/page.md", "docs/tables/table.md"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"{name} of this version")
    monkeypatch.setattr(checkout, "PACKAGE", package)
    (tmp_path / "user").mkdir()
    monkeypatch.chdir(tmp_path / "user")
    return package


def test_checkout_opens_its_own_notebooks() -> None:
    assert lab.root_folder() == Path(__file__).parents[2]


def test_checkout_copies_into_a_named_folder(tmp_path: Path) -> None:
    folder = lab.root_folder(tmp_path / "new" / "folder")
    for name in ("notebooks/01_quickstart.ipynb", "docs/caap.md", "docs/tables/cost.md", "docs/images/frontier.png"):
        assert (folder / name).read_bytes() == (lab.root_folder() / name).read_bytes()


def test_installed_package_copies_and_never_writes_over(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = lab.root_folder()
    assert folder == Path("caap_lab_notebooks") and capsys.readouterr().err == ""
    assert sorted(path.name for path in folder.rglob("*.*")) == [
        "01_first.ipynb",
        "02_second.ipynb",
        "page.md",
        "table.md",
    ]
    first, second = folder / "notebooks" / "01_first.ipynb", folder / "notebooks" / "02_second.ipynb"
    first.write_text("edited")
    second.unlink()
    lab.root_folder()
    assert first.read_text() == "edited"
    assert second.read_text() == "notebooks/02_second.ipynb of this version"
    kept = capsys.readouterr().err
    assert "01_first.ipynb differs" in kept and "02_second" not in kept


def test_wheel_takes_what_is_shown() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {name: f"caap_lab/{name}" for name in lab.SHOWN}.items() <= included.items()


def test_links_of_notebooks_and_pages_hold_where_they_are_copied_to(tmp_path: Path) -> None:
    folder, found = lab.root_folder(tmp_path), 0
    for path in [*folder.glob("notebooks/*.ipynb"), *folder.glob("docs/*.md")]:
        text = path.read_text()
        if path.suffix == ".ipynb":
            text = "\n".join(cell.source for cell in nbformat.reads(text, 4).cells if cell.cell_type == "markdown")
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in link and not link.endswith(".pdf"):
                assert (path.parent / link).exists(), f"{path.name} links to {link}"
                found += 1
    assert found > 50


def test_this_computer_only(tmp_path: Path) -> None:
    options = lab.lab_options(tmp_path, 9000, ["--no-browser"])
    assert "--ip=127.0.0.1" in options and "--port=9000" in options and options[-1] == "--no-browser"
    assert not any("token" in option or "password" in option for option in options), "Jupyter's own token stays"
    assert not any("--port" in option for option in lab.lab_options(tmp_path))


def test_news_are_answered_beside_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", lab.config_path({"JUPYTER_CONFIG_PATH": "/users/own"}))
    found = jupyter_paths.jupyter_config_path()
    assert "/users/own" in found
    assert any((Path(folder) / "labconfig" / "default_setting_overrides.json").exists() for folder in found)


def test_cli_hands_over_to_jupyterlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    app = SimpleNamespace(LabApp=SimpleNamespace(launch_instance=seen.append))
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", app)  # quicker than the real one
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "")
    assert cli.main(["lab", "--dir", str(tmp_path), "--port", "9000", "--", "--no-browser"]) == 0
    assert seen == [lab.lab_options(tmp_path, 9000, ["--no-browser"])]


def test_without_jupyterlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    assert cli.main(["lab", "--dir", str(tmp_path / "new")]) == 2
    assert "pip install 'caap-lab[notebook]'" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["lab", "--dir", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
