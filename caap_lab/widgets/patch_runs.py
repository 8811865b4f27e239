"""Runs of the patching widget: clean runs, their cached activations, and patched runs."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.activations.patch import Edit, Patch, edits
from caap_lab.activations.shards import bytes_per_image
from caap_lab.activations.store import ActivationStore
from caap_lab.errors import InputError
from caap_lab.models.running import runs_model
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.patch_settings import SOURCE, PatchSettings
from caap_lab.widgets.photos import Photo

Kept = TypeVar("Kept")
KEPT_BYTES = 256 * 2**20
"""Number of recorded activations that are cached between patches."""
KEPT_RUNS = 4
"""Number of photos whose streams are cached."""


class Logits(NamedTuple):
    """Logits of a patch's runs; columns for directions follow those of the classes."""

    before: Float[Tensor, "columns"]
    """Logits of the target photo."""
    after: Float[Tensor, "columns"]
    """Logits of the target photo with the patch."""
    source: Float[Tensor, "columns"]
    """Logits of the source photo."""


@dataclass(eq=False)
class PlainRun:
    """A photo's run without patches."""

    streams: list[Float[Tensor, "1 token d_model"]]
    """The input of each block, and the output of the last."""
    class_tokens: list[list[Float[Tensor, "1 d_model"]]]
    """Class tokens of the blocks before each block that the head reads, see `HookedViT.forward`."""
    logits: Float[Tensor, "columns"]


class PatchRuns:
    """Runs of one model while its weights do not change; the last few photos and activations are cached."""

    def __init__(self, model: HookedViT) -> None:
        self.model = model
        self._fingerprint = ""
        self._plain: OrderedDict[int, tuple[Photo, PlainRun]] = OrderedDict()
        self._sources: OrderedDict[Hashable, ActivationStore] = OrderedDict()

    @torch.no_grad()
    def logits(self, settings: PatchSettings, photos: Sequence[Photo], row: int) -> tuple[Logits, list[Patch]]:
        """The effect of a patch, and the patches themselves: none if no token is chosen.

        Args:
            settings: Settings of the patch.
            photos: Photos from which means, noise and other photos' activations are taken.
            row: Index of the photo that gets another one's activations.

        Raises:
            InputError: the patch does not fit the model, cannot change the logits, or needs more photos.
        """
        self._forget_if_changed()
        source, receiver = self._plain_run(settings.source).logits, self._plain_run(settings.target)
        if settings.is_empty(self.model):
            return Logits(receiver.logits, receiver.logits, source), []
        patches = [settings.patch(self.model, self._source(settings, photos, row))]
        held = settings.held_tokens(self.model)
        if held:
            own = self._recorded([settings.target], "resid_pre", None)
            patches.insert(0, Patch("resid_pre", tokens=held, source=own))
        known: dict[int, Any] = {
            id(patch.source): {} for patch in patches
        }  # recorded from this model, see `_fingerprint`
        made = [edit for patch in patches for edit in edits(self.model, patch, 1, known)]
        first = max(0, min(site.block(self.model.n_layers) for site, _ in made))
        return Logits(receiver.logits, self._run(settings.target, receiver, first, made), source), patches

    def _plain_run(self, photo: Photo) -> PlainRun:
        key = id(photo)
        if key not in self._plain:
            self._plain[key] = photo, _plain_run(self.model, photo.x)
        self._plain.move_to_end(key)
        while len(self._plain) > KEPT_RUNS:
            self._plain.popitem(last=False)
        return self._plain[key][1]

    def _run(self, photo: Photo, plain: PlainRun, first: int, made: list[tuple[Any, Edit]]) -> Tensor:
        """Patched logits; blocks before the first patched one are reused from the clean run."""
        before = any(site.block(self.model.n_layers) < 0 for site, _ in made)
        start = None if before else first
        given = photo.x if before else plain.streams[first]
        tokens = [] if before else plain.class_tokens[first]
        return _patched_run(self.model, given, start, tokens, made)

    def _source(self, settings: PatchSettings, photos: Sequence[Photo], row: int) -> ActivationStore | float:
        put_in, name, layers = settings.put_in, settings.point.name, settings.layer_range
        if put_in == "zero":
            return 0.0
        if put_in == SOURCE:
            return self._recorded([settings.source], name, layers)
        if len(photos) == 1 and put_in in ("mean", "shuffled"):
            missing = "the mean over photos" if put_in == "mean" else "another photo's activations"
            raise InputError(
                f"{put_in!r} inserts {missing}, but there is one photo. Add a photo, or choose 'token_mean' (the mean "
                "over its own tokens) or 'noise' (with their standard deviation)."
            )
        made = {
            "mean": lambda store: store.mean(),
            "token_mean": lambda store: store.mean(over=("image", "token")),
            "shuffled": lambda store: store.shuffled(seed=0)[row],
            "noise": lambda store: store.noise(seed=0)[0],
        }[put_in]
        which = row if put_in == "shuffled" else 0
        key = (put_in, which, *map(id, photos), name, layers)
        return self._kept(key, lambda: made(self._record(photos, name, layers)))

    def _recorded(self, photos: Sequence[Photo], name: str, layers: range | None) -> ActivationStore:
        """Activations of photos: of all layers if they are small, so that other layers need no further run."""
        if layers is not None:
            shapes = {site.hook: self.model.activation_shape(site.hook) for site in self.model.find(name)}
            if bytes_per_image(shapes, self.model.dtype) * len(photos) <= KEPT_BYTES // 4:
                layers = None
        return self._kept((*map(id, photos), name, layers), lambda: self._record(photos, name, layers))

    def _record(self, photos: Sequence[Photo], name: str, layers: range | None) -> ActivationStore:
        images = torch.cat([photo.x for photo in photos])
        return self.model.record(images, name, layers=layers, device=self.model.device, progress=False)

    def _kept(self, key: Hashable, make: Any) -> ActivationStore:
        if key not in self._sources:
            self._sources[key] = make()
        self._sources.move_to_end(key)
        while len(self._sources) > 1 and sum(store.nbytes for store in self._sources.values()) > KEPT_BYTES:
            self._sources.popitem(last=False)
        return self._sources[key]

    def _forget_if_changed(self) -> None:
        """Clear the cached runs if the model's weights have changed."""
        fingerprint = self.model.fingerprint
        if fingerprint != self._fingerprint:
            self._plain.clear()
            self._sources.clear()
            self._fingerprint = fingerprint


@runs_model
def _plain_run(model: HookedViT, x: Float[Tensor, "1 3 height width"]) -> PlainRun:
    streams = [model.embed(x)]
    collected: list[list[Tensor]] = [[]]
    for layer in range(model.n_layers):
        stream, tokens = model.run_blocks(streams[-1], [layer], collected[-1])
        streams.append(stream)
        collected.append(tokens)
    return PlainRun(streams, collected, model.unembed(streams[-1], collected[-1])[0].float().cpu())


@runs_model
def _patched_run(
    model: HookedViT, given: Tensor, start: int | None, class_tokens: list[Tensor], made: list[tuple[Any, Edit]]
) -> Float[Tensor, "columns"]:
    with model.hooks(fwd_hooks=[(site.hook, edit) for site, edit in made]):
        return model(given, start_at_layer=start, class_tokens=class_tokens)[0].float().cpu()
