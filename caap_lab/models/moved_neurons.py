"""Neurons of an MLP that act on an added token in the place of all others: test-time registers (arXiv 2506.08010)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_some_rows: ContextVar[bool] = ContextVar("some_rows", default=False)


@contextmanager
def some_rows() -> Iterator[None]:
    """While rows of other runs, and not one run's tokens, go through MLPs: the added token is not among them."""
    token = _some_rows.set(True)
    try:
        yield
    finally:
        _some_rows.reset(token)


class MoveNeurons(nn.Module):
    """A step of an MLP behind which some neurons are 0 at all tokens but one, which gets their extreme over patches."""

    neurons: Int[Tensor, " neuron"]
    signs: Float[Tensor, " neuron"]

    def __init__(self, step: nn.Module, signs: Mapping[int, int], to: int, like: Tensor) -> None:
        """Put it in the place of a step.

        Args:
            step: The step that it follows.
            signs: Neuron to 1, where its maximum moves, or -1, where its minimum does.
            to: The token that gets it, the last prefix token.
            like: A tensor on the model's device, in its number format.
        """
        super().__init__()
        self.step = step
        self.to_token = to
        self.register_buffer("neurons", torch.tensor(list(signs), device=like.device, dtype=torch.int64))
        self.register_buffer("signs", torch.tensor(list(signs.values()), device=like.device, dtype=like.dtype))

    def forward(self, x: Float[Tensor, "batch token d_mlp"]) -> Float[Tensor, "batch token d_mlp"]:
        """The step's output, moved."""
        post = self.step(x)
        moved = post.clone()
        moved[..., self.neurons] = 0
        if not _some_rows.get():
            signs = self.signs.to(post.dtype)
            # With the token's own, as what earlier neurons wrote into it makes later ones active there.
            found = post[:, self.to_token :, self.neurons] * signs
            moved[:, self.to_token, self.neurons] = found.amax(dim=1) * signs
        return moved


def move_neurons(vit: Any, neurons: Mapping[int, Mapping[int, int]]) -> None:
    """Move neurons of some layers to the last prefix token of a timm model, which is changed.

    They move where the MLP drops neurons in training: hook point "pre" is before that, "post" behind it.

    Args:
        vit: A timm model with a token for them; see `caap_lab.models.extra_tokens`.
        neurons: Layer to neurons, with the signs of their activation.
    """
    like = next(vit.parameters())
    for layer, signs in neurons.items():
        mlp = vit.blocks[layer].mlp
        mlp.drop1 = MoveNeurons(mlp.drop1, signs, int(vit.num_prefix_tokens) - 1, like)
