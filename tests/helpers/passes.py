"""Counts what a method makes a model do."""

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from caap_lab.models.base import HookedModel


class Passes(TorchFunctionMode):
    """Counts forward and backward passes while it is entered.

    On a ViT or Mixer forward passes are tokens in all blocks' MLPs, as shares of a whole pass; on a CNN they are images
    that enter its head. Backward passes are gradients out of the head. Layers are known by the shapes of their
    weights: methods may run a copy of the model, and a changed one is another model.
    """

    def __init__(self, model: HookedModel) -> None:
        super().__init__()
        self.forwards, self.backwards = 0.0, 0
        parameters = dict(model.named_parameters())
        body = f"{model.kind}."
        self._head = next(
            parameters[body + name].shape
            for name in ("head.weight", "fc.weight", "classifier.weight", "head.fc.weight")
            if body + name in parameters
        )
        self._mlp: torch.Size | None = None
        self._tokens = 1
        if model.kind == "vit":
            self._mlp = parameters["vit.blocks.0.mlp.fc2.weight"].shape
            self._tokens = model.n_layers * model.spec.n_tokens  # type: ignore[attr-defined]
        elif model.kind == "mixer":
            self._mlp = parameters["mixer.blocks.0.mlp_channels.fc2.weight"].shape
            self._tokens = model.n_layers * model.grid[0] * model.grid[1]

    def __torch_function__(self, function: Any, types: Any, inputs: Any = (), options: Any = None) -> Any:
        output = function(*inputs, **(options or {}))
        if function is nn.functional.linear:
            weight = inputs[1] if len(inputs) > 1 else options["weight"]
            shape = weight.shape if isinstance(weight, nn.Parameter) else None  # rules of relevance make others of it
            if shape == self._mlp:
                self.forwards += output.shape[:-1].numel() / self._tokens
            elif shape == self._head:
                self.forwards += len(output) if self._mlp is None else 0
                if output.requires_grad:
                    output.register_hook(self._gradient)
        return output

    def _gradient(self, gradient: torch.Tensor) -> None:
        self.backwards += len(gradient)
