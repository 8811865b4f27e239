"""The four contexts written with the patching API in the simplest way: one patched run a patch."""

import torch
from torch import Tensor

from caap_lab import HookedViT, Patch
from caap_lab.context.blanks import blank_run
from caap_lab.hooked.tokens import neighbourhood


def plain_scores(
    model: HookedViT,
    image: Tensor,
    *,
    cutoff: int,
    start: int = 0,
    neighbourhood_kind: str = "box1",
    blank: object = "white",
    context: str = "clamped",
    step: int = 1,
) -> Tensor:
    """Logits [row, col, class] of every patch's patched context, or of every `step`-th row and column's."""
    spec = model.spec
    blank_resid = dict(enumerate(blank_run(model, blank).resid))
    source = _residuals(model, image)
    image_of_blank = torch.zeros_like(image)  # every token's residual stream is set below
    scores = []
    rows, cols = (range(0, size, step) for size in spec.grid)
    for row in rows:
        for col in cols:
            patched = neighbourhood(row, col, neighbourhood_kind).indices(spec)
            keep = set(patched) | set(spec.live_prefix)
            others = [t for t in range(spec.n_tokens) if t not in keep]
            patches = [Patch("resid_pre", [0], source=blank_resid)] if start == 0 else []
            if context != "free" and others:
                patches.append(Patch("resid_pre", None, others, source=blank_resid))
            if start:
                patches.append(Patch("resid_pre", range(start + 1), source=blank_resid))
            from_source = range(start, spec.n_layers if context == "frozen" else cutoff)
            if from_source:
                patches.append(Patch("resid_pre", from_source, patched, source=source))
            if context == "dropped" and cutoff < spec.n_layers:
                patches.append(Patch("resid_pre", range(cutoff, spec.n_layers), patched, source=blank_resid))
            if spec.reads_patches and context != "free":
                last, end = spec.n_layers - 1, spec.n_layers
                if others:
                    patches.append(Patch("resid_post", [last], others, source=blank_resid[end][None]))
                if context == "dropped":
                    patches.append(Patch("resid_post", [last], patched, source=blank_resid[end][None]))
                if context == "frozen":
                    patches.append(Patch("resid_post", [last], patched, source=source[end][None]))
            with torch.no_grad():
                scores.append(model.run_patched(image_of_blank, patches)[0])
    return torch.stack(scores).view(len(rows), len(cols), -1)


@torch.no_grad()
def plain_groups(model: HookedViT, image: Tensor, cutoff: int, attention: str, tail: str) -> Tensor:
    """Logits [row, col, class] for class-token models, in loops over groups, rows, heads and tokens (float64)."""
    spec, blank = model.spec, blank_run(model, "white").resid
    source = _residuals(model, image)
    cells = [(row, col) for row in range(spec.grid[0]) for col in range(spec.grid[1])]
    patched = [neighbourhood(*cell).indices(spec) for cell in cells]
    centre = [spec.n_prefix + i for i in range(len(cells))]
    groups = [{0: blank[0][0]} for _ in cells]  # token number -> residual stream of the live rows
    for layer, block in enumerate(model.vit.blocks):
        if layer == cutoff - 1:
            for i, live in enumerate(groups):
                live.update({t: source[layer][t] for t in (patched[i] if tail == "exact" else [centre[i]])})
        moved = []
        for i, live in enumerate(groups):
            keys = {0: live[0]}
            for token in patched[i]:
                if layer < cutoff:
                    keys[token] = source[layer][token]
                elif tail == "exact":
                    keys[token] = live[token]
                else:
                    keys[token] = groups[token - spec.n_prefix][token]
            moved.append({t: _move_row(block, t, resid, keys, blank[layer], attention) for t, resid in live.items()})
        groups = moved
    rows = torch.stack([live[0] for live in groups])
    return model.vit.head(model.vit.norm(rows)).view(*spec.grid, -1)


def _move_row(block, token: int, resid: Tensor, keys: dict[int, Tensor], blank: Tensor, attention: str) -> Tensor:
    """One row through a block: paper eq 7, with the blank's part exact or from eqs 8 and 9."""
    attn = block.attn
    q_live, _, _ = _heads(block, resid)
    q_blank, _, _ = _heads(block, blank[token])
    z = []
    for head in range(attn.num_heads):
        total, weighted = 0.0, 0.0
        for key in keys.values():
            _, k, v = _heads(block, key)
            weight = torch.exp(q_live[head] @ k[head] * attn.scale)
            total, weighted = total + weight, weighted + weight * v[head]
        for other in range(1, len(blank)):
            if attention == "cached_all" or other not in keys:
                _, k, v = _heads(block, blank[other])
                query = q_live[head] if attention == "exact" else q_blank[head]
                weight = torch.exp(query @ k[head] * attn.scale)
                total, weighted = total + weight, weighted + weight * v[head]
        z.append(weighted / total)
    resid = resid + block.ls1(attn.proj(torch.cat(z)))
    return resid + block.ls2(block.mlp(block.norm2(resid)))


def _heads(block, resid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = block.attn.qkv(block.norm1(resid)).view(3, block.attn.num_heads, -1)
    return q, k, v


def _residuals(model: HookedViT, image: Tensor) -> dict[int, Tensor]:
    store = model.record(image, ["resid_pre", "resid_post"], progress=False)
    last = model.spec.n_layers - 1
    return {
        **{layer: store["resid_pre", layer][0] for layer in range(last + 1)},
        last + 1: store["resid_post", last][0],
    }
