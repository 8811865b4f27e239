"""What Quantus (Hedström et al. 2023, JMLR 24) takes: the arguments of its metrics' call, made of a model and a method.

Nothing of Quantus is imported here: its metrics are called with arrays and functions.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from caap_lab.attribution.enlarge import MODES, enlarged
from caap_lab.attribution.map import AttributionMap
from caap_lab.checks import check_choice, check_count
from caap_lab.errors import InputError
from caap_lab.metrics.method_runs import MethodRuns, from_zero
from caap_lab.models.base import KINDS, HookedModel, Images, check_kind
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Contrast, Logit, TargetLike
from caap_lab.variant import Variant

Maps = Float[np.ndarray, "image 1 height width"]


class QuantusInputs(TypedDict):
    """Arguments of any Quantus metric: `metric(**inputs)`."""

    model: nn.Module
    x_batch: Float[np.ndarray, "image 3 height width"]
    """The model's input, channels first."""
    y_batch: Int[np.ndarray, " image"]
    """The explained class of each image."""
    a_batch: Maps
    """Scores of pixels, in one channel."""
    explain_func: Callable[..., Maps]
    """(model, inputs, targets) -> maps, which Quantus calls for noisy images and random models."""
    channel_first: bool
    device: str


@runs_model
def quantus_inputs(
    model: HookedModel,
    images: Images,
    method: str | Variant = "caap",
    target: TargetLike | Sequence[TargetLike] | None = None,
    *,
    upsampling: str = "bilinear",
    batch_size: int | None = None,
) -> QuantusInputs:
    """The arguments with which Quantus's metrics judge a method's maps: `metric(**cl.quantus_inputs(model, images))`.

    ```python
    inputs = cl.quantus_inputs(model, image, "caap:cutoff=3")
    # quantus.Sparseness()(**inputs), quantus.MaxSensitivity(nr_samples=5)(**inputs): pip install 'caap_lab[quantus]'
    inputs["a_batch"].shape    # (1, 1, 64, 64): scores of pixels
    ```

    Where 0 means something to a metric it has to be there: scores whose level means nothing (CAAP's) are counted from
    each map's lowest one. All other scores are the method's own. Quantus by itself divides them by the largest of the
    batch, and some of its metrics take their sizes: `normalise=False, abs=False` keeps them. It reads logits or
    probabilities as the metric's `softmax=` says, also of models that explain a class by its contrast to all.

    Args:
        model: The model; in float32, which is what Quantus runs.
        images: One image, or several.
        method: A name as `cl.attribute` takes it, with options: "caap:cutoff=3".
        target: A class for all images, or one each; by default the model's own prediction. Quantus knows classes alone.
        upsampling: From the map's grid to pixels: "bilinear", "nearest-exact" or "bicubic".
        batch_size: Images run at once; by default the method's own choice. It changes no result.

    Returns:
        A dictionary with model, x_batch, y_batch, a_batch, explain_func, channel_first and device. Metrics of
        localisation take masks besides: `s_batch`, as [image, 1, height, width].

    Raises:
        InputError: something given does not fit, before anything runs.
    """
    check_kind(model, "quantus_inputs", tuple(KINDS))
    check_choice("upsampling", upsampling, tuple(MODES))
    if not isinstance(method, (str, Variant)):
        raise InputError(f"method={method!r} is not one method, such as 'caap' or 'caap:cutoff=3'.")
    if batch_size is not None:
        check_count("batch_size", batch_size)
    if model.dtype != torch.float32:
        raise InputError(f"Quantus runs models in float32, and {model.model_name} is in {model.dtype}: model.float().")
    runs = MethodRuns.of(model, images, method, target)
    (label,) = runs.methods
    for one in runs.targets:
        if not isinstance(one.given, (int, Logit, Contrast)) or (
            isinstance(one.given, Contrast) and one.given.against is not None
        ):
            raise InputError(f"Quantus's metrics read the score of one class, and the target is {one.name}.")
    contrasts = [isinstance(one.given, Contrast) for one in runs.targets]
    if len(set(contrasts)) > 1:
        raise InputError("Some targets are classes and some are contrasts; give one kind for all images.")

    def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> Maps:
        """Maps of the method, as Quantus asks for them."""
        if not isinstance(model, HookedModel):
            raise InputError(f"Quantus gave a {type(model).__name__} to explain, not the hooked model or a copy of it.")
        x = torch.as_tensor(np.asarray(inputs), dtype=torch.float32, device="cpu")
        classes = [int(one) for one in np.asarray(targets).reshape(-1)]
        given = [Contrast(one) if contrasts[0] else Logit(one) for one in classes]
        return pixels(runs.maps(model, label, list(x), given, batch_size), upsampling)

    given = [runs.given(image) for image in range(len(runs))]
    return {
        "model": model,
        "x_batch": runs.inputs.cpu().numpy(),
        "y_batch": np.array([one.index for one in runs.targets], dtype=np.int64),
        "a_batch": pixels(runs.maps(model, label, list(runs.inputs), given, batch_size), upsampling),
        "explain_func": explain,
        "channel_first": True,
        "device": str(model.device),
    }


def pixels(maps: Sequence[AttributionMap], upsampling: str) -> Maps:
    """Scores of pixels in one channel, with 0 where there is no evidence; see `from_zero`."""
    size = (maps[0].image.shape[0], maps[0].image.shape[1])
    return np.stack([enlarged(from_zero(m), size, upsampling).numpy()[None] for m in maps])
