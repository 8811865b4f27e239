"""Folders that a checkout has beside the package, and an installed package inside it: notebooks and figures."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def checkout_folder(name: str) -> Path | None:
    """The folder of this name beside the package in a checkout; None if the package is installed without one."""
    folder = PACKAGE.parent / name
    return folder if (PACKAGE.parent / "pyproject.toml").exists() and folder.is_dir() else None


def installed_folder(name: str) -> Path:
    """Where an installed package has the folder of this name."""
    return PACKAGE / name
