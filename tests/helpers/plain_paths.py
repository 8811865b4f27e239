"""Path patching by its four runs in full, with plain torch hooks on timm's own modules."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from caap_lab import HookedViT


def logits_of(model: HookedViT, images: Tensor) -> Tensor:
    """Logits by timm's own forward methods; DINOv2's linear heads by their formula."""
    vit: Any = model.vit
    if model.head is None:
        return vit(images)
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        for block in vit.blocks:
            stack.callback(block.register_forward_hook(lambda _, __, out: outputs.append(out)).remove)
        normalized = vit.forward_features(images)
    earlier = outputs[-model.class_layers : -1] if model.class_layers > 1 else []
    parts = [vit.norm(out)[:, 0] for out in earlier]
    patches = normalized[:, vit.num_prefix_tokens :].mean(1)
    return model.head(torch.cat([*parts, normalized[:, 0], patches], dim=1))


def _heads(block: Any) -> Any:
    """The module that gets all heads' outputs, one after the other."""
    return getattr(block.attn, "norm", block.attn.proj)


def _projections(block: Any, part: str) -> tuple[Any, int]:
    """The layer that makes queries, keys or values, and how many such parts stand before it in its output."""
    if getattr(block.attn, "qkv", None) is not None:
        return block.attn.qkv, "qkv".index(part)
    return getattr(block.attn, f"{part}_proj"), 0


class FourRuns:
    """Effects of single paths between two batches of images."""

    def __init__(self, model: HookedViT, base: Tensor, other: Tensor, tokens: list[int] | None = None) -> None:
        self.model, self.base, self.other = model, base, other
        self.vit: Any = model.vit
        self.d = model.spec.d_head
        self.tokens = slice(None) if tokens is None else tokens
        with torch.no_grad():
            self.base_logits, self.of_base = self._recorded(base)
            _, self.of_other = self._recorded(other)

    def _recorded(self, images: Tensor) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
        kept: dict[tuple[str, int], Tensor] = {}
        with ExitStack() as stack:
            for layer, block in enumerate(self.vit.blocks):
                for name, module in (("attn", block.attn), ("mlp", block.mlp)):

                    def out(_: Any, __: Any, output: Tensor, key: Any = (name, layer)) -> None:
                        kept[key] = output

                    stack.callback(module.register_forward_hook(out).remove)

                def z(_: Any, args: Any, key: Any = ("z", layer)) -> None:
                    kept[key] = args[0]

                stack.callback(_heads(block).register_forward_pre_hook(z).remove)

            def entering(_: Any, args: Any) -> None:
                kept["embed", 0] = args[0]

            stack.callback(self.vit.blocks[0].register_forward_pre_hook(entering).remove)
            return logits_of(self.model, images), kept

    def _mixed(self, live: Tensor, new: Tensor) -> Tensor:
        mixed = live.clone()
        mixed[:, self.tokens] = new[:, self.tokens]
        return mixed

    @contextmanager
    def _third(self, sender: tuple) -> Iterator[None]:
        """All attention outputs and MLPs are the base run's, and the sender is the other run's."""
        kind, *where = sender
        with ExitStack() as stack:
            for layer, block in enumerate(self.vit.blocks):
                for name, module in (("attn", block.attn), ("mlp", block.mlp)):
                    if (kind, where[:1]) == ("head", [layer]) and name == "attn":
                        continue
                    source = self.of_other if (kind, where) == (name, [layer]) else self.of_base
                    value = self._mixed(self.of_base[name, layer], source[name, layer])
                    stack.callback(module.register_forward_hook(lambda *_, value=value: value).remove)
            if kind == "head":
                layer, head = where
                block = self.vit.blocks[layer]
                part = slice(head * self.d, (head + 1) * self.d)

                def patched(_: Any, args: Any) -> Any:
                    new = args[0].clone()
                    new[:, :, part] = self.of_other["z", layer][:, :, part]
                    return (new, *args[1:])

                def passing(_: Any, __: Any, output: Tensor) -> Tensor:
                    return self._mixed(self.of_base["attn", layer], output)

                stack.callback(_heads(block).register_forward_pre_hook(patched).remove)
                stack.callback(block.attn.register_forward_hook(passing).remove)
            if kind == "embed":
                value = self._mixed(self.of_base["embed", 0], self.of_other["embed", 0])

                def enter(_: Any, args: Any) -> Any:
                    return (value, *args[1:])

                stack.callback(self.vit.blocks[0].register_forward_pre_hook(enter).remove)
            yield

    def _receiver(self, receiver: tuple) -> tuple[Any, slice]:
        """The module whose output is recorded and replaced, and which of its channels."""
        kind, layer, *rest = receiver
        block = self.vit.blocks[layer]
        if kind != "head":
            return getattr(block, kind), slice(None)
        head, part = rest
        module, before = _projections(block, part)
        first = (before * self.model.spec.n_heads + head) * self.d
        return module, slice(first, first + self.d)

    @torch.no_grad()
    def logits(self, sender: tuple, receivers: list[tuple]) -> Tensor:
        """Logits of the fourth run for ("head", 0, 1), ("mlp", 1), ("attn", 1) or ("embed",) as sender.

        Receivers are ("head", 3, 1, "q"), ("mlp", 2), ("attn", 2), or alone ("logits",); several are replaced jointly.
        """
        if receivers == [("logits",)]:
            with self._third(sender):
                return logits_of(self.model, self.base)
        recorded: list[tuple[Any, slice, Tensor]] = []
        with ExitStack() as stack:
            for receiver in receivers:
                module, channels = self._receiver(receiver)

                def record(_: Any, __: Any, output: Tensor, module: Any = module, channels: slice = channels) -> None:
                    recorded.append((module, channels, output[..., channels].clone()))

                stack.callback(module.register_forward_hook(record).remove)  # before its output is frozen
            stack.enter_context(self._third(sender))
            logits_of(self.model, self.base)
        with ExitStack() as stack:
            for module, channels, value in recorded:

                def replace(
                    _: Any, __: Any, output: Tensor, channels: slice = channels, value: Tensor = value
                ) -> Tensor:
                    new = output.clone()
                    new[..., channels] = self._mixed(new[..., channels], value)
                    return new

                stack.callback(module.register_forward_hook(replace).remove)
            return logits_of(self.model, self.base)
