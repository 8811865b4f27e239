"""The four contexts written with the patching API in the simplest way: one patched run a patch."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from caap_lab import HookedViT, Patch
from caap_lab.engine.blanks import blank_run
from caap_lab.models.tokens import neighbourhood


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
    rows, cols = (range(0, size, step) for size in model.spec.grid)
    cells = [(row, col) for row in rows for col in cols]
    sets = [neighbourhood(*cell, neighbourhood_kind).indices(model.spec) for cell in cells]
    scores = plain_sets(model, image, sets, cutoff=cutoff, start=start, blank=blank, context=context)
    return scores.view(len(rows), len(cols), -1)


def plain_sets(
    model: HookedViT,
    image: Tensor,
    sets: Iterable[Sequence[int]],
    *,
    cutoff: int,
    start: int = 0,
    blank: object = "white",
    context: str = "clamped",
) -> Tensor:
    """Logits [set, class] of the patched contexts of any sets of patch tokens; none is the blank alone."""
    spec = model.spec
    blank_resid = dict(enumerate(blank_run(model, blank).resid))
    source = _residuals(model, image)
    image_of_blank = torch.zeros_like(image)  # every token's residual stream is set below
    scores = []
    for patched in sets:
        keep = set(patched) | set(spec.live_prefix)
        others = [t for t in range(spec.n_tokens) if t not in keep]
        patches = [Patch("resid_pre", [0], source=blank_resid)] if start == 0 else []
        if context != "free" and others:
            patches.append(Patch("resid_pre", None, others, source=blank_resid))
        if start:
            patches.append(Patch("resid_pre", range(start + 1), source=blank_resid))
        from_source = range(start, spec.n_layers if context == "frozen" else cutoff)
        if from_source and patched:
            patches.append(Patch("resid_pre", from_source, patched, source=source))
        if context == "dropped" and cutoff < spec.n_layers and patched:
            patches.append(Patch("resid_pre", range(cutoff, spec.n_layers), patched, source=blank_resid))
        if spec.reads_patches and context != "free":
            last, end = spec.n_layers - 1, spec.n_layers
            if others:
                patches.append(Patch("resid_post", [last], others, source=blank_resid[end][None]))
            if context == "dropped" and patched:
                patches.append(Patch("resid_post", [last], patched, source=blank_resid[end][None]))
            if context == "frozen" and patched:
                patches.append(Patch("resid_post", [last], patched, source=source[end][None]))
        with torch.no_grad():
            scores.append(model.run_patched(image_of_blank, patches)[0])
    return torch.stack(scores)


@torch.no_grad()
def plain_groups(model: HookedViT, image: Tensor, cutoff: int, attention: str, tail: str) -> Tensor:
    """Logits [row, col, class] for class-token models, in loops over groups, rows, heads and patched tokens."""
    spec, blank = model.spec, blank_run(model, "white").resid
    source = _residuals(model, image)
    cells = [(row, col) for row in range(spec.grid[0]) for col in range(spec.grid[1])]
    patched = [neighbourhood(*cell).indices(spec) for cell in cells]
    centre = [spec.n_prefix + i for i in range(len(cells))]
    groups = [{0: blank[0][0]} for _ in cells]  # token number -> residual stream of the live rows
    if tail == "interpolated":
        sums = {i: {t: interpolated(spec.grid, cells[i], cells[t - 1]) for t in patched[i]} for i in range(len(cells))}
        run = [[t for t in patched[i] if sums[i][t] == {i: 1.0}] for i in range(len(cells))]
    else:
        run = patched if tail == "exact" else [[token] for token in centre]
    for layer, block in enumerate(model.vit.blocks):
        if layer == cutoff - 1:
            for i, live in enumerate(groups):
                live.update({t: source[layer][t] for t in run[i]})
        moved = []
        for i, live in enumerate(groups):
            keys = {0: {0: (live[0], 1.0)}}
            for token in patched[i]:
                if layer < cutoff:
                    keys[token] = {0: (source[layer][token], 1.0)}
                elif tail == "exact":
                    keys[token] = {0: (live[token], 1.0)}
                elif tail == "shared":
                    keys[token] = {0: (groups[token - spec.n_prefix][token], 1.0)}
                else:
                    keys[token] = {g: (groups[g][token], weight) for g, weight in sums[i][token].items()}
            moved.append({t: _move_row(block, t, resid, keys, blank[layer], attention) for t, resid in live.items()})
        groups = moved
    rows = torch.stack([live[0] for live in groups])
    return model.vit.head(model.vit.norm(rows)).view(*spec.grid, -1)


def interpolated(grid: tuple[int, int], group: tuple[int, int], token: tuple[int, int]) -> dict[int, float]:
    """Groups, and their weights, whose rows of a token stand in for its row in a group; 3 x 3 neighbourhood.

    The token's own group and the outermost that hold it are run. Among weights over these that sum to 1 and keep the
    offset's a, b and a^2 + b^2, it is the least in size.
    """
    near = [range(max(0, x - 1), min(size, x + 2)) for x, size in zip(token, grid, strict=True)]
    run = [(r, c) for r in near[0] for c in near[1] if r in (near[0][0], near[0][-1])]
    run = sorted({(r, c) for r, c in run if c in (near[1][0], near[1][-1])} | {token})
    if group in run:
        return {group[0] * grid[1] + group[1]: 1.0}

    def features(cell: tuple[int, int]) -> list[float]:
        a, b = cell[0] - token[0], cell[1] - token[1]
        return [1, a, b, a * a + b * b]

    weights = np.linalg.lstsq(np.array([features(cell) for cell in run]).T, np.array(features(group)), rcond=None)[0]
    return {r * grid[1] + c: float(w) for (r, c), w in zip(run, weights, strict=True)}


def _move_row(
    block, token: int, resid: Tensor, keys: dict[int, dict[int, tuple[Tensor, float]]], blank: Tensor, attention: str
) -> Tensor:
    """One row through a block: paper eq 7, with the blank's part exact or from eqs 8 and 9.

    A token's key and value are weighted sums over the residual streams in `keys`.
    """
    attn = block.attn
    q_live, _, _ = _heads(block, resid)
    q_blank, k_blank, v_blank = _heads(block, blank)
    live = {t: [(_heads(block, part), share) for part, share in parts.values()] for t, parts in keys.items()}
    others = [t for t in range(1, len(blank)) if attention == "cached_all" or t not in keys]
    z = []
    for head in range(attn.num_heads):
        total, weighted = 0.0, 0.0
        for parts in live.values():
            k = sum(share * k[head] for (_, k, _), share in parts)
            v = sum(share * v[head] for (_, _, v), share in parts)
            weight = torch.exp(q_live[head] @ k * attn.scale)
            total, weighted = total + weight, weighted + weight * v
        query = q_live[head] if attention == "exact" else q_blank[token, head]
        weights = torch.exp(k_blank[others, head] @ query * attn.scale)
        total, weighted = total + weights.sum(), weighted + weights @ v_blank[others, head]
        z.append(weighted / total)
    resid = resid + block.ls1(attn.proj(torch.cat(z)))
    return resid + block.ls2(block.mlp(block.norm2(resid)))


def _heads(block, resid: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values [..., head, d_head] of rows [..., d_model]."""
    return block.attn.qkv(block.norm1(resid)).unflatten(-1, (3, block.attn.num_heads, -1)).unbind(-3)


def _residuals(model: HookedViT, image: Tensor) -> dict[int, Tensor]:
    store = model.record(image, ["resid_pre", "resid_post"], progress=False)
    last = model.spec.n_layers - 1
    return {
        **{layer: store["resid_pre", layer][0] for layer in range(last + 1)},
        last + 1: store["resid_post", last][0],
    }
