"""Folders that are next to the package in a checkout, and inside an installed package: notebooks and figures."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def checkout_folder(name: str) -> Path | None:
    """The folder of this name next to the package in a checkout; None if the package is installed without one."""
    folder = PACKAGE.parent / name
    return folder if (PACKAGE.parent / "pyproject.toml").exists() and folder.is_dir() else None


def installed_folder(name: str) -> Path:
    """The path of the folder of this name in an installed package."""
    return PACKAGE / name
