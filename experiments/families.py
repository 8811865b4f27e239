"""What works for each supported kind of timm's Vision Transformers, on small models with random weights.

    python -m experiments.families --out docs/tables/families.md

Prints Markdown, one row per kind. Each is built by one of timm's own names with all its switches, at a small size and
on a grid that is not square. "logits" says whether they equal timm's bit by bit, with the fused kernel and with the
explicit softmax. "hook points" counts those whose change affects the logits. "CAAP" is the largest difference, relative
to the largest score, between its maps (free and clamped, in float64) and one patched forward pass of timm's model for
each patch, written with plain forward hooks. "completeness" is LibraGrad's largest error over the blocks. "methods"
counts the attribution methods whose map is finite and not zero everywhere.
"""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.attribution.completeness import completeness_error
from caap_lab.attribution.registry import METHODS
from caap_lab.models.base import HookedModel
from caap_lab.models.supported import VITS, Kind, names_by_kind

DEPTH, CUTOFF, CLASS = 3, 2, 1
SIZES = ("tiny", "xsmall", "small", "medium", "base", "so", "large", "huge", "giant")
NARROW: dict[str, Any] = {"embed_dim": 48, "num_heads": 4}
KEYS: dict[str, Any] = {"num_kv_heads": 2}
QUICK: dict[str, dict[str, Any]] = {
    "rise": {"samples": 50},
    "tis": {"clusters": 10},
    "mda": {"steps": 4},
    "tam": {"steps": 4},
    "smoothgrad": {"samples": 4},
    "integrated_gradients": {"steps": 8},
}


@dataclass(frozen=True)
class Row:
    """Results of one kind."""

    kind: Kind
    n_names: int
    name: str
    logits: str
    hook_points: str
    caap: float
    completeness: float
    methods: str
    refused: tuple[str, ...]


def small_model(name: str) -> nn.Module:
    """A model of timm with all its switches, at a small size and with weights that make every part matter."""
    torch.manual_seed(0)
    stem = "_hybrid" in timm.model_entrypoint(name).__module__
    narrow = {} if stem else NARROW | (KEYS if "sapiens" in name else {})
    with torch.device("meta"):
        embed: Any = timm.create_model(name, depth=1, **narrow).patch_embed
    stride = embed.feat_ratio(as_scalar=False)
    size: dict[str, Any] = {"img_size": (4 * stride[0], 3 * stride[1]), "depth": DEPTH, "num_classes": 7}
    model = timm.create_model(name, **size, **narrow).eval()
    with torch.no_grad():
        for part, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            if weight.ndim > 1 and "embed" not in part and "token" not in part:
                weight.copy_(noise * 1.5 / weight[0].numel() ** 0.5)
            else:
                weight.add_(noise * 0.2)
    return model


def equal_logits(model: cl.HookedViT, images: Float[Tensor, "batch 3 height width"]) -> str:
    """Whether logits are timm's, bit by bit, in both of its attention modes."""
    words = []
    switches = [module for module in model.vit.modules() if hasattr(module, "fused_attn")]
    kept = [module.fused_attn for module in switches]
    for word, fused in (("fused", True), ("explicit", False)):
        for module in switches:
            module.fused_attn = fused
        with torch.no_grad():
            same = torch.equal(model(images), model.vit(images))
        words.append(word if same else f"not {word}")
    for module, fused in zip(switches, kept, strict=True):
        module.fused_attn = fused
    return "equal" if words == ["fused", "explicit"] else ", ".join(words)


def moving_points(model: cl.HookedViT, image: Float[Tensor, "1 3 height width"]) -> str:
    """Number of hook points that affect the logits, and of all, as text."""
    names = [name for name in model.hook_dict if name != "hook_logits"]
    store = model.record(image, names, progress=False)
    plain = model(image)
    moved = 0
    for name in names:
        noise = torch.randn(store[name].shape, generator=torch.Generator().manual_seed(1), dtype=store[name].dtype)
        moved += int((model.run_patched(image, cl.Patch(name, source=store[name] + noise)) - plain).abs().max() > 1e-7)
    return f"{moved} of {len(names)}"


def plain_scores(model: cl.HookedViT, image: Float[Tensor, "1 3 height width"], clamped: bool) -> Tensor:
    """CAAP by its definition: hooks on timm's blocks insert the rows of the source and the blank, patch by patch."""
    spec, vit = model.spec, model.vit
    mean, std = (torch.tensor(values) for values in (model.preprocessing.mean, model.preprocessing.std))
    canvas = ((1 - mean) / std)[None, :, None, None].expand_as(image).to(image)  # white, in float32 as images are
    source, ground = _streams(vit, image), _streams(vit, canvas)
    rows, cols = spec.grid
    scores = []
    for row in range(rows):
        for col in range(cols):
            near = [
                spec.n_prefix + r * cols + c
                for r in range(max(0, row - 1), min(rows, row + 2))
                for c in range(max(0, col - 1), min(cols, col + 2))
            ]
            others = [t for t in range(spec.n_tokens) if t not in {*near, *spec.live_prefix}]

            def edit(layer: int, x: Tensor, near: list[int] = near, others: list[int] = others) -> Tensor:
                x = x.clone()
                if clamped and others:
                    x[:, others] = ground[layer][:, others]
                if layer < CUTOFF:
                    x[:, near] = source[layer][:, near]
                return x

            with ExitStack() as stack:
                for layer, block in enumerate(vit.blocks):
                    hook = block.register_forward_pre_hook(
                        lambda module, args, layer=layer, edit=edit: (edit(layer, args[0]), *args[1:])
                    )
                    stack.callback(hook.remove)
                last = vit.blocks[-1].register_forward_hook(
                    lambda module, args, out, edit=edit: edit(DEPTH, out) if spec.reads_patches else None
                )
                stack.callback(last.remove)
                scores.append(vit(canvas)[0])
    return torch.stack(scores).view(rows, cols, -1)


def _streams(vit: Any, image: Tensor) -> list[Tensor]:
    """The residual stream before each block, and after the last."""
    streams: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda module, args: streams.append(args[0])) for block in vit.blocks]
    hooks.append(vit.blocks[-1].register_forward_hook(lambda module, args, out: streams.append(out)))
    vit(image)
    for hook in hooks:
        hook.remove()
    return streams


def caap_difference(model: cl.HookedViT, image: Float[Tensor, "1 3 height width"]) -> float:
    """Largest relative difference of CAAP's scores to the plain definition."""
    worst = 0.0
    with torch.no_grad():
        for context in ("free", "clamped"):
            one = cl.caap(model, image[0], CLASS, cutoff=CUTOFF, context=context, progress=False)
            assert isinstance(one, cl.AttributionMap) and one.all_scores is not None
            scores = one.all_scores
            plain = plain_scores(model, image, context == "clamped")
            worst = max(worst, float((scores - plain).abs().max() / plain.abs().max()))
    return worst


def running_methods(model: HookedModel, image: Tensor) -> tuple[str, tuple[str, ...]]:
    """Number of methods whose map is finite and not zero for every class, and of all; the names of the others."""
    refused = []
    for name in METHODS:
        try:
            if not any(_is_map(model, image, name, target) for target in range(model.n_classes)):
                refused.append(f"{name} (zero)")
        except cl.InputError:
            refused.append(name)
    return f"{len(METHODS) - len(refused)} of {len(METHODS)}", tuple(refused)


def _is_map(model: HookedModel, image: Tensor, name: str, target: int) -> bool:
    found = cl.attribute(model, image[0], name, target, progress=False, **QUICK.get(name, {}))
    assert isinstance(found, cl.AttributionMap) and found.scores.isfinite().all(), name
    return bool(found.scores.abs().max() > 0)


def measure() -> Iterator[Row]:
    """One row per kind."""
    for kind, names in names_by_kind():
        if kind not in VITS:
            continue
        name = min(names, key=lambda name: next((i for i, size in enumerate(SIZES) if size in name), len(SIZES)))
        model = cl.HookedViT(small_model(name))
        images = torch.randn(2, 3, *model.spec.image_size, generator=torch.Generator().manual_seed(0))
        logits = equal_logits(model, images)
        methods, refused = running_methods(model, images[:1])
        model = model.to(torch.float64)
        image = images[:1].double()
        with cl.libragrad(model):
            error = float(completeness_error(model, image, CLASS).max())
        yield Row(
            kind=kind,
            n_names=len(names),
            name=name,
            logits=logits,
            hook_points=moving_points(model, image),
            caap=caap_difference(model, image),
            completeness=error,
            methods=methods,
            refused=refused,
        )


def markdown(rows: list[Row]) -> str:
    """The table."""
    lines = [
        "| models | timm's names | tried as | logits | hook points | CAAP | completeness | methods |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        without = f" (not {', '.join(row.refused)})" if row.refused else ""
        lines.append(
            f"| {row.kind.title} | {row.n_names} | `{row.name}` | {row.logits} | {row.hook_points} | {row.caap:.0e} | "
            f"{row.completeness:.0e} | {row.methods}{without} |"
        )
    return "\n".join([*lines, "", f"Random weights, {DEPTH} blocks, cutoff {CUTOFF}. {describe()}."]) + "\n"


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file to write the table to")
    arguments = parser.parse_args()
    rows = []
    for row in measure():
        print(row, flush=True)
        rows.append(row)
    text = markdown(rows)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
