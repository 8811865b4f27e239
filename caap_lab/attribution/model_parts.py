"""The smallest parts of a model, to which backward rules apply, and tests of parts without a rule."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import DropPath, LayerScale, PatchDropout
from torch import Tensor, nn

from caap_lab.digests.structure import is_replaced
from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.head_results import NORMS as NORMS

LINEAR = (nn.Linear, nn.Conv2d)
SILENT = (nn.Identity, nn.Dropout, nn.Flatten, DropPath, PatchDropout, LayerScale)
"""Parts that in evaluation mode do nothing or only scale."""
ACTIVATIONS = ("GELU", "GELUTanh", "QuickGELU", "QuickGELUJit", "SiLU", "Swish", "SwishMe", "ReLU")
"""Class names of activation functions x g(x) with a gate g."""
_LIBRARIES = ("torch.nn.modules.activation", "timm.layers.activations", "timm.layers.activations_me")


def parts(model: HookedModel) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every smallest part, in the order of the model's modules; each module once.

    The modules of timm's models and `nn.Sequential` are split into their submodules. Any other module is one part,
    because what it does with its submodules is not known.
    """
    seen: set[int] = {id(model.body)}
    for name, module in model.body.named_children():
        yield from _inside(f"{model.kind}.{name}", module, model.containers, seen)
    head = getattr(model, "head", None)
    if head is not None:
        yield from _inside("head", head, model.containers, seen)


def _inside(
    name: str, module: nn.Module, containers: Sequence[type[nn.Module]], seen: set[int]
) -> Iterator[tuple[str, nn.Module]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    if not isinstance(module, (nn.ModuleList, nn.ModuleDict)) and not runs_as(module, containers):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _inside(f"{name}.{child_name}", child, containers, seen)


def runs_as(module: nn.Module, kinds: Sequence[type[nn.Module]]) -> bool:
    """True if a module's forward is that of one of these classes, also with weights under `torch.nn.utils`."""
    return not is_replaced(module) and any(type(module).forward is kind.forward for kind in kinds)


def is_activation(module: nn.Module) -> bool:
    """True for the activation functions of torch and timm, and for those with the class name of a known one."""
    return type(module).__name__ in ACTIVATIONS or type(module).__module__ in _LIBRARIES


def no_rule(method: str, name: str, module: nn.Module) -> InputError:
    """The error for a part without a rule."""
    return InputError(
        f"{method} has no rule for {type(module).__name__} in {name}, which is not linear in its input. Build it from "
        "linear layers, norms and known activation functions in nn.Sequential, or use another method."
    )


def constant_part(method: str, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
    """f(0) of a part f without a rule, as [1, ...]: its additive constant, whatever its parameters are called.

    Raises:
        InputError: input times gradient is not f(x) - f(0), as it is for linear maps, for f(cx) = c f(x), and for parts
            with their own backward rule.
    """
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        raise no_rule(method, name, module)
    generator = torch.Generator(device="cpu").manual_seed(0)
    with torch.inference_mode(False), torch.enable_grad():
        x = inputs[0][:1].detach().clone().requires_grad_()
        y = module.forward(x)
        constant = module.forward(torch.zeros_like(x)).detach()
        changed = y.detach() - constant
        for _ in range(3):  # a single direction might hide a difference by chance
            drawn = torch.randn(y.shape, generator=generator, dtype=torch.float32, device="cpu").to(y)
            gradient = torch.autograd.grad(y, x, drawn, retain_graph=True, allow_unused=True)[0] if y.grad_fn else None
            given = 0.0 if gradient is None else float((x.detach() * gradient).sum())
            tolerance = torch.finfo(y.dtype).eps ** 0.5 * float(changed.norm())
            if abs(given - float((drawn * changed).sum())) > tolerance:
                raise no_rule(method, name, module)
    return constant


@torch.no_grad()
def matrix_of(method: str, name: str, module: nn.Module, x: Float[Tensor, "*batch d_in"]) -> Tensor:
    """The matrix [d_out, d_in] by which a part multiplies each of its inputs x, before it adds a constant.

    The weight of a linear layer; for any other module, such as one with adapters, its effect on a basis.

    Raises:
        InputError: the part is not linear in its input.
    """
    if runs_as(module, (nn.Linear,)):
        return module.weight  # type: ignore[return-value]
    own = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), x)
    basis = torch.eye(x.shape[-1], device=x.device, dtype=own.dtype).reshape(*[1] * (x.ndim - 2), -1, x.shape[-1])
    constant = module.forward(torch.zeros_like(basis))
    matrix = (module.forward(basis) - constant).flatten(0, -2).mT
    expected = x.to(own.dtype) @ matrix.mT + constant.flatten(0, -2)[0]
    found = module.forward(x.to(own.dtype))
    if (found - expected).norm() > torch.finfo(own.dtype).eps ** 0.5 * found.norm():
        raise no_rule(method, name, module)
    return matrix
