"""CAAP's cost: counted operations, rows, memory, and what is imported."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import caap_lab as cl
from benchmarks.counting import operations, peak_bytes
from caap_lab.attribution.caap_maps import caap_maps
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS
from caap_lab.engine import patched_runs as engine
from caap_lab.engine.interpolation import tail_rows
from caap_lab.engine.settings import CaapSettings
from caap_lab.models.neighbour_tables import neighbourhood_table
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS
from helpers.models import build, random_images


@pytest.fixture(scope="module")
def wide() -> cl.HookedViT:
    """ViT-B's blocks and grid at a quarter of its width: counted ratios as of ViT-B, but for attention's share."""
    import timm

    options = {"embed_dim": 192, "num_heads": 3, "num_classes": 10}
    return cl.HookedViT(timm.create_model("vit_base_patch16_224", pretrained=False, **options))


@pytest.mark.parametrize(
    "most, options",
    [
        (5.1, {}),
        (4.7, {"target": 0}),
        (4.7, {"attention": "cached"}),
        (3.0, {"tail": "shared"}),
        (2.6, {"tail": "shared", "attention": "cached"}),
        (3.9, {"tail": "interpolated"}),
    ],
)
def test_a_map_costs_a_few_forward_passes(wide: cl.HookedViT, most: float, options: dict[str, Any]) -> None:
    image = random_images(wide, 1)
    cl.caap(wide, image, 0)  # the blank's run is kept
    forward = operations(wide, lambda: wide(image))
    assert operations(wide, lambda: cl.caap(wide, image, cutoff=8, **options)) / forward < most


@pytest.mark.parametrize("most, tail", [(68, "exact"), (17, "shared")])
def test_a_sweep_over_all_cutoffs_shares_prefixes(wide: cl.HookedViT, most: float, tail: str) -> None:
    image = random_images(wide, 1)
    settings = [CaapSettings(cutoff=cutoff, tail=tail) for cutoff in range(1, 13)]
    forward = operations(wide, lambda: wide(image))
    counted = operations(wide, lambda: caap_maps(wide, image, None, settings, batch_size=1))
    assert counted / forward < most


def test_the_free_context_costs_a_pass_per_patch_as_stated() -> None:
    model = build("vit")
    image = random_images(model, 1)
    cl.caap(model, image, 0)
    forward = operations(model, lambda: model(image))
    counted = operations(model, lambda: cl.caap(model, image, 0, context="free")) / forward
    stated = METHODS["caap"].passes(ModelSize.of(model), {"context": "free"})
    assert stated == 17 and counted == pytest.approx(stated, rel=0.2)  # patched runs need no embedding


def test_the_blank_and_the_tables_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    images = random_images(model, 2)
    cl.caap(model, images[0], 0)
    made = engine.layout.cache_info().misses
    blocks = []
    run_block = type(model).run_block
    monkeypatch.setattr(
        type(model), "run_block", lambda self, layer, x: blocks.append(layer) or run_block(self, layer, x)
    )
    cl.caap(model, images[1], 0, cutoff=3)
    assert engine.layout.cache_info().misses == made
    assert blocks == [0, 1]  # the source, up to what enters the last patched block's heads; no blank


@pytest.mark.parametrize("family", ["vit", "vit_qk_norm", "dinov2_swiglu"])
def test_keys_and_values_alone(family: str) -> None:
    model = build(family)
    attention = model.architecture.block(0).attention
    x = torch.randn(2, 5, model.spec.d_model)
    for found, expected in zip(attention.project_kv(x), attention.project_qkv(x)[1:], strict=True):
        torch.testing.assert_close(found, expected)

    class Adapted(nn.Linear):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return super().forward(given) + 1

    model.block(0).attn.qkv.__class__ = Adapted  # a layer of another's making is run as it is
    for found, expected in zip(attention.project_kv(x), attention.project_qkv(x)[1:], strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", sorted(NEIGHBOURHOODS))
@pytest.mark.parametrize("grid", [(6, 5), (1, 4), (2, 3)])
def test_interpolation_keeps_affine_functions_and_the_distance(kind: str, grid: tuple[int, int]) -> None:
    table = neighbourhood_table(grid, kind)
    rows = tail_rows(table, NEIGHBOURHOODS[kind].offsets, "interpolated")
    cells = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).double()
    group, neighbour = rows.run // table.shape[1], rows.run % table.shape[1]
    token = table[group, neighbour]
    assert (token >= 0).all()

    def features(groups: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        offset = cells[groups] - cells[tokens]
        return torch.cat([torch.ones_like(offset[..., :1]), offset, (offset**2).sum(-1, keepdim=True)], dim=-1)

    read = rows.contexts(features(group, token))[rows.reads]
    inside = table >= 0
    groups = torch.arange(len(table))[:, None].expand_as(table)
    expected = features(groups, table)
    torch.testing.assert_close(read[inside][:, :3], expected[inside][:, :3])
    if max(max(offset) for offset in NEIGHBOURHOODS[kind]) <= 1:  # wider: cut off, too few rows may tell the distance
        torch.testing.assert_close(read[inside], expected[inside])
    if kind == "box1" and grid == (6, 5):
        centre = 2 * 5 + 2
        edge = rows.reads[centre, neighbourhood_table(grid, kind)[centre].tolist().index(centre + 1)]
        assert rows.weights is not None and rows.rows is not None
        weights = rows.weights[edge // 9, edge % 9]
        assert sorted(weights.tolist()) == pytest.approx([-1 / 8, -1 / 8, 3 / 8, 3 / 8, 1 / 2])
        runs = torch.bincount(token, minlength=30).view(grid)
        assert runs[0, 0] == 4 and runs[0, 2] == 5 and (runs[1:-1, 1:-1] == 5).all()


@pytest.mark.parametrize("kind", ["none", "cross1"])
def test_interpolation_is_exact_where_all_contexts_are_outermost(kind: str) -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    exact = cl.caap(model, image, 0, cutoff=2, neighbourhood=kind)
    found = cl.caap(model, image, 0, cutoff=2, neighbourhood=kind, tail="interpolated")
    torch.testing.assert_close(found.all_scores, exact.all_scores, atol=1e-10, rtol=0)


@pytest.mark.parametrize("family", ["vit", "average_pool", "dinov2_swiglu"])
@pytest.mark.parametrize(
    "options", [{}, {"context": "free"}, {"context": "frozen"}, {"attention": "cached"}, {"tail": "interpolated"}]
)
def test_memory_stays_below_the_bound_and_results_do_not_change(family: str, options: dict[str, Any]) -> None:
    model = build(family)
    images = random_images(model, 6)
    cl.caap(model, images[0], 0, **options)
    few: list[Any] = []
    many: list[Any] = []
    bound = 2.5
    peak = peak_bytes(lambda: few.extend(cl.caap(model, images, 0, max_memory=bound / 1024, progress=False, **options)))
    free = peak_bytes(lambda: many.extend(cl.caap(model, images, 0, progress=False, **options)))
    result = sum(m.all_scores.numel() * 8 for m in few) + images.numel() * 4
    assert peak - result <= bound * 2**20, f"{peak / 2**20:.2f} MiB"
    assert free > peak or free - result <= bound * 2**20
    for a, b in zip(few, many, strict=True):
        torch.testing.assert_close(a.all_scores, b.all_scores, atol=1e-5, rtol=1e-5)


def test_bad_bounds_are_refused() -> None:
    model = build("vit")
    image = random_images(model, 1)
    for bound in (0, -1, "1 GiB", True, float("nan")):
        with pytest.raises(cl.InputError, match="max_memory"):
            cl.caap(model, image, 0, max_memory=bound)
    with pytest.raises(cl.InputError, match="chunk_size bounds memory"):
        cl.caap(cl.load_model("demo-cnn"), torch.zeros(3, 64, 64), 0, max_memory=1.0)


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'timm', 'transformers', 'transformer_lens', 'wandb', 'torch', 'numpy', 'matplotlib', 'pandas'}"
    code = f"import sys, caap_lab, caap_lab.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
