"""Weights files of a run: cells are known by the files' paths, so the files must stay the same."""

import hashlib
import json
from pathlib import Path

from caap_lab.bench.plan import Plan
from caap_lab.errors import InputError
from caap_lab.files import atomic_path

_FILES = ("checkpoint", "head")


def check_weights(plan: Plan, folder: Path) -> None:
    """Refuse to go on where a weights file is not the one that earlier cells of the folder were made with.

    Hashes of the files are kept in weights.json.

    Raises:
        InputError: a file has changed; or it is not there.
    """
    note = folder / "weights.json"
    known: dict[str, str] = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    models = {spec.text: spec for study in plan.studies for spec in study.models}
    paths = {str(spec.options[name]) for spec in models.values() for name in _FILES if name in spec.options}
    for path in sorted(paths):
        try:
            with Path(path).open("rb") as file:
                digest = hashlib.file_digest(file, "blake2b").hexdigest()
        except OSError as error:
            raise InputError(f"The weights file {path} cannot be read ({error.strerror}).") from None
        if known.setdefault(path, digest) != digest:
            raise InputError(
                f"{path} has changed since cells in {folder} were made with it; their numbers would be mixed. Use "
                "another folder for the new weights."
            )
    if paths:
        with atomic_path(note) as part:
            part.write_text(json.dumps(known, indent=1), encoding="utf-8")
