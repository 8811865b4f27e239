"""What the names in a plan stand for, as hashes: the weights, the code of own methods, the images with their masks.

A trial is kept under these, so that a number belongs to exactly what made it: see the table in docs/benchmark.md.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from timm.models import get_pretrained_cfg
from tqdm.auto import tqdm

from caap_lab.attribution.registry import method_digest
from caap_lab.bench.plan import BenchmarkPlan, Identity
from caap_lab.data.image_set import ImageSet
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.hub import fetch_weights
from caap_lab.models.load import BUNDLED, bundled_models, check_name
from caap_lab.variant import Variant

WEIGHTS_FILES = ("checkpoint", "head")
"""Options of a model that name a file of weights."""


def identified(
    plan: BenchmarkPlan, models: Mapping[str, HookedModel], images: Mapping[str, ImageSet], progress: bool = True
) -> BenchmarkPlan:
    """The plan with the identity of all its names, as they are now.

    Args:
        plan: What is to be computed.
        models: Those that came as objects, by the text of their spec.
        images: Open data sets, by source.
        progress: Show a progress bar while images are read.

    Raises:
        InputError: a model, a weights file or a method is not there.
    """
    specs = {spec.text: spec for study in plan.studies for spec in study.models}
    methods = {spec.text: spec for study in plan.studies for spec in study.methods}
    names: dict[str, dict[str, None]] = {}
    for study in plan.studies:
        names.setdefault(study.data.source, {}).update(dict.fromkeys(study.data.names))
    with tqdm(total=sum(map(len, names.values())), desc="Reading images", leave=False, disable=not progress) as bar:
        digests: dict[str, dict[str, str]] = {}
        for source, chosen in names.items():
            digests[source] = {}
            for name in chosen:
                digests[source][name] = _image_digest(images[source], name)
                bar.update()
    return replace(
        plan,
        identity=Identity(
            {text: model_digest(models[text]) if text in models else weights_digest(s) for text, s in specs.items()},
            {text: spec_digest(spec) for text, spec in methods.items()},
            digests,
        ),
    )


def model_digest(model: HookedModel) -> str:
    """Hash of a model in memory: architecture and weights, preprocessing, and the names of its classes."""
    facts = [model.fingerprint, asdict(model.preprocessing), list(model.class_names.names)]
    return _hash(json.dumps(facts, sort_keys=True, default=str).encode())


def weights_digest(spec: Variant) -> str:
    """Hash of the files that a model by name is read from.

    Raises:
        InputError: the name is no model, or a file is not there.
    """
    return _hash(*(f"{role} {_file_digest(path)}".encode() for role, path in _weights_files(spec)))


def _weights_files(spec: Variant) -> list[tuple[str, Path]]:
    check_name(spec.name)
    files = [(role, Path(str(spec.options[role]))) for role in WEIGHTS_FILES if spec.options.get(role) is not None]
    if spec.name in bundled_models():
        card = BUNDLED / f"{spec.name}.json"
        weights = json.loads(card.read_text(encoding="utf-8"))["weights"]
        return [*files, ("card", card), ("weights", BUNDLED / weights)]
    if "checkpoint" not in spec.options:
        config = get_pretrained_cfg(spec.name)
        if config is None or not config.hf_hub_id:
            raise InputError(f"timm has no weights for {spec.name}; give a local file: {spec.name}:checkpoint=PATH.")
        files.append(("hub", fetch_weights(spec.name, config.hf_hub_id, config.hf_hub_filename)))
    return files


def spec_digest(spec: Variant) -> str:
    """Hash of an own method's code and of the files that its options name; empty where there is nothing of these."""
    code = method_digest(spec.name)
    files = [
        f"{option} {_file_digest(Path(value))}"
        for option, value in sorted(spec.options.items())
        if isinstance(value, str) and _is_file(value)
    ]
    return _hash(code.encode(), *(file.encode() for file in files)) if code or files else ""


def _image_digest(images: ImageSet, name: str) -> str:
    try:
        return images.digest_of(name)
    except Exception as error:  # the trial says it when its turn comes; the rest of a night's run goes on
        return _hash(f"unreadable {error}".encode())


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError):  # too long for a name, say
        return False


def _file_digest(path: Path) -> str:
    path = path.expanduser()
    try:
        about = path.stat()
        return _content_digest(path, (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    except OSError as error:
        raise InputError(f"The weights file {path} cannot be read ({error.strerror}).") from None


@lru_cache(maxsize=256)
def _content_digest(path: Path, about: Any) -> str:
    """Hash of a file's bytes, read again when the file system says that it is another one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _hash(*pieces: bytes) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()
