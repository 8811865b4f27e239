"""Completeness of gradient times input: whether it sums to the logit at every block, with the biases' part."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.biases import read_biases
from caap_lab.models.base import HookedModel, Images, check_kind
from caap_lab.models.batches import batches, check_images
from caap_lab.models.device_dtype import exact
from caap_lab.models.explained import explained, predicted_targets
from caap_lab.models.pass_meter import images_shown
from caap_lab.models.running import check_gradients, runs_model
from caap_lab.models.targets import Target, TargetLike, Targets
from caap_lab.models.vit import HookedViT


@runs_model
def completeness_error(
    model: HookedModel,
    images: Images,
    target: TargetLike | Sequence[TargetLike] | None = None,
    *,
    progress: bool = True,
) -> Float[Tensor, "image layer"]:
    """How far gradient times input, with the biases' part, is from the target's value (LibraGrad, Mehri et al. 2025).

    ```python
    error = cl.completeness_error(model, image, 4)    # [image, block]
    with cl.libragrad(model):
        cl.completeness_error(model, image, 4)        # close to 0
    ```

    For every block l this is `|sum_{t,d} h^l_{t,d} dy/dh^l_{t,d} + sum_b <b, dy/db> - y| / |y|`, where y is the
    target's value, h^l the residual stream entering block l, and b every bias from block l on. Within `libragrad` it
    is near zero; with plain gradients it is not. One forward and one backward pass per image, and one more forward
    pass if no target is given.

    Args:
        model: A Vision Transformer or a Mixer.
        images: One image, or several.
        target: One for all images, or one per image; see `caap_lab.models.targets.TargetLike`; None for the model's own
            prediction. The value of a function of the logits is complete only if the function is linear.
        progress: Show a progress bar, for one image if it takes more than a second.

    Returns:
        Relative errors, on the CPU. If the head reads class tokens of several blocks (a DINOv2 head of four), only
        layers up to the first of these: later streams do not contain everything that the head reads.
    """
    check_kind(model, "completeness_error", ("vit", "mixer"))
    check_gradients(model, "completeness_error")
    singles = check_images(images)
    wanted: Sequence[Target | None] = [None] * len(singles)
    if target is not None:
        model, wanted = explained(model, target, len(singles))
    found = []
    with images_shown("completeness", len(singles), 1, progress, passes=1.0 if target is not None else 2.0) as bar:
        for image, one in zip(batches(model, singles, 1), wanted, strict=True):
            found.append(_errors(model, image, one))
            bar.update()
    return torch.stack(found)


def _errors(
    model: HookedModel, image: Float[Tensor, "1 3 height width"], target: Target | None
) -> Float[Tensor, " block"]:
    if target is None:
        with torch.no_grad():
            (target,) = predicted_targets(model, model(image))
    logits, streams, biases = read_biases(model, image, Targets((target,)))
    logit = float(target.value(logits)[0])
    shares = [(term.block, float(exact(term.products).sum())) for term in biases]
    whole = model.n_layers - (model.class_layers - 1 if isinstance(model, HookedViT) else 0)
    sums = [
        float(exact(products).sum()) + sum(share for block, share in shares if block >= layer)
        for layer, products in enumerate(streams[:whole])
    ]
    errors = (torch.tensor(sums, dtype=torch.float64, device="cpu") - logit).abs() / abs(logit)
    return errors.float()
