"""The result of every attribution method: scores on the patch grid, with all settings that produced them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from caap_lab._version import __version__
from caap_lab.attribution.enlarge import MODES, enlarged
from caap_lab.attribution.map_difference import DIFFERENCE, RANK, RANK_SUM, difference, ranks_of
from caap_lab.attribution.map_target import of_all_scores, score_of
from caap_lab.digests.tensors import tensor_digest
from caap_lab.engine.scores import DROP, SCORES
from caap_lab.errors import InputError
from caap_lab.models.classes import ClassNames
from caap_lab.models.explained import by_contrast, resolved_target
from caap_lab.models.targets import Contrast, Direction, Given, Logit, Target, TargetLike, class_of
from caap_lab.plots.look import LOOK, Bar, Look

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from caap_lab.models.base import HookedModel

Sign = Literal["signed", "positive", "level"]
SIGNS: tuple[str, ...] = get_args(Sign)


@dataclass(frozen=True)
class Seen:
    """The part of a model's input that a map keeps: its pixels and a hash."""

    pixels: UInt8[np.ndarray, "height width 3"]
    digest: str

    @classmethod
    def of_all(cls, model: "HookedModel", images: Float[Tensor, "image 3 height width"]) -> "list[Seen]":
        """One entry per preprocessed image."""
        pictures = model.preprocessing.to_rgb_all(images)
        # Copied one by one, so that a map does not hold the pixels of all images.
        return [cls(pixels.copy(), tensor_digest(image)) for pixels, image in zip(pictures, images, strict=True)]


@dataclass(frozen=True, eq=False)
class AttributionMap:
    """Scores of an image's patches for a target. Higher scores favour the target; nothing is clipped or rescaled.

    ```python
    m = cl.caap(model, image)
    m.scores, m.rank(), m.for_target(4)
    m.plot(), m.save("map.safetensors")
    ```

    In Jupyter it is displayed as an overlay on the image with a colour scale.
    """

    scores: Float[Tensor, "row col"]
    target: Given
    """The target, in a form that any function accepts: the index of a class, or a contrast, direction or function of
    the logits. For a model whose classes are text embeddings a class is a contrast; see `cl.logit`."""
    target_name: str
    """Name of the target for captions."""
    method: str
    score: str
    """What a score is: "logit", "prob", "logprob", "sigmoid" or "logsigmoid" of the target with the patch inserted, the
    "drop in" one with the patch removed, or "attribution to" one."""
    sign: Sign
    """The meaning of the sign. "signed": negative scores count against the target; "positive": scores are never
    negative, as after a ReLU; "level": only differences between patches matter, as for the logits of CAAP."""
    settings: dict[str, Any]
    """All arguments with which the method ran."""
    model_name: str
    fingerprint: str
    """Hash of the model, as `HookedModel.fingerprint`; empty for a map made by hand."""
    image: UInt8[Tensor, "height width 3"]
    """The model's input as pixels."""
    all_scores: Float[Tensor, "row col classes"] | None = None
    """Scores for every class, if the method computes them in the same pass."""
    class_names: ClassNames | None = field(default=None, repr=False)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    image_digest: str = ""
    """Hash of the model's input, see `tensor_digest`; empty for a map made by hand or by an earlier version."""
    class_specific: bool = True
    """False if the method gives the same map for all targets."""
    contrasts: bool = False
    """True if a class means its contrast to all classes for this model."""
    standard_errors: Float[Tensor, "row col"] | None = None
    """Of the scores, where the method estimates them from random samples and says how far off they may be."""

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
        seen: "Seen | None" = None,
        standard_errors: Float[Tensor, "row col"] | None = None,
    ) -> "AttributionMap":
        """A map of a model's image; a target that is a number is a class's own logit. `seen` is the image's."""
        (seen,) = Seen.of_all(model, image[None]) if seen is None else (seen,)
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
            image=torch.from_numpy(seen.pixels),
            all_scores=all_scores,
            class_names=model.class_names,
            seconds=seconds,
            versions=dict(_versions()),
            image_digest=seen.digest,
            class_specific=class_specific,
            contrasts=by_contrast(model),
            standard_errors=standard_errors,
        )

    @property
    def target_class(self) -> int | None:
        """The class in favour; None if the target is a direction or a function of the logits."""
        return self.target if isinstance(self.target, int) else class_of(self.target)

    @property
    def caption(self) -> str:
        """The target in words; "any class" if the map is the same for all."""
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
            target: A class; a contrast, if scores are linear in the logits or probabilities of a softmax; or, if scores
                are logits, a function of them. Directions are not possible.

        Raises:
            InputError: the map has scores for one target only, the target cannot be computed from its scores, or there
                is no such class.
        """
        if self.all_scores is None or self.class_names is None:
            raise InputError(f"{self.method} computes one target at a time; run it again with target={target!r}.")
        if isinstance(target, Direction):
            raise InputError(
                f"The direction {target.name!r} is not a class, but this map holds scores of classes: run "
                f"{self.method} again with target=..."
            )
        found = resolved_target(target, self.class_names, contrasts=self.contrasts)
        scores = of_all_scores(found, self.all_scores, self.score, self.method).clone()
        return replace(self, scores=scores, target=found.given, target_name=found.name, standard_errors=None)

    def rank(self) -> list[tuple[int, int]]:
        """Cells (row, column) from the highest score to the lowest; ties in reading order."""
        order = self.scores.flatten().argsort(descending=True, stable=True)
        return [(int(i) // self.grid[1], int(i) % self.grid[1]) for i in order]

    def upsample(self, size: tuple[int, int] | None = None, mode: str = "bilinear") -> Float[Tensor, "height width"]:
        """Scores at pixel resolution, where ties stay ties; see `caap_lab.attribution.enlarge.enlarged`.

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

    def ranks(self) -> "AttributionMap":
        """A map of the rank of each patch, from 0 for the lowest score to 1 for the highest.

        Ranks have the same meaning for all methods, so that two maps of one image can be subtracted:

        ```python
        a.ranks() - b.ranks()       # what does a rank higher than b?
        ```

        A rank is the fraction of the other patches with a lower score; tied patches get their mean rank.
        """
        ranks = ranks_of(self.scores)
        return replace(self, scores=ranks, score=RANK, sign="level", all_scores=None, standard_errors=None)

    def __sub__(self, other: object) -> "AttributionMap":
        """The difference of two maps of the same image, patch by patch; `a - b` is displayed like any map.

        Raises:
            InputError: the maps are of different images or grids, or their scores have different units; ranks always
                match.
        """
        return difference(self, other) if isinstance(other, AttributionMap) else NotImplemented

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per patch, in reading order: row, col, score, and its rank from 0 to 1 as `ranks` has it.

        Where there are standard errors, they are a column "standard_error".
        """
        import pandas as pd

        rows, cols = torch.meshgrid(*(torch.arange(size, device="cpu") for size in self.grid), indexing="ij")
        columns = {"row": rows, "col": cols, "score": self.scores.cpu().double(), "rank": ranks_of(self.scores)}
        if self.standard_errors is not None:
            columns["standard_error"] = self.standard_errors.cpu().double()
        return pd.DataFrame({name: values.flatten().numpy() for name, values in columns.items()})

    def plot(
        self,
        *,
        opacity: float = LOOK.opacity,
        smooth: bool = LOOK.smooth,
        robust: bool = LOOK.robust,
        fade: bool = LOOK.fade,
        colour_map: str | None = LOOK.colour_map,
    ) -> "Figure":
        """A figure with the image, and the map over it with the scale of the scores.

        ```python
        m.plot(smooth=True).savefig("map.pdf")
        ```

        Args:
            opacity: Opacity of the map over the image, 0 to 1.
            smooth: Interpolate between patches instead of showing each patch's own score.
            robust: End the colours at the 2nd and 98th percentile of the scores instead of the lowest and highest, so
                that an outlier does not make all others look the same; the colour bar has a tip if scores lie beyond
                its end.
            fade: Let opacity follow the score: low scores, or signed scores near 0, leave the image visible.
            colour_map: A matplotlib colour map; by default one that suits the sign of the scores. Signed scores are
                always centred on 0.
        """
        from caap_lab.plots.maps import plot_image_and_map

        return plot_image_and_map(
            self.scores.double().numpy(),
            self.image.numpy(),
            label=f"{self.unit}{_done_to_patch(self.score)}",
            titles=(self.model_name, f"{self.method} for {self.caption}"),
            note=settings_text(self.settings),
            signed=self.sign == "signed",
            look=Look(opacity, smooth, robust, fade, colour_map),
        )

    def overlay(
        self,
        ax: "Axes | None" = None,
        *,
        opacity: float = LOOK.opacity,
        smooth: bool = LOOK.smooth,
        robust: bool = LOOK.robust,
        fade: bool = LOOK.fade,
        colour_map: str | None = LOOK.colour_map,
        limits: tuple[float, float] | None = None,
        label: str | None = None,
        bar: Bar = "right",
        title: str = "",
    ) -> "Axes":
        """Axes with the map over its image, for your own figures.

        ```python
        fig, axes = plt.subplots(1, 2)
        m.overlay(axes[0], label=m.unit, title=m.method)
        ```

        Args:
            ax: Axes to draw in; by default those of a new figure.
            opacity: Opacity of the map over the image, 0 to 1.
            smooth: Interpolate between patches instead of showing each patch's own score.
            robust: End the colours at the 2nd and 98th percentile of the scores instead of the lowest and highest.
            fade: Let opacity follow the score: low scores, or signed scores near 0, leave the image visible.
            colour_map: A matplotlib colour map; by default one that suits the sign of the scores.
            limits: Scores at the two ends of the colours, for example those of another map to compare with.
            label: Label of a colour bar, such as `unit`; without it there is no colour bar.
            bar: Position of the colour bar, "right" or "bottom".
            title: Title above the axes.
        """
        from caap_lab.plots.maps import plot_map

        look = {"opacity": opacity, "smooth": smooth, "robust": robust, "fade": fade, "colour_map": colour_map}
        place = {"limits": limits, "label": label, "bar": bar, "title": title}
        signed = self.sign == "signed"
        return plot_map(self.scores.double().numpy(), self.image.numpy(), ax, signed=signed, **look, **place)  # type: ignore[arg-type]

    def save(self, path: str | Path) -> Path:
        """Save the map as one safetensors file, atomically: on any error, an existing file is left unchanged."""
        from caap_lab.attribution.map_file import write_map

        return write_map(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "AttributionMap":
        """Read a saved map.

        Raises:
            InputError: the file is missing, damaged, or not a map.
        """
        from caap_lab.attribution.map_file import read_map

        return cls(**read_map(path))

    def __repr__(self) -> str:
        """Method, target, range and settings."""
        row, col = self.rank()[0]
        return (
            f"AttributionMap: {self.method} of {self.model_name} for {self._named_target}, "
            f"{self.grid[0]} x {self.grid[1]} patches, {self.score} {self.scores.min():z.3f} "
            f"to {self.scores.max():z.3f} ({self.sign}), highest at row {row}, column {col} "
            f"({settings_text(self.settings, '=')})"
        )

    @property
    def unit(self) -> str:
        """The quantity of a score, as at a colour bar: "logit of tabby", or without the target if it is not a class."""
        if self.score == RANK:
            return "rank, 0 the lowest to 1 the highest"
        if self.score == RANK_SUM:
            return "sum of two ranks, each from 0 to 1"
        if isinstance(self.target, int) and not self.score.startswith(DIFFERENCE):
            return f"{self.score} of {self.target_name if self.class_specific else 'any class'}"
        return self.quantity

    @property
    def quantity(self) -> str:
        """What a score is, without the target: "logit", or "logit difference" for a contrast."""
        if self.score.startswith(DIFFERENCE) or isinstance(self.target, (int, Direction, Logit)):
            return self.score
        return self.score.replace("logit", "logit difference" if isinstance(self.target, Contrast) else "value")

    @property
    def _named_target(self) -> str:
        of_class = self.class_specific and isinstance(self.target, int)
        return f"{self.target_name!r} ({self.target})" if of_class else self.caption

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        return {"text/plain": repr(self), "image/png": figure_png(self.plot())}


def settings_text(settings: Mapping[str, Any], sign: str = " ") -> str:
    """Settings in one line: "cutoff 8, blank white". Differences between two maps come first, in brackets."""
    sides = [value for value in settings.values() if isinstance(value, dict)]
    first = sides[0] if len(sides) > 1 else {}
    both = {key: value for key, value in first.items() if all(key in side and side[key] == value for side in sides)}
    parts = []
    for key, value in settings.items():
        if not isinstance(value, dict):
            parts.append(f"{key}{sign}{value}")
        elif own := {name: given for name, given in value.items() if name not in both}:
            parts.append(f"{key} ({settings_text(own, sign)})")
    return ", ".join(parts + [f"{key}{sign}{value}" for key, value in both.items()])


def _done_to_patch(score: str) -> str:
    """What is done to a patch to read its score, as it stands behind the unit."""
    return ", patch inserted" if score in SCORES else ", patch removed" if score.startswith(DROP) else ""


@cache
def _versions() -> dict[str, str]:
    """Versions of packages on which numbers depend."""
    return {"caap_lab": __version__, **{name: version(name) for name in ("torch", "timm")}}
