"""The score of a target as a linear function of the final residual stream, for each image separately."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caap_lab.errors import InputError
from caap_lab.mechanisms.frozen import Added, frozen_scales
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Targets
from caap_lab.models.vit import HookedViT


@dataclass(frozen=True)
class LinearReadout:
    """value = <stream, residual stream> + sum <class token, its stream> + constants, with the scales of each image."""

    value: Float[Tensor, " batch"]
    stream: Float[Tensor, "batch token d_model"]
    """Gradient of the score with respect to the stream after the last block."""
    class_tokens: list[Float[Tensor, "batch d_model"]]
    """The same for class tokens that leave blocks before the last, if the head reads them, oldest first."""
    constants: dict[str, Float[Tensor, " batch"]]
    """Terms that do not come from the stream: biases, by module, and the MLP of a head with attention pooling."""

    def weights(self, model: HookedViT, layer: int, rows: Sequence[int]) -> Float[Tensor, "batch row d_model"]:
        """Change of the score per unit of a vector added to the stream in a block (-1: before all) at some tokens.

        The vector counts in the last block's stream, and in each class token that leaves that block or a later one.
        """
        weights = self.stream[:, list(rows)]
        first = model.n_layers - 1 - len(self.class_tokens)
        later = [weight for place, weight in enumerate(self.class_tokens) if first + place >= layer]
        if later:
            weights[:, rows.index(0)] += torch.stack(later).sum(dim=0)  # indexed by a list: a copy
        return weights


def read_linearly(
    model: HookedViT,
    resid: Float[Tensor, "batch token d_model"],
    class_tokens: Sequence[Float[Tensor, "batch d_model"]],
    several: Sequence[Targets],
) -> list[LinearReadout]:
    """One linear readout for each of several targets.

    Args:
        model: The model.
        resid: The stream after the last block.
        class_tokens: Class tokens of blocks before it that the head reads.
        several: Targets of the images.

    Raises:
        InputError: the head, or a target, is not linear.
    """
    added: list[Added] = []
    with torch.enable_grad(), frozen_scales(model, added):
        streams = [x.detach().clone().requires_grad_() for x in (resid, *class_tokens)]
        logits = model.unembed(streams[0], streams[1:])
        noted = [step for step in added if step.output.requires_grad]
        return [_read(logits, targets, streams, noted) for targets in several]


def _read(logits: Tensor, targets: Targets, streams: list[Tensor], added: list[Added]) -> LinearReadout:
    value = targets.value(logits)
    outputs = [step.output for step in added]
    gradients = torch.autograd.grad(value.sum(), [*streams, *outputs], retain_graph=True, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else g for x, g in zip((*streams, *outputs), gradients, strict=True)]
    (stream, *class_tokens), places = found[: len(streams)], found[len(streams) :]
    constants: dict[str, Tensor] = {}
    for step, gradient in zip(added, places, strict=True):
        if gradient.any():  # queries and keys of a pooling have no gradient
            share = (gradient * step.constant).flatten(1).sum(dim=1)
            constants[step.name] = constants.get(step.name, 0) + share
    offset = _offset(targets, logits)
    if offset is not None:
        constants["the target's own constant"] = offset
    score = value.detach().to(logits.dtype)  # rounded as the parts that add up to it
    return LinearReadout(score, stream, class_tokens, {name: x.detach() for name, x in constants.items()})


def _offset(targets: Targets, logits: Tensor) -> Float[Tensor, " batch"] | None:
    """Values of functions among the targets for logits of zero, checked to be linear; None if there are none."""
    functions = [target for target in targets if callable(target.given)]
    if not functions:
        return None
    wide = widened(logits.detach()).requires_grad_()
    offset = targets.value(torch.zeros_like(wide)).detach()
    (slope,) = torch.autograd.grad(targets.value(wide).sum(), wide)
    generator = torch.Generator(device="cpu").manual_seed(0)
    for _ in range(3):
        drawn = torch.randn(logits.shape, generator=generator, dtype=torch.float32, device="cpu").to(slope)
        gained = targets.value(drawn).detach() - offset
        if not torch.allclose(gained, (slope * drawn).sum(1), rtol=1e-3, atol=1e-3 * float(drawn.abs().max())):
            raise InputError(
                f"{functions[0].name} is not linear in the logits, so the score cannot be split into the contributions "
                "of the model's parts. Use a class, cl.contrast(...), cl.direction(...), or a weighted sum of "
                "logits."
            )
    return offset if offset.any() else None
