"""Activation patching and recording beside plain hooks, nnsight, TransformerLens and TorchLens."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import caap_lab as cl
from benchmarks.peers_job import PEERS, TARGET, Calls, Job, build, inputs, largest_difference

IMAGES = 16
"""Images that are recorded, in one batch."""


def jobs() -> list[Job]:
    """All of them."""
    sweeps = {"plain hooks": sweep_hooks, "nnsight": sweep_nnsight, "TransformerLens": sweep_transformer_lens}
    records = {"plain hooks": record_hooks, "nnsight": record_nnsight, "TorchLens": record_torchlens}
    return [Job("sweep", PEERS[peer], "ViT-tiny, 64 px", prepare) for peer, prepare in sweeps.items()] + [
        Job("record", PEERS[peer], "ViT-tiny, 224 px", prepare) for peer, prepare in records.items()
    ]


def sweep_hooks(name: str) -> Calls:
    """A patch of every block and token, by forward hooks of torch."""
    vit, model, (clean, corrupted) = _pair(name)

    @torch.no_grad()
    def peer() -> Tensor:
        states = _entering(vit, clean)
        grid = torch.zeros(model.n_layers, model.spec.n_tokens, dtype=torch.float32, device="cpu")
        for layer, token in _cells(grid):

            def restore(module: Any, given: Any, layer: int = layer, token: int = token) -> Any:
                resid = given[0].clone()
                resid[:, token] = states[layer][:, token]
                return (resid,)

            handle = vit.blocks[layer].register_forward_pre_hook(restore)
            grid[layer, token] = vit(corrupted)[0, TARGET]
            handle.remove()
        return grid

    return Calls(_sweep(model, clean, corrupted), peer, largest_difference)


def sweep_nnsight(name: str) -> Calls:
    """The same in nnsight, one trace per cell."""
    from nnsight import NNsight

    _, model, (clean, corrupted) = _pair(name)
    traced = NNsight(build(name))  # a model of its own, as it replaces `forward`

    @torch.no_grad()
    def peer() -> Tensor:
        with traced.trace(clean):
            states: Any = list().save()  # type: ignore[attr-defined]  # nnsight gives it to all objects
            for block in traced.blocks:
                states.append(block.input.clone())
        grid = torch.zeros(model.n_layers, model.spec.n_tokens, dtype=torch.float32, device="cpu")
        for layer, token in _cells(grid):
            with traced.trace(corrupted):
                traced.blocks[layer].input[:, token] = states[layer][:, token]
                score = traced.output[0, TARGET].save()
            grid[layer, token] = score
        return grid

    return Calls(_sweep(model, clean, corrupted), peer, largest_difference)


def sweep_transformer_lens(name: str) -> Calls:
    """The same in TransformerLens, on Hugging Face's ViT of the same size in both tools."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    from transformers import ViTConfig, ViTForImageClassification

    vit = inputs(name)[1].spec
    config = ViTConfig(
        num_hidden_layers=vit.n_layers,
        num_labels=10,
        image_size=vit.image_size[0],
        hidden_size=vit.d_model,
        num_attention_heads=vit.n_heads,
        intermediate_size=vit.d_mlp,
        architectures=["ViTForImageClassification"],
    )
    torch.manual_seed(0)
    own = ViTForImageClassification(config).eval()
    other = ViTForImageClassification(config).eval()
    other.load_state_dict(own.state_dict())
    model = cl.wrap(own, preprocessing=cl.Preprocessing(vit.image_size, (0.5,) * 3, (0.5,) * 3))
    assert isinstance(model, cl.HookedViT)
    bridge = build_bridge_from_module(other, architecture="ViTForImageClassification", hf_config=config, tokenizer=None)
    clean, corrupted = _images(model)

    @torch.no_grad()
    def peer() -> Tensor:
        _, cache = bridge.run_with_cache(clean)

        def restore(resid: Tensor, hook: Any, token: int) -> Tensor:
            resid = resid.clone()
            resid[:, token] = cache[hook.name][:, token]
            return resid

        grid = torch.zeros(model.n_layers, model.spec.n_tokens, dtype=torch.float32, device="cpu")
        for layer, token in _cells(grid):
            hook = (f"blocks.{layer}.hook_resid_pre", partial(restore, token=token))
            out: Any = bridge.run_with_hooks(corrupted, fwd_hooks=[hook])
            grid[layer, token] = getattr(out, "logits", out)[0, TARGET]
        return grid

    return Calls(_sweep(model, clean, corrupted), peer, largest_difference)


def record_hooks(name: str) -> Calls:
    """The residual streams leaving all blocks, by forward hooks of torch."""
    vit, model, images = inputs(name, IMAGES)
    return Calls(_record(model, images), lambda: _leaving(vit, images), _streams_differ)


def record_nnsight(name: str) -> Calls:
    """The same in nnsight."""
    from nnsight import NNsight

    _, model, images = inputs(name, IMAGES)
    traced = NNsight(build(name))

    @torch.no_grad()
    def peer() -> Any:
        with traced.trace(images):
            states: Any = list().save()  # type: ignore[attr-defined]  # nnsight gives it to all objects
            for block in traced.blocks:
                states.append(block.output)
        return states

    return Calls(_record(model, images), peer, _streams_differ)


def record_torchlens(name: str) -> Calls:
    """The same in TorchLens."""
    import torchlens
    from torchlens.backends.torch.wrappers import unwrap_torch

    vit, model, images = build(name), *inputs(name, IMAGES)[1:]
    blocks = [f"blocks.{layer}" for layer in range(model.n_layers)]

    @torch.no_grad()
    def peer() -> Any:
        return list(torchlens.extract(vit, images, blocks).values())

    return Calls(_record(model, images), peer, _streams_differ, after_theirs=unwrap_torch)


def _pair(name: str) -> tuple[Any, cl.HookedViT, tuple[Tensor, Tensor]]:
    vit, model, images = inputs(name, 2)
    return vit, model, (images[:1], images[1:])


def _images(model: cl.HookedViT) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device="cpu").manual_seed(1)
    clean, corrupted = torch.randn(2, 1, 3, *model.image_size, generator=generator, dtype=torch.float32)
    return clean, corrupted


def _cells(grid: Tensor) -> list[tuple[int, int]]:
    return [(layer, token) for layer in range(grid.shape[0]) for token in range(grid.shape[1])]


@torch.no_grad()
def _entering(vit: Any, images: Tensor) -> list[Tensor]:
    """What enters each block, kept by plain hooks."""
    kept: list[Tensor] = []
    handles = [block.register_forward_pre_hook(lambda module, given: kept.append(given[0])) for block in vit.blocks]
    vit(images)
    for handle in handles:
        handle.remove()
    return kept


@torch.no_grad()
def _leaving(vit: Any, images: Tensor) -> list[Tensor]:
    """What leaves each block."""
    kept: list[Tensor] = []
    handles = [block.register_forward_hook(lambda module, given, out: kept.append(out)) for block in vit.blocks]
    vit(images)
    for handle in handles:
        handle.remove()
    return kept


def _sweep(model: cl.HookedViT, clean: Tensor, corrupted: Tensor) -> Callable[[], Tensor]:
    def ours() -> Tensor:
        source = model.record(clean, "resid_pre", progress=False)
        grid = cl.sweep(
            model,
            corrupted,
            lambda layer, token: cl.Patch("resid_pre", layer, tokens=[token], source=source),
            over={"layer": range(model.n_layers), "token": range(model.spec.n_tokens)},
            metric=TARGET,
            progress=False,
        )
        return torch.as_tensor(grid.values[0])

    return ours


def _record(model: cl.HookedViT, images: Tensor) -> Callable[[], Any]:
    return lambda: model.record(images, "resid_post", batch_size=IMAGES, progress=False)


def _streams_differ(store: cl.ActivationStore, theirs: Any) -> float:
    return max(largest_difference(store["resid_post", layer], state) for layer, state in enumerate(theirs))
