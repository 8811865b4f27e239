"""Trained sparse autoencoders of a model's activations: load them, compute their features, patch along one."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caap_lab.activations.directions import DirectionEdit
from caap_lab.activations.store import ActivationStore
from caap_lab.checks import check_count, is_number, is_whole
from caap_lab.errors import InputError
from caap_lab.mechanisms.sae_files import LinearAutoencoder, read_sae
from caap_lab.mechanisms.sparse_features import SparseFeatures, read_features
from caap_lab.models.device_dtype import widened

_NUMBERS_AT_ONCE = 2**25
"""Number of features of tokens that are computed at once."""
Function = Callable[[Tensor], Any]


class SparseAutoencoder:
    """A trained sparse autoencoder: activations x as features f = encode(x), mostly 0, and back.

    ```python
    sae = cl.SparseAutoencoder.load("sae.pt")
    store = model.record(photos, "resid_pre", layers=8)
    features = sae.features(store, "resid_pre", 8)
    features.top(model, photos, 123).plot()                    # photos and patches where feature 123 is strongest
    model.run_patched(photos, cl.Patch("resid_pre", 8, source=sae.ablate(123)))
    ```

    Files do not contain the model, layer and hook point of the training, nor how inputs were preprocessed.
    `features.explained` shows whether they fit: the fraction of the activations' variance that is reconstructed.
    """

    width: int
    """Number of values of an activation."""
    n_features: int
    """Number of features."""
    name: str
    """Its name in results."""

    def __init__(
        self,
        encode: Function,
        decode: Function,
        module: nn.Module | None,
        *,
        width: int,
        name: str,
        mean: Float[Tensor, " width"] | None = None,
        scale: float = 1.0,
    ) -> None:
        """Use `load` or `of`."""
        check_count("width", width)
        if not is_number(scale) or not isfinite(scale) or scale <= 0:
            raise InputError(f"scale={scale!r} must be a number above 0.")
        if mean is not None and (not isinstance(mean, Tensor) or mean.shape != (width,)):
            given = list(mean.shape) if isinstance(mean, Tensor) else type(mean).__name__
            raise InputError(f"mean must be a tensor of {width} values, not {given}.")
        if module is not None and any(part.training for part in module.modules()):
            raise InputError("The autoencoder is in training mode, where some depend on the batch; call .eval() first.")
        self._encode, self._decode, self._module = encode, decode, module
        self._mean, self._scale = mean, float(scale)
        self.width, self.name = int(width), name
        self.n_features = self._probe()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        activation: str | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
        normalisation: str = "l2",
        subtract_bias: bool | None = None,
        mean: Float[Tensor, " width"] | None = None,
        scale: float = 1.0,
    ) -> "SparseAutoencoder":
        """Read a file of saev (up to its schema 5) or of overcomplete (0.3); code in it is never run.

        saev's files contain all settings. BatchTopK uses its stored threshold, as in saev's evaluation mode; files of
        versions without a stored threshold keep the top k of each token.

        overcomplete does not have a file format: the result of `torch.save(sae.state_dict(), "sae.pt")`, or the same as
        safetensors, can be read for encoders of one linear layer with or without a norm, and ordinary or relaxed
        archetypal dictionaries. A complete model pickled by torch.save raises an error. Settings that a state_dict does
        not contain have to be given as arguments.

        Args:
            path: The file: .pt, .pth or .safetensors.
            activation: For overcomplete's files: "relu" (SAE), "topk" (TopKSAE), "jumprelu" (JumpSAE, recognised by its
                thresholds) or "batchtopk" (BatchTopKSAE).
            top_k: With "topk", the number of features of a token.
            threshold: With "batchtopk", the trained model's running_threshold.
            normalisation: For overcomplete's dictionary: "l2" (its default), "max_l2", "l1", "max_l1" or "identity".
            subtract_bias: For saev's files: subtract the decoder's bias from the input, as saev's first versions did.
                None does so for files without a schema, which these versions wrote; some files of schema 1 need it,
                too.
            mean: Vector that was subtracted from the activations before training, if any.
            scale: Number by which they were then divided.

        Raises:
            CheckpointError: not such a file, damaged, or with Python objects in it.
            InputError: a setting that the file does not contain is missing.
        """
        module = read_sae(
            path,
            activation=activation,
            top_k=top_k,
            threshold=threshold,
            normalisation=normalisation,
            subtract_bias=subtract_bias,
        )
        module.eval()
        return cls(module.encode, module.decode, module, width=module.width, name=module.kind, mean=mean, scale=scale)

    @classmethod
    def of(
        cls,
        encode: nn.Module | Function,
        decode: Function | None = None,
        *,
        width: int,
        name: str = "",
        mean: Float[Tensor, " width"] | None = None,
        scale: float = 1.0,
    ) -> "SparseAutoencoder":
        """An autoencoder from any encoder and decoder: two functions of rows, or a module with `.encode` and `.decode`.

        They map [row, width] to [row, feature] and back. If `encode` returns several values, as in saev and
        overcomplete, the last is the features. Rows must not depend on each other.

        Args:
            encode: The module, or the encoder.
            decode: The decoder; omit it for a module.
            width: Number of values of an activation.
            name: Its name in results.
            mean: Vector that is subtracted from activations before they are encoded.
            scale: Number by which they are then divided.

        Raises:
            InputError: a module is in training mode, or the functions do not fit.
        """
        module = encode if isinstance(encode, nn.Module) else None
        own = name or getattr(encode, "__name__", type(encode).__name__)
        functions: tuple[Any, Any] = (encode, decode)
        if decode is None:
            functions = (getattr(encode, "encode", None), getattr(encode, "decode", None))
        if not all(map(callable, functions)):
            raise InputError(
                "Give an encoder and a decoder of rows [row, width], or a module with .encode and .decode."
            )
        return cls(*functions, module, width=width, name=own, mean=mean, scale=scale)

    def to(self, place: str | torch.device | torch.dtype) -> "SparseAutoencoder":
        """Move it to a device, or to a number format; returns itself. Two functions are not changed."""
        if self._module is not None:
            self._module.to(place)
        return self

    def encode(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch feature"]:
        """Features of activations."""
        if x.shape[-1] != self.width:
            raise InputError(f"This autoencoder reads {self.width} values; these activations have {x.shape[-1]}.")
        rows = self._own(x.reshape(-1, self.width))
        if self._mean is not None:
            rows = rows - self._mean.to(rows)
        return _last(self._encode(rows / self._scale)).reshape(*x.shape[:-1], -1)

    def decode(self, features: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch width"]:
        """Activations reconstructed from features."""
        rows = _last(self._decode(features.reshape(-1, features.shape[-1])))
        if rows.ndim == 3:  # saev's nested reconstructions; the last one uses all features
            rows = rows[:, -1]
        rows = rows * self._scale
        return (rows if self._mean is None else rows + self._mean.to(rows)).reshape(*features.shape[:-1], -1)

    def features(
        self,
        store: ActivationStore,
        name: str,
        layer: int | None = None,
        *,
        keep: int = 64,
        batch_size: int = 32,
        progress: bool = True,
    ) -> SparseFeatures:
        """Features of all tokens of a store; only the strongest of each token are stored.

        Args:
            store: Recorded activations; a store on disk is read a few images at a time.
            name: Hook name in the store, such as "resid_pre".
            layer: Its layer.
            keep: Number of features stored per token, which limits memory; `dropped` is the fraction that this omits.
            batch_size: Images read at once.
            progress: Show a progress bar for more than one batch.

        Raises:
            InputError: the store has no such activations, or their width is different.
        """
        return read_features(self, store, name, layer, keep=keep, batch_size=batch_size, progress=progress)

    # -- sources of patches ----------------------------------------------------------------------------------------

    def ablate(self, feature: int) -> DirectionEdit:
        """A source for patches that sets one feature to 0; see `set`."""
        return self.set(feature, 0.0)

    def set(self, feature: int, value: float) -> DirectionEdit:
        """A source for patches that sets one feature of each token to a value: x + decode(f') - decode(f).

        The other features, and the part of x that the autoencoder does not reconstruct, are unchanged. With a linear
        decoder this is x + (f'_i - f_i) d_i, where d_i is the feature's direction.
        """
        return _FeatureEdit((), self, self._checked(feature), 0.0, _number("value", value))

    def scale(self, feature: int, factor: float) -> DirectionEdit:
        """A source for patches that multiplies one feature of each token by a factor; see `set`."""
        return _FeatureEdit((), self, self._checked(feature), _number("factor", factor), 0.0)

    def __repr__(self) -> str:
        """Sizes."""
        return f"SparseAutoencoder({self.name}: {self.n_features:,} features of {self.width} values)"

    def in_pieces(self, rows: Float[Tensor, "row width"]) -> tuple[Tensor, ...]:
        """Rows in pieces small enough that all their features fit into memory."""
        return rows.split(max(1, _NUMBERS_AT_ONCE // self.n_features))

    def _own(self, rows: Tensor) -> Tensor:
        """Rows on the device and in the number format of the autoencoder."""
        if self._module is not None:
            for tensor in (*self._module.parameters(), *self._module.buffers()):
                if tensor.is_floating_point():
                    return rows.to(tensor)
        return widened(rows)

    def _probe(self) -> int:
        """The number of features.

        Raises:
            InputError: the encoder or the decoder does not fit, or rows depend on each other.
        """
        generator = torch.Generator(device="cpu").manual_seed(0)
        rows = torch.randn(3, self.width, generator=generator, dtype=torch.float32, device="cpu")
        with torch.no_grad():
            features = self.encode(rows)
            back = self.decode(features)
            alone = torch.cat([self.encode(row[None]) for row in rows])
        if features.ndim != 2 or back.shape != rows.shape:
            raise InputError(
                f"The encoder returns {list(features.shape)} for [3, {self.width}] activations, and the decoder "
                f"{list(back.shape)}; [3, feature] and [3, {self.width}] are expected."
            )
        if not torch.allclose(alone, features, rtol=1e-3, atol=1e-4 * float(features.abs().max())):
            raise InputError("The encoder's features of a token depend on other tokens, which is not supported.")
        return int(features.shape[-1])

    def _checked(self, feature: int) -> int:
        if not is_whole(feature) or not 0 <= feature < self.n_features:
            raise InputError(f"Feature {feature!r} does not exist: there are features 0 to {self.n_features - 1}.")
        return int(feature)


@dataclass(frozen=True, eq=False)
class _FeatureEdit(DirectionEdit):
    """One feature f becomes factor * f + value."""

    sae: SparseAutoencoder
    feature: int
    factor: float
    value: float

    @property
    def replacement(self) -> str:
        change = f"times {self.factor:g}" if self.factor else f"set to {self.value:g}"
        return f"feature {self.feature} of {self.sae.name} {change}"

    def check(self, name: str, shape: tuple[int, ...], batch: int) -> None:
        if shape[-1] != self.sae.width:
            raise InputError(
                f"The autoencoder reads {self.sae.width} values, and {name} has activations of {list(shape)}."
            )

    def __call__(self, activation: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        pieces = self.sae.in_pieces(activation.reshape(-1, self.sae.width))
        change = torch.cat([self._change(piece) for piece in pieces])
        return activation + change.to(activation).reshape(activation.shape)

    def _change(self, rows: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
        features = self.sae.encode(rows)
        before = features[:, self.feature]
        after = self.factor * before + self.value
        module = self.sae._module
        if isinstance(module, LinearAutoencoder):
            return self.sae._scale * (after - before)[:, None] * module.dictionary[self.feature]
        changed = features.clone()
        changed[:, self.feature] = after
        return self.sae.decode(changed) - self.sae.decode(features)


def _last(given: Any) -> Tensor:
    """The last of several values that an encoder returns."""
    return given[-1] if isinstance(given, (tuple, list)) else given


def _number(name: str, value: float) -> float:
    if not is_number(value) or not isfinite(value):
        raise InputError(f"{name}={value!r} must be a number.")
    return float(value)
