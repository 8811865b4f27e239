"""Logits of patched contexts of any sets of an image's patches, for example unions of neighbourhoods."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.engine.blanks import BlankRun, blank_run
from caap_lab.engine.cnn import blank_maps, cell_masks, entering_maps, score_cells
from caap_lab.engine.free import patched_run
from caap_lab.engine.layout import layout_of_sets
from caap_lab.engine.memory import sets_within
from caap_lab.engine.patched_runs import score_groups
from caap_lab.engine.plan import CaapPlan, plan_of, written_settings
from caap_lab.engine.settings import DEFAULT_CELLS, DEFAULT_MEMORY, CaapSettings
from caap_lab.engine.source import SourceRun, run_source
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.cnn import HookedCNN
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.neighbour_tables import neighbourhood_table, table_masks
from caap_lab.models.vit import HookedViT

SetLogits = Float[Tensor, "set classes"]


@dataclass(frozen=True)
class PatchSets:
    """Patched runs of sets of patches, with CAAP's settings on a model."""

    model: HookedModel
    settings: CaapSettings
    plan: CaapPlan

    @classmethod
    def of(cls, model: HookedModel, settings: CaapSettings) -> "PatchSets":
        """`PatchSets` of settings that are checked against a model.

        Raises:
            InputError: they do not fit it, or ask for an approximate tail or removal.
        """
        if settings.tail != "exact":
            raise InputError(
                f"tail={settings.tail!r} shares rows between the neighbourhoods of single patches, which sets of "
                "several patches do not have; omit tail."
            )
        if settings.direction != "insert":
            raise InputError(
                f"direction={settings.direction!r} is for maps; joint effects of several patches are measured in the "
                "blank, with direction='insert'."
            )
        return cls(model, settings, plan_of(model, settings))

    @property
    def neighbourhoods(self) -> Bool[Tensor, "patch patch"]:
        """S_i of every patch, row by row."""
        return table_masks(neighbourhood_table(self.model.grid, self.plan.neighbourhood))

    def of_image(self, image: Float[Tensor, "1 3 height width"], own: bool = False) -> "SetRuns":
        """The runs of an image and of the blank, unless that is cached.

        Args:
            image: A preprocessed image.
            own: Whether to compute the image's own logits as well.
        """
        model, plan, settings = self.model, self.plan, self.settings
        (cutoff,) = plan.cutoffs
        if isinstance(model, HookedCNN):
            empty, label = blank_maps(model, settings.blank, settings.seed, plan.start)
            maps, own_logits = entering_maps(model, image, plan.start, cutoff, own)
            return SetRuns(self, label, own_logits, _CnnRuns(model, plan, empty, maps, settings.chunk_size))
        assert isinstance(model, HookedViT)
        blank = blank_run(model, settings.blank, settings.seed)  # cached with the model after the first time
        source = run_source(model, image, plan.context, [(plan.start, cutoff)], own)
        return SetRuns(self, blank.label, source.logits, _ViTRuns(model, settings, plan, blank, source, image))

    def passes(self, masks: Bool[Tensor, "set patch"]) -> float:
        """Cost of the runs of some sets in forward passes (tokens x blocks), without the image's and the blank's.

        On a CNN one pass per set.
        """
        model, plan = self.model, self.plan
        sizes = masks.sum(dim=1)
        sizes = sizes if plan.context == "free" else sizes[sizes > 0]  # the blank's own run is cached
        if not isinstance(model, HookedViT):
            return float(len(sizes))
        spec, (cutoff,) = model.spec, plan.cutoffs
        if plan.context == "free":
            return len(sizes) * (spec.n_layers - plan.start) / spec.n_layers
        if cutoff <= plan.start:
            return 0.0
        steps = len(sizes) * len(spec.live_prefix) * (spec.n_layers - plan.start)
        if plan.context == "clamped":  # if the head reads no patches, only the prefix rows run in the last block
            blocks = spec.n_layers - (cutoff - 1)
            steps += int(sizes.sum()) * (blocks if spec.reads_patches else blocks - 1)
        return steps / (spec.n_tokens * spec.n_layers)


@dataclass(frozen=True)
class SetRuns:
    """An image that is ready to be inserted into the blank, set by set."""

    sets: PatchSets
    blank: str
    """Name of the blank in results."""
    own: Float[Tensor, "1 classes"] | None
    """The image's own logits, if requested."""
    runs: "_ViTRuns | _CnnRuns"

    @property
    def written(self) -> dict[str, Any]:
        """The settings that determine the numbers, as results record them."""
        return written_settings(self.sets.model, self.sets.settings, self.sets.plan, self.blank)

    def logits(
        self, masks: Bool[Tensor, "set patch"], keep: Callable[[slice, SetLogits], None], done: Callable[[int], Any]
    ) -> None:
        """Run each set; the empty set is the blank itself.

        Args:
            masks: True at the patches of each set; no two may be equal.
            keep: Called with the logits of each part of the sets.
            done: Called with the number of finished sets after each part.

        Raises:
            InputError: a run results in NaN or infinity.
        """
        size = self.runs.at_once(masks)
        for first in range(0, len(masks), size):
            part = masks[first : first + size]
            logits = self.runs.logits(part)
            if not all_finite(logits):
                raise InputError(
                    "The model returns NaN or infinity on a patched run: check its weights for such values and the "
                    "image for extreme values, or use dtype='float32' instead of float16."
                )
            keep(slice(first, first + len(part)), logits)
            done(len(part))

    def all_logits(self, masks: Bool[Tensor, "set patch"]) -> SetLogits:
        """The logits of a few sets together."""
        parts: list[Tensor] = []
        self.logits(masks, lambda _, logits: parts.append(logits), lambda _: None)
        return torch.cat(parts)

    @torch.no_grad()
    def distance(self, patches: Bool[Tensor, " patch"]) -> float:
        """Distance of the two runs at some patches: norm of the difference of the streams entering patched blocks.

        Relative to the norm of the blank's streams there; the mean over the patched blocks, 0 if there are none.
        """
        shares = [float((a - b).double().norm() / b.double().norm()) for a, b in self.runs.entering(patches)]
        return sum(shares) / len(shares) if shares else 0.0


@dataclass(frozen=True)
class _ViTRuns:
    model: HookedViT
    settings: CaapSettings
    plan: CaapPlan
    blank: BlankRun
    source: SourceRun
    image: Float[Tensor, "1 3 height width"]

    def at_once(self, masks: Bool[Tensor, "set patch"]) -> int:
        bound = self.settings.max_memory or DEFAULT_MEMORY
        return sets_within(self.model, self.plan, int(masks.sum(dim=1).max()), bound, self.settings.chunk_size)

    @torch.no_grad()
    def logits(self, masks: Bool[Tensor, "set patch"]) -> SetLogits:
        model, plan, (cutoff,) = self.model, self.plan, self.plan.cutoffs
        if plan.context == "free":
            patched = F.pad(masks, (model.spec.n_prefix, 0)).to(model.device)  # prefix tokens are never patched
            return patched_run(model, self.blank, self.source, 0, patched, plan.start, cutoff)
        some = masks.any(dim=1) & (cutoff > plan.start)
        empty = model.unembed(self.blank.resid[-1][None], self.blank.class_tokens(model.spec.n_layers))
        found = empty.repeat(len(masks), 1)
        if some.any():
            groups = layout_of_sets(model.spec, masks[some], model.device)
            found[some.to(model.device)] = score_groups(model, self.blank, self.source, slice(0, 1), plan, groups)[0, 0]
        return found

    def entering(self, patches: Bool[Tensor, " patch"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Streams of the image and of the blank at some patches entering each patched block; the image runs again."""
        tokens = F.pad(patches, (self.model.spec.n_prefix, 0)).to(self.model.device)
        resid = self.model.embed(self.image)
        for layer in range(self.plan.cutoffs[0]):
            if layer >= self.plan.start:
                yield resid[0, tokens], self.blank.resid[layer][tokens]
            resid = self.model.run_block(layer, resid)


@dataclass(frozen=True)
class _CnnRuns:
    model: HookedCNN
    plan: CaapPlan
    empty: Float[Tensor, "1 channel row col"]
    maps: list[Tensor]
    chunk_size: int | None

    def at_once(self, masks: Bool[Tensor, "set patch"]) -> int:
        return self.chunk_size or DEFAULT_CELLS

    def logits(self, masks: Bool[Tensor, "set patch"]) -> SetLogits:
        plan = self.plan
        patched = self.maps[: max(0, plan.cutoffs[0] - plan.start)]
        return score_cells(self.model, self.empty, patched, 1, masks, plan.start, len(masks))[0]

    def entering(self, patches: Bool[Tensor, " patch"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Maps of the image and of the blank at some cells entering each patched block; the blank runs again."""
        blank = self.empty
        for layer, maps in enumerate(self.maps, self.plan.start):
            (mask,) = cell_masks(patches[None], self.model.grid, (maps.shape[2], maps.shape[3])).to(maps.device)
            yield maps[0][:, mask[0]], blank[0][:, mask[0]]
            blank = self.model.run_block(layer, blank)
