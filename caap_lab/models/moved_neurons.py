"""Neurons of an MLP moved from all other tokens to an added one: test-time registers (arXiv 2506.08010)."""

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
    """Context for MLPs that run on rows of other runs, not on all tokens of one: the added token is not among them."""
    token = _some_rows.set(True)
    try:
        yield
    finally:
        _some_rows.reset(token)


class MoveNeurons(nn.Module):
    """A step of an MLP after which some neurons are 0 at all tokens but one, which gets their extreme over patches."""

    neurons: Int[Tensor, " neuron"]
    signs: Float[Tensor, " neuron"]

    def __init__(self, step: nn.Module, signs: Mapping[int, int], to: int, like: Tensor) -> None:
        """Replace a step of an MLP.

        Args:
            step: The step after which neurons move.
            signs: For each neuron 1 if its maximum moves, or -1 if its minimum does.
            to: The token that gets it: the last prefix token.
            like: A tensor on the model's device, in its number format.
        """
        super().__init__()
        self.step = step
        self.to_token = to
        self.register_buffer("neurons", torch.tensor(list(signs), device=like.device, dtype=torch.int64))
        self.register_buffer("signs", torch.tensor(list(signs.values()), device=like.device, dtype=like.dtype))

    def forward(self, x: Float[Tensor, "batch token d_mlp"]) -> Float[Tensor, "batch token d_mlp"]:
        """The step's output after moving the neurons."""
        post = self.step(x)
        moved = post.clone()
        moved[..., self.neurons] = 0
        if not _some_rows.get():
            signs = self.signs.to(post.dtype)
            # Including the token itself, because what earlier neurons wrote into it activates later ones there.
            found = post[:, self.to_token :, self.neurons] * signs
            moved[:, self.to_token, self.neurons] = found.amax(dim=1) * signs
        return moved


def move_neurons(vit: Any, neurons: Mapping[int, Mapping[int, int]]) -> None:
    """Move neurons of some layers to the last prefix token of a timm model, which is changed.

    They move at the MLP's dropout: hook point "pre" is before it, "post" after it.

    Args:
        vit: A timm model with an added token; see `caap_lab.models.extra_tokens`.
        neurons: Neurons by layer, with the signs of their activations.
    """
    like = next(vit.parameters())
    for layer, signs in neurons.items():
        mlp = vit.blocks[layer].mlp
        mlp.drop1 = MoveNeurons(mlp.drop1, signs, int(vit.num_prefix_tokens) - 1, like)
