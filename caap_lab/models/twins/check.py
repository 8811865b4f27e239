"""Check on a random batch that a twin computes the same as the original."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caap_lab.errors import InputError
from caap_lab.models.products import products
from caap_lab.models.twins.blueprint import Blueprint, Outputs

LIMIT = 1e-4
"""Largest accepted difference, relative to the largest value."""
_BATCH = 2


def check_same(original: nn.Module, plain: nn.Module, blueprint: Blueprint, twin: nn.Module) -> None:
    """Run both on a random batch, and compare their results and the outputs of each block.

    The blocks are compared too, because a classifier of zeros would hide everything before it.

    Args:
        original: The original, in float32 or float64; it is temporarily set to evaluation mode.
        plain: The same, or its copy with merged adapters from which the twin was made: merging may change the result.
        blueprint: The blueprint of the twin.
        twin: The timm model.

    Raises:
        InputError: the original does not run, or a difference is above `LIMIT`; the largest is named.
    """
    model: Any = twin
    example = next(twin.parameters())
    shape = (_BATCH, model.in_chans, *model.patch_embed.img_size)
    # from a separate generator, so that the user's random numbers do not change
    generator = torch.Generator(device="cpu").manual_seed(0)
    drawn = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    images = drawn.to(example.device, example.dtype)
    with _evaluating(original), _plain_arithmetic(example.device):
        names = {id(part): name for name, part in plain.named_modules()}
        blocks = [original.get_submodule(names[id(block)]) for block in blueprint.blocks]
        with _outputs_of(blocks) as expected:
            try:
                outputs = blueprint.run(original, images)
            except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
                raise InputError(
                    f"{type(original).__name__} does not run on images of {list(shape[2:])} pixels: {error}"
                ) from error
        with _outputs_of(list(model.blocks)) as given:
            tokens = model.forward_features(images)
        what = f"the vector of {'class scores' if blueprint.n_classes else 'features'}"
        result, wanted = _results(model, blueprint, tokens, outputs)
    if len(expected) != len(given):
        raise InputError(
            f"This {type(original).__name__} has {len(given)} blocks, but {len(expected)} were run: its forward is not "
            "that of transformers or torchvision."
        )
    differences = {
        f"what leaves block {index}": _relative(*pair) for index, pair in enumerate(zip(given, expected, strict=True))
    }
    differences[what] = _relative(result, wanted)
    worst = max(differences, key=lambda what: differences[what])
    if differences[worst] > LIMIT:
        first = next(what for what, value in differences.items() if value > LIMIT)
        raise InputError(
            f"The timm model made from this {type(original).__name__} does not match the original: on a random batch "
            f"{worst} differs by {differences[worst]:.2g} of the largest value, where {LIMIT:g} is allowed; the "
            f"first difference is in {first}. The original was changed, or computes something that timm's "
            f"{type(twin).__name__} does not."
        )


def _results(model: Any, blueprint: Blueprint, tokens: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
    """The twin's result and the expected result."""
    if blueprint.head is None:
        result = model.forward_head(tokens)
    else:
        head: Any = blueprint.head
        result = head(head.pool(tokens, [], model.num_prefix_tokens))
    if outputs.result is not None:
        return result, outputs.result
    assert outputs.tokens is not None
    return result, model.forward_head(outputs.tokens)  # only timm's pooling, as there is no classifier


def _relative(given: Float[Tensor, "*shape"], expected: Float[Tensor, "*shape"]) -> float:
    if given.shape != expected.shape:
        return float("inf")
    difference, largest = (given - expected).abs().max().item(), expected.abs().max().item()
    if difference == 0:
        return 0.0
    return difference / largest if difference < float("inf") and largest else float("inf")


@contextmanager
def _outputs_of(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Context that collects the outputs of some blocks while the model runs, in order; a reused block several times."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in dict.fromkeys(blocks)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Context with a model in evaluation mode; afterwards each submodule is in its previous mode again."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def _plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Context without autocast and without reduced precision for float32 products."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False), products():
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
