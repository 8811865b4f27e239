"""The folder of a trained classifier: a model as timm saves it, a record of the training, and its unfinished state.

training.json          the settings and, after the training, the measured accuracy
config.json            architecture, preprocessing and class names, as in timm's files on the Hugging Face hub
model.safetensors      weights
unfinished/            features and epochs so far; removed after the training
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from timm.models import save_for_hf
from torch import Tensor

from caap_lab.errors import InputError
from caap_lab.files import atomic_path, read_json, save_tensors
from caap_lab.models.base import HookedModel
from caap_lab.models.classes import ClassNames
from caap_lab.models.load import load_model
from caap_lab.training.classifier_backbone import Backbone

_AGAIN = "delete the folder, or use another --out"
_SHOWN_FOR = {"weights": "model", "photos": "data"}
"""Hashes, and the setting whose text is shown for them."""
_TEXTS = ("model", "data", "tested on")
"""Settings with several spellings, or that name files that may have moved: their hashes count."""


class TrainingFolder:
    """The folder of a classifier, and the state that a stopped training left in it."""

    def __init__(self, out: str | Path) -> None:
        self.path = Path(out).expanduser()
        self.card = self.path / "training.json"
        self.unfinished = self.path / "unfinished"

    @contextmanager
    def opened(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Context that locks the folder for this training.

        Args:
            settings: All settings that determine the weights.

        Raises:
            InputError: the folder contains something else, or another process uses it.
        """
        self._check(settings)
        if self.finished:
            yield
            return
        self.unfinished.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.unfinished / "lock", timeout=0):
                if not self.card.exists():
                    self.write_card({"settings": dict(settings)})
                yield
        except Timeout:
            raise InputError(
                f"Another process is training in {self.path}; wait for it, or use another --out."
            ) from None

    @property
    def finished(self) -> bool:
        """True if the classifier is trained and measured."""
        return "accuracy" in self.read_card()

    def read_card(self) -> dict[str, Any]:
        """The content of training.json; empty if there is none yet."""
        if not self.card.exists():
            return {}
        card: dict[str, Any] = read_json(self.card, {"settings": {str: True}}, _AGAIN)
        return card

    def write_card(self, card: Mapping[str, Any]) -> None:
        """Write training.json."""
        with atomic_path(self.card) as part:
            part.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")

    def _check(self, settings: Mapping[str, Any]) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path} is a file; use a folder.")
        card = self.read_card()
        if not card:
            there = [entry.name for entry in self.path.iterdir()] if self.path.exists() else []
            others = sorted(name for name in there if name != self.unfinished.name and not name.startswith("."))
            if others:
                raise InputError(
                    f"{self.path} already contains other files ({', '.join(others[:3])}{', ...' * (len(others) > 3)}); "
                    "use a new folder as --out."
                )
            return
        before = card["settings"]
        differ = [name for name in settings if name not in _TEXTS and name in before and before[name] != settings[name]]
        if differ:
            shown = dict.fromkeys(_SHOWN_FOR.get(name, name) for name in differ)
            told = ", ".join(f"{name} is {before.get(name)} there but {settings.get(name)} here" for name in shown)
            changed = [name for name in shown if before.get(name) == settings.get(name)]
            told += f" (with the same name but different content: {', '.join(changed)})" if changed else ""
            raise InputError(f"{self.path} contains another training: {told}. To train again, {_AGAIN}.")

    # -- what is kept between runs -------------------------------------------------------------------------------

    def keep(self, name: str, tensors: dict[str, Tensor], about: Any) -> None:
        """Write tensors, with a note as JSON, from which training resumes after a stop."""
        with atomic_path(self.unfinished / f"{name}.safetensors") as part:
            save_tensors(tensors, part, {"about": json.dumps(about)})

    def kept(self, name: str) -> tuple[dict[str, Tensor], Any] | None:
        """The tensors and the note written by `keep`; None if there are none.

        Raises:
            InputError: the file is damaged.
        """
        path = self.unfinished / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118  # it is no dict
        except (SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}); delete it, and its content is computed again.") from None

    def finish(self, backbone: Backbone, names: ClassNames, card: Mapping[str, Any]) -> HookedModel:
        """Write the model, open it again, and remove files that are no longer needed; returns the opened model.

        Raises:
            RuntimeError: the model read from the files is not the trained one.
        """
        _write_model(backbone, names, self.path)
        opened = load_model(self.path)
        _check_same(backbone, names, opened)
        self.write_card(card)
        shutil.rmtree(self.unfinished, ignore_errors=True)
        return opened


def _write_model(backbone: Backbone, names: ClassNames, path: Path) -> None:
    """Write config.json and model.safetensors, each atomically."""
    seen = backbone.preprocessing
    labels = list(names.ids or names.names)
    facts: dict[str, Any] = {"label_names": labels}
    if names.ids:
        facts["label_descriptions"] = dict(zip(labels, names.names, strict=True))
    data = {
        "input_size": (3, *seen.image_size),
        "mean": seen.mean,
        "std": seen.std,
        "interpolation": seen.interpolation,
        "crop_pct": seen.crop_pct,
        "crop_mode": seen.crop_mode,
    }
    with atomic_path(path / "unfinished" / "model") as part:
        save_for_hf(backbone.body, str(part), facts, safe_serialization=True, data_config=data)
    for name in ("model.safetensors", "config.json"):
        (path / "unfinished" / "model" / name).replace(path / name)


def _check_same(backbone: Backbone, names: ClassNames, opened: HookedModel) -> None:
    body = backbone.body.cpu().eval()
    generator = torch.Generator(device="cpu").manual_seed(0)
    size = backbone.preprocessing.image_size
    noise = torch.randn((2, 3, *size), generator=generator, dtype=torch.float32, device="cpu")
    with torch.inference_mode():
        expected, given = body(noise), opened.body(noise)
    same = torch.allclose(expected, given, rtol=1e-4, atol=1e-4)
    if not same or opened.preprocessing != backbone.preprocessing or opened.class_names != names:
        raise RuntimeError(
            f"{backbone.text} is not the same after it was read from its files; please report this with the command."
        )
