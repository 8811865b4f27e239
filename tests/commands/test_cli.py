"""The command line: what it loads, and how it ends."""

import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from caap_lab import cli
from caap_lab.commands import methods

WEIGHTS = Path(cli.__file__).parent / "models" / "weights" / "demo.safetensors"


def test_a_reader_that_stops_early_is_no_error() -> None:
    code = (
        "import sys; from caap_lab import cli; from caap_lab.commands import models\n"
        "models.run = lambda parsed: [print('demo') for _ in range(50_000)] and 0\n"  # more than a pipe holds
        "sys.exit(cli.main(['models']))"
    )
    command = f"{sys.executable} -c {shlex.quote(code)} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "demo\n" and done.stderr == ""


def test_interruption_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(parsed: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(methods, "run", stop)
    assert cli.main(["methods"]) == 130
    assert capsys.readouterr().err == "caap-lab: stopped\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_does_not_load_what_is_heavy(command: str) -> None:
    code = (
        "import sys; from caap_lab import cli\n"
        f"try: cli.main(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'transformers', 'transformer_lens', 'wandb', 'pandas', 'matplotlib', 'numpy'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"usage: caap-lab {command} [-h]" in done.stdout and done.stdout.endswith("loaded: []\n")


def test_import_of_the_package_loads_nothing_heavy() -> None:
    code = "import sys, caap_lab; dir(caap_lab); print(sorted({'torch', 'timm', 'wandb'} & set(sys.modules)))"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n" and time.perf_counter() - began < 30


def test_the_files_of_a_wheel_can_be_imported(tmp_path: Path) -> None:
    """The build moves what it is told to include elsewhere out of the package."""
    root = Path(cli.__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    shutil.copytree(root / "caap_lab", tmp_path / "caap_lab", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    for source, target in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items():
        if source.startswith("caap_lab/"):
            (tmp_path / source).rename(tmp_path / target)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import caap_lab; print(caap_lab.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == str(tmp_path / "caap_lab" / "__init__.py")


def test_every_public_name_is_there() -> None:
    import caap_lab as cl

    for name in cl.__all__:
        assert getattr(cl, name) is not None
    assert callable(cl.caap), "the function, whatever modules have been imported"
    with pytest.raises(AttributeError, match=r"no name 'capp'\. Nearest: caap"):
        _ = cl.capp


def test_demo_weights_are_bundled() -> None:
    assert WEIGHTS.exists()
