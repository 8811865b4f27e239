"""The result of every attribution method: scores on the patch grid, with everything that made them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from caap_lab._version import __version__
from caap_lab.attribution.enlarge import MODES, enlarged
from caap_lab.attribution.map_target import (
    TARGET_FORM,
    of_all_scores,
    score_of,
    target_from_json,
    target_to_json,
    vector_of,
)
from caap_lab.digests.tensors import named_tensors_digest, tensor_digest
from caap_lab.engine.scores import SCORES
from caap_lab.errors import InputError
from caap_lab.files import atomic_path, has_form, save_tensors
from caap_lab.models.classes import ClassNames
from caap_lab.models.targets import (
    Contrast,
    Direction,
    Given,
    Logit,
    Target,
    TargetLike,
    by_contrast,
    class_of,
    resolved_target,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from caap_lab.models.base import HookedModel

FORMAT = 2
_TITLE_WIDTH = 44
"""Letters in a line above a map."""

Sign = Literal["signed", "positive", "level"]
SIGNS: tuple[str, ...] = get_args(Sign)


@dataclass(frozen=True, eq=False)
class AttributionMap:
    """Scores of an image's patches for a target. Higher speaks more for the target; nothing is clipped or rescaled.

    In Jupyter it shows itself as an overlay on the image with its scale.
    """

    scores: Float[Tensor, "row col"]
    target: Given
    """What is explained, as any function takes it again: the index of a class, or a contrast, direction or function of
    the logits. Of a model whose classes are text embeddings a class is a contrast, see `cl.logit`."""
    target_name: str
    """For captions."""
    method: str
    score: str
    """What a score is: "logit", "prob", "logprob", "sigmoid" or "logsigmoid" of the target with the patch inserted, or
    "attribution to" one."""
    sign: Sign
    """What its sign means. "signed": negative scores speak against the target; "positive": scores are never negative,
    as after a ReLU; "level": only differences between patches count, as with the logits of CAAP."""
    settings: dict[str, Any]
    """Every argument that the method ran with."""
    model_name: str
    fingerprint: str
    """Hash of the model that made it, as `HookedModel.fingerprint`; empty for a map made by hand."""
    image: UInt8[Tensor, "height width 3"]
    """What the model saw, as pixels."""
    all_scores: Float[Tensor, "row col classes"] | None = None
    """Scores for every class, where the method gives them from the same pass."""
    class_names: ClassNames | None = field(default=None, repr=False)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    image_digest: str = ""
    """Hash of the model's input, see `tensor_digest`; empty for a map made by hand or by an earlier version."""
    class_specific: bool = True
    """False if the method gives the same map for all targets."""
    contrasts: bool = False
    """True if the model explains a class by its contrast to all classes, where no other target is given."""

    @classmethod
    def of_model(
        cls,
        model: "HookedModel",
        image: Float[Tensor, "3 height width"],
        scores: Float[Tensor, "row col"],
        *,
        target: Target | int,
        method: str,
        score: str,
        sign: Sign,
        settings: Mapping[str, Any],
        seconds: float,
        fingerprint: str,
        all_scores: Float[Tensor, "row col classes"] | None = None,
        class_specific: bool = True,
    ) -> "AttributionMap":
        """A map of a model's image; a target that is a number is a class's own logit."""
        named = resolved_target(target, model.class_names) if isinstance(target, int) else target
        return cls(
            scores=scores,
            target=named.given,
            target_name=named.name,
            method=method,
            score=score_of(score, named),
            sign=sign,
            settings=dict(settings),
            model_name=model.model_name,
            fingerprint=fingerprint,
            image=torch.from_numpy(model.preprocessing.to_rgb(image)),
            all_scores=all_scores,
            class_names=model.class_names,
            seconds=seconds,
            versions=dict(_versions()),
            image_digest=tensor_digest(image),
            class_specific=class_specific,
            contrasts=by_contrast(model),
        )

    @property
    def target_class(self) -> int | None:
        """The class that is spoken for; None where the target is a direction or a function of the logits."""
        return self.target if isinstance(self.target, int) else class_of(self.target)

    @property
    def caption(self) -> str:
        """What is explained, in words; "any class" where the map is the same for all."""
        if not self.class_specific:
            return "any class"
        return f"'{self.target_name}'" if isinstance(self.target, int) else self.target_name

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return (self.scores.shape[0], self.scores.shape[1])

    def for_target(self, target: TargetLike) -> "AttributionMap":
        """The map for another target, from the same pass.

        ```python
        m.for_target("tiger cat"), m.for_target(cl.contrast("tabby", "tiger cat"))
        ```

        Args:
            target: A class; a contrast, where a score is linear in the logits or is a softmax's; or, where scores are
                logits, a function of them. Not a direction, which is no class's.

        Raises:
            InputError: the method gives scores of one class only, the target does not follow from them, or there is no
                such class.
        """
        if self.all_scores is None or self.class_names is None:
            raise InputError(f"{self.method} gives scores of one class at a time; run it again with target={target!r}.")
        if isinstance(target, Direction):
            raise InputError(
                f"The direction {target.name!r} is no class, and this map holds scores of classes: run {self.method} "
                "again with it, target=..."
            )
        found = resolved_target(target, self.class_names, contrasts=self.contrasts)
        scores = of_all_scores(found, self.all_scores, self.score, self.method).clone()
        return replace(self, scores=scores, target=found.given, target_name=found.name)

    def rank(self) -> list[tuple[int, int]]:
        """Cells (row, column) from the highest score to the lowest; ties in reading order."""
        order = self.scores.flatten().argsort(descending=True, stable=True)
        return [(int(i) // self.grid[1], int(i) % self.grid[1]) for i in order]

    def upsample(self, size: tuple[int, int] | None = None, mode: str = "bilinear") -> Float[Tensor, "height width"]:
        """Scores at pixel resolution, as `caap_lab.attribution.enlarge.enlarged` computes them: ties stay ties.

        Args:
            size: Height and width in pixels; the model's input size by default.
            mode: "bilinear" (default), "nearest-exact" or "bicubic"; pixel centres are aligned, not corners.
        """
        if mode not in MODES:
            raise InputError(f"mode={mode!r} is not known; use 'bilinear', 'nearest-exact' or 'bicubic'.")
        if size is not None and not (isinstance(size, tuple) and len(size) == 2):
            raise InputError(f"size={size!r} is not (height, width).")
        height, width = size or tuple(self.image.shape[:2])
        return enlarged(self.scores, (height, width), mode).to(self.scores.device, self.scores.dtype)

    def plot(self, *, opacity: float = 0.6, smooth: bool = False, colour_map: str | None = None) -> "Figure":
        """The image beside the map laid over it, with the scale of the scores.

        Args:
            opacity: Of the map over the image, 0 to 1.
            smooth: Interpolate between patches instead of showing each patch's own score.
            colour_map: A matplotlib colour map; by default one that fits the sign of the scores. Signed scores are
                centred on 0 in any.
        """
        from caap_lab.plots.maps import plot_image_and_map

        inserted = ", patch inserted" if self.score in SCORES else ""
        return plot_image_and_map(
            self.scores.double().numpy(),
            self.image.numpy(),
            label=f"{self._quantity}{inserted}",
            titles=(self.model_name, fill(f"{self.method} for {self.caption}", _TITLE_WIDTH)),
            note=", ".join(f"{key} {value}" for key, value in self.settings.items()),
            signed=self.sign == "signed",
            opacity=opacity,
            smooth=smooth,
            colour_map=colour_map,
        )

    def overlay(self, ax: "Axes | None" = None, **options: Any) -> "Axes":
        """The map over its image in one axes; options as `caap_lab.plots.maps.plot_map` takes them."""
        from caap_lab.plots.maps import plot_map

        return plot_map(self.scores.double().numpy(), self.image.numpy(), ax, signed=self.sign == "signed", **options)

    def save(self, path: str | Path) -> Path:
        """Write everything to one safetensors file, in one step: on any error, what was there before stays whole."""
        target = Path(path)
        if target.is_dir():
            raise InputError(f"{target} is a folder; give a file name such as map.safetensors.")
        tensors = {"scores": self.scores, "image": self.image, **vector_of(self.target)}
        if self.all_scores is not None:
            tensors["all_scores"] = self.all_scores
        names = self.class_names
        about = {
            "format": FORMAT,
            **{key: getattr(self, key) for key in _ABOUT},
            "target": target_to_json(self.target),
            **{key: getattr(self, key) for key in _LATER},
            "image_digest": self.image_digest,
            "class_names": None if names is None else [names.names, names.ids],
        }
        text = json.dumps(about)
        with atomic_path(target) as part:
            save_tensors(tensors, part, {"caap_lab": text, "digest": named_tensors_digest(text, tensors)})
        return target

    @classmethod
    def load(cls, path: str | Path) -> "AttributionMap":
        """Read a saved map.

        Raises:
            InputError: the file is missing, damaged, or no map.
        """
        try:
            with safe_open(Path(path), framework="pt") as file:
                written = file.metadata() or {}
                about = json.loads(written["caap_lab"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        except FileNotFoundError:
            raise InputError(f"There is no file {path}.") from None
        except (SafetensorError, KeyError, OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is not an attribution map, or is damaged ({error}).") from None
        if not has_form(about, {}):
            raise InputError(f"{path} is not an attribution map, or is damaged (it says nothing of itself).")
        if about.get("format") != FORMAT:
            raise InputError(
                f"{path} has map format {about.get('format')}; this version reads {FORMAT}. Make the map again."
            )
        _check_content(path, about, tensors, written)
        names = about["class_names"]
        return cls(
            scores=tensors["scores"],
            image=tensors["image"],
            all_scores=tensors.get("all_scores"),
            class_names=None if names is None else ClassNames(tuple(names[0]), tuple(names[1])),
            image_digest=str(about.get("image_digest", "")),  # earlier versions wrote none
            **{key: about[key] for key in _ABOUT if key != "target"},
            **{key: about[key] for key in _LATER if key in about},
            # a function is not in a file: what stands in its place is refused where it is used
            target=cast(Given, target_from_json(about["target"], tensors.get("direction"))),
        )

    def __repr__(self) -> str:
        """Target, range and settings."""
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        row, col = self.rank()[0]
        return (
            f"AttributionMap: {self.method} of {self.model_name} for {self._named_target}, "
            f"{self.grid[0]} x {self.grid[1]} patches, {self.score} {self.scores.min():.3f} "
            f"to {self.scores.max():.3f} ({self.sign}), highest at row {row}, column {col} ({settings})"
        )

    @property
    def _quantity(self) -> str:
        """What a score is; the title says of what where that is no class."""
        if isinstance(self.target, int):
            return f"{self.score} of {self.target_name if self.class_specific else 'any class'}"
        if isinstance(self.target, (Direction, Logit)):
            return self.score
        return self.score.replace("logit", "logit difference" if isinstance(self.target, Contrast) else "value")

    @property
    def _named_target(self) -> str:
        of_class = self.class_specific and isinstance(self.target, int)
        return f"{self.target_name!r} ({self.target})" if of_class else self.caption

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        return {"text/plain": repr(self), "image/png": figure_png(self.plot())}


_ABOUT = (
    "target",
    "target_name",
    "method",
    "score",
    "sign",
    "settings",
    "model_name",
    "fingerprint",
    "seconds",
    "versions",
)


_LATER = ("class_specific", "contrasts")
"""What files of earlier versions do not say."""
_FORM = {
    "target": TARGET_FORM,
    **dict.fromkeys(("target_name", "method", "score", "sign", "model_name", "fingerprint"), str),
    "settings": dict,
    "seconds": float,
    "versions": {str: str},
    "class_names": ([[str]], None),
}
"""Of a map file's text; older files have all of this as well."""


def _check_content(path: str | Path, about: Any, tensors: dict[str, Tensor], written: dict[str, str]) -> None:
    """Refuse a map file whose text or tensors are not those of a map, or not those that were written."""
    scores, image = tensors.get("scores"), tensors.get("image")
    whole = (
        has_form(about, _FORM)
        and target_from_json(about["target"], tensors.get("direction")) is not None
        and all(isinstance(about.get(key, False), bool) for key in _LATER)
        and about["sign"] in SIGNS
        and len(about["class_names"] or (0, 0)) == 2
        and scores is not None
        and scores.ndim == 2
        and image is not None
        and image.ndim == 3
        and set(written) <= {"caap_lab", "digest"}
    )
    digest = written.get("digest")  # older versions wrote none
    if not whole or digest not in (None, named_tensors_digest(written["caap_lab"], tensors)):
        raise InputError(f"{path} is damaged: it does not hold the map that was written. Make the map again.")


@cache
def _versions() -> dict[str, str]:
    """Versions that numbers depend on."""
    return {"caap_lab": __version__, **{name: version(name) for name in ("torch", "timm")}}
