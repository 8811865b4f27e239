"""Neutral contexts: the blank run into which patches are inserted (paper Fig. 4)."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from caap_lab.blur import rise_blur
from caap_lab.digests.tensors import tensor_digest
from caap_lab.errors import InputError
from caap_lab.models.attention import Attention
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.batches import batches, check_images, is_single
from caap_lab.models.device_dtype import exact, widened
from caap_lab.models.vit import HookedViT

__all__ = ["BLANKS", "blank_image", "mean_activations"]
IMAGE_BLANKS = ("white", "black", "mean", "noise", "blurred_noise")
BLANKS = (*IMAGE_BLANKS, "zero_activations")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
NOISE_MEAN, NOISE_STD = 0.5, 0.25
_KEPT_RUNS = 4


def __dir__() -> list[str]:
    """Names for completion: only what users pass to `caap`."""
    return __all__


@dataclass(frozen=True, eq=False)
class MeanActivations:
    """A blank whose patch tokens are, at every layer and position, the mean residual stream of some images."""

    images: Images
    batch_size: int = 32
    _means: dict[tuple[Any, ...], list[Tensor]] = field(default_factory=dict, repr=False)
    """Cached here, because running the images again costs much more than the blank run."""

    def content(self) -> bytes:
        """A hash of the images; for a file, of its path, size and modification time."""
        digest = hashlib.blake2b(digest_size=16)
        for image in check_images(self.images):
            if isinstance(image, (str, Path)):
                status = Path(image).stat()
                digest.update(f"{Path(image).resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
            elif isinstance(image, Tensor):
                digest.update(tensor_digest(image).encode())
            else:
                pixels = np.asarray(image)
                mode = getattr(image, "mode", "")
                digest.update(f"{pixels.shape} {pixels.dtype} {mode}\n".encode() + pixels.tobytes())
        return digest.digest()


def mean_activations(images: Images, batch_size: int = 32) -> MeanActivations:
    """A blank that consists of the mean activations over images, for `blank=...` of `caap`.

    ```python
    m = cl.caap(model, image, blank=cl.blanks.mean_activations(images))
    ```
    """
    return MeanActivations(images, batch_size)


Blank = str | MeanActivations | Any
"""A name from `BLANKS`, `mean_activations(images)`, or the caller's own image."""


@dataclass(eq=False)
class BlankRun:
    """A model's run on a blank, shared by all images.

    Values derived from the residual streams (q, k, v and E-CAAP's background terms) are computed when first used.
    """

    model: HookedViT
    label: str
    fingerprint: str
    """Fingerprint of the model at the time of the run."""
    resid: list[Float[Tensor, "token d_model"]]
    """Residual stream entering block l, for l = 0 to n_layers; the last one leaves the last block."""
    _qkv: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _background_terms: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    row_terms: dict[Hashable, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, repr=False)
    """Background terms of the rows of complete images, for `attend`."""

    @property
    def background(self) -> slice:
        """Tokens that keep the blank's activations: all after the live prefix tokens (set B of the paper)."""
        return slice(len(self.model.spec.live_prefix), None)

    def attention(self, layer: int) -> Attention:
        """Attention of a block."""
        return self.model.architecture.block(layer).attention

    def tokens(self, chosen: slice = slice(None)) -> Int[Tensor, " token"]:
        """Token numbers, of all tokens or of some."""
        return torch.arange(self.model.spec.n_tokens, device=self.resid[0].device)[chosen]

    def class_tokens(self, stop: int) -> list[Float[Tensor, "1 d_model"]]:
        """Class tokens leaving blocks before `stop`, if the head reads them."""
        _, collected = self.model.run_blocks(
            self.resid[0],
            range(stop),
            step=lambda layer, _: self.resid[layer + 1],
            class_token=lambda resid: resid[:1],
        )
        return collected

    @torch.no_grad()
    def qkv(
        self, layer: int
    ) -> tuple[
        Float[Tensor, "head token d_head"], Float[Tensor, "head token d_head"], Float[Tensor, "head token d_head"]
    ]:
        """Queries, keys and values of the blank run."""
        if layer not in self._qkv:
            block = self.model.architecture.block(layer)
            q, k, v = block.attention.project_qkv(block.norm1(self.resid[layer][None]))
            self._qkv[layer] = (q[0].contiguous(), k[0].contiguous(), v[0].contiguous())
        return self._qkv[layer]

    @torch.no_grad()
    def background_terms(self, layer: int) -> tuple[Float[Tensor, "head token"], Float[Tensor, "head token d_head"]]:
        """Log-normaliser and mean value of the background for the blank's own query at every position.

        Paper eqs 8 and 9: log Z_B and vbar_B, here for each token's query and not only the class token's.
        """
        if layer not in self._background_terms:
            q, k, v = self.qkv(layer)
            background = self.background
            scores = self.attention(layer).scores(q, k[:, background], None, self.tokens(background))
            scores = widened(scores)
            pattern = scores.softmax(dim=-1).to(v.dtype)
            self._background_terms[layer] = (scores.logsumexp(dim=-1), pattern @ v[:, background])
        return self._background_terms[layer]


def check_blank(blank: Blank) -> None:
    """Raise InputError for an invalid blank, before any work."""
    if isinstance(blank, str) and blank not in BLANKS and "." not in blank and "/" not in blank:
        raise InputError(
            f"There is no blank {blank!r}; there are {', '.join(BLANKS)}, cl.blanks.mean_activations(images), "
            "or any image."
        )
    if not isinstance(blank, (str, MeanActivations)) and not is_single(blank):
        raise InputError("A blank is one image, not several.")


@torch.no_grad()
def blank_run(model: HookedViT, blank: Blank, seed: int = 0) -> BlankRun:
    """The model's run on a blank; the most recent ones are cached with the model until its weights change.

    Args:
        model: The model.
        blank: A name, mean activations, or an image.
        seed: Seed of the noise blanks.
    """
    check_blank(blank)
    runs = model.kept_runs
    content: Hashable
    if isinstance(blank, str) and blank in BLANKS:
        # With the preprocessing these identify it, without reading pixels from a GPU.
        content = (blank, seed if "noise" in blank else 0, model.n_classes == 1000)
    elif isinstance(blank, MeanActivations):
        content = blank.content()
    else:
        content = _digest(model.preprocess(blank))
    fingerprint = model.fingerprint
    # A blank of activations starts from a black image, which depends on the normalisation.
    key = (content, fingerprint, model.device, model.dtype, model.preprocessing)
    if key not in runs:
        image = blank_image(model, blank, seed)
        if image is not None:
            resid = _run_image(model, image)
        elif isinstance(blank, MeanActivations):
            resid = _run_activations(model, _mean_resid(model, blank))
        else:
            resid = _run_activations(model, [torch.zeros_like(r) for r in _run_image(model, black_image(model))])
        label = blank_label(blank, torch.stack(resid) if image is None else image)
        runs[key] = BlankRun(model, label, fingerprint, resid)
    runs.move_to_end(key)
    while len(runs) > _KEPT_RUNS:
        runs.popitem(last=False)
    return runs[key]


def blank_name(model: HookedViT, blank: Blank, seed: int = 0) -> str:
    """Name of a blank in results, as in `blank_run`, but without a run if the blank is an image."""
    if isinstance(blank, MeanActivations):
        return blank_run(model, blank, seed).label
    return blank_label(blank, blank_image(model, blank, seed))


def blank_label(blank: Blank, content: Tensor | None) -> str:
    """Name of a blank in results; the caller's own blanks are distinguished by their content."""
    if isinstance(blank, str) and blank in BLANKS:
        return blank
    assert content is not None
    kind = "mean_activations" if isinstance(blank, MeanActivations) else "image"
    return f"{kind} {_digest(content).hex()[:8]}"


def blank_image(model: HookedModel, blank: Blank, seed: int = 0) -> Float[Tensor, "1 3 height width"] | None:
    """The blank as the model's input, or None for a blank that consists of activations.

    ```python
    white = cl.blanks.blank_image(model, "white")    # [1, 3, height, width]
    ```

    White and black are pixel values 1 and 0; mean is the ImageNet mean for ImageNet models and the model's own
    normalisation mean for others; noise is N(0.5, 0.25^2) for each pixel and channel, clipped to [0, 1]; blurred noise
    is white plus N(0, 0.25^2), clipped, then blurred by RISE's kernel (the paper does not give its parameters).
    """
    if isinstance(blank, MeanActivations) or (isinstance(blank, str) and blank == "zero_activations"):
        return None
    if not (isinstance(blank, str) and blank in IMAGE_BLANKS):
        return model.preprocess(blank)
    if blank in ("white", "black"):
        return _pixels(model, 1.0 if blank == "white" else 0.0)
    if blank == "mean":
        mean = IMAGENET_MEAN if model.n_classes == 1000 else model.preprocessing.mean
        return _pixels(model, torch.tensor(mean, dtype=torch.float32, device="cpu").view(3, 1, 1))
    generator = torch.Generator(device="cpu").manual_seed(seed)
    noise = torch.randn(3, *model.image_size, generator=generator, dtype=torch.float32, device="cpu") * NOISE_STD
    if blank == "noise":
        return _pixels(model, (NOISE_MEAN + noise).clamp(0, 1))
    return rise_blur(_pixels(model, (1.0 + noise).clamp(0, 1)))


def _digest(tensor: Tensor) -> bytes:
    return hashlib.blake2b(tensor.detach().cpu().float().numpy().tobytes()).digest()


def black_image(model: HookedModel) -> Float[Tensor, "1 3 height width"]:
    """A black image as the model's input."""
    return _pixels(model, 0.0)


def _pixels(model: HookedModel, values: float | Tensor) -> Float[Tensor, "1 3 height width"]:
    pixels = torch.ones(3, *model.image_size, dtype=torch.float32, device="cpu") * values
    mean, std = (
        torch.tensor(v, dtype=torch.float32, device="cpu").view(3, 1, 1)
        for v in (model.preprocessing.mean, model.preprocessing.std)
    )
    return ((pixels - mean) / std)[None].to(model.device, model.dtype)


def _run_image(model: HookedViT, image: Float[Tensor, "1 3 height width"]) -> list[Float[Tensor, "token d_model"]]:
    resid = [model.embed(image)]
    for layer in range(model.spec.n_layers):
        resid.append(model.run_block(layer, resid[-1]))
    return [r[0] for r in resid]


def _run_activations(
    model: HookedViT, table: list[Float[Tensor, "token d_model"]]
) -> list[Float[Tensor, "token d_model"]]:
    """A run whose patch tokens are fixed to `table` at every layer while the prefix tokens evolve."""
    first = model.spec.n_prefix
    resid = model.embed(black_image(model))
    kept = []
    for layer, activations in enumerate(table):
        resid = torch.cat([resid[:, :first], activations[None, first:].to(resid)], dim=1)
        kept.append(resid[0])
        if layer < model.spec.n_layers:
            resid = model.run_block(layer, resid)
    return kept


def _mean_resid(model: HookedViT, blank: MeanActivations) -> list[Float[Tensor, "token d_model"]]:
    key = (blank.content(), model.fingerprint, model.device, model.dtype, model.preprocessing)
    if key in blank._means:
        return blank._means[key]
    total: list[Tensor] = []
    count = 0
    for batch in batches(model, blank.images, blank.batch_size):
        resid = model.embed(batch)
        sums = [exact(resid).sum(dim=0)]
        for layer in range(model.spec.n_layers):
            resid = model.run_block(layer, resid)
            sums.append(exact(resid).sum(dim=0))
        total = [a + b for a, b in zip(total, sums, strict=True)] if total else sums
        count += len(batch)
    blank._means[key] = [t / count for t in total]
    return blank._means[key]
