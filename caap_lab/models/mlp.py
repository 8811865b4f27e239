"""timm's MLPs, run through hook points: plain, or gated as act(pre) * pre_linear."""

from typing import Any

from jaxtyping import Float
from timm.layers import GluMlp, Mlp, SwiGLU
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.models.width import output_width

MLPS = (Mlp, GluMlp, SwiGLU)
"""timm's classes that `run_mlp` supports."""


class MlpPoints(nn.Module):
    """Hook points inside the MLP; for a gated MLP, `hook_pre_linear` is the linear branch."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.hook_pre = HookPoint()
        if gated:
            self.hook_pre_linear = HookPoint()
        self.hook_post = HookPoint()


def run_mlp(
    mlp: nn.Module, points: MlpPoints, x: Float[Tensor, "batch token d_model"]
) -> Float[Tensor, "batch token d_model"]:
    """The output of an MLP, run in timm's order."""
    if isinstance(mlp, Mlp):
        post = mlp.act(points.hook_pre(mlp.fc1(x)))
    else:
        if isinstance(mlp, GluMlp):
            first, second = mlp.fc1(x).chunk(2, dim=-1)
            pre, linear = (second, first) if mlp.gate_last else (first, second)
        else:
            assert isinstance(mlp, SwiGLU)
            pre, linear = mlp.fc1_g(x), mlp.fc1_x(x)
        post = mlp.act(points.hook_pre(pre)) * points.hook_pre_linear(linear)
    return mlp.drop2(mlp.fc2(mlp.norm(points.hook_post(mlp.drop1(post)))))


def mlp_width(mlp: Any, d_model: int, like: Tensor) -> int:
    """Hidden width of an MLP, measured because a layer may have been replaced.

    Args:
        mlp: One of `MLPS`.
        d_model: Number of inputs of its first layer.
        like: A tensor on the model's device, in its number format.
    """
    first = mlp.fc1_x if isinstance(mlp, SwiGLU) else mlp.fc1
    width = (
        first.weight.shape[0]
        if type(first) is nn.Linear
        else output_width([first], d_model, like, "first layer of the MLP")
    )
    return width // 2 if isinstance(mlp, GluMlp) else width
