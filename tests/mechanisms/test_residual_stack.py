"""The residual stream as a sum: for every family, at every block, against plain hooks on timm's modules."""

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab import InputError
from caap_lab.mechanisms.layer_table import layer_table
from helpers.models import build, random_images
from helpers.plain_parts import PlainParts, frozen


def test_parts_add_up_to_the_stream_leaving_a_block(family: str) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = build(family, dtype)
        images = random_images(model, 2)
        plain = PlainParts(model, images)
        stack = cl.residual_stack(model, images, by="head", progress=False)
        assert np.abs(stack.total - plain.resid[-1].numpy()).max() < tolerance
        assert not model.has_hooks()
    stack = cl.residual_stack(model, images, layer=1, tokens=[3, 0], progress=False)
    assert np.abs(stack.total - plain.resid[1][:, [3, 0]].numpy()).max() < 1e-5
    assert stack.axes["token"] == [3, 0] and "attn 2" not in stack.components
    for layer in range(2):
        assert np.abs(stack.part(f"attn {layer}") - plain.attn[layer][:, [3, 0]].numpy()).max() < 1e-5
        assert np.abs(stack.part(f"mlp {layer}") - plain.mlp[layer][:, [3, 0]].numpy()).max() < 1e-5


def test_embeddings_are_patches_positions_and_prefix_tokens() -> None:
    model = build("dinov2_registers", torch.float64)
    images = random_images(model, 2)
    stack = cl.residual_stack(model, images, progress=False)
    with torch.no_grad():
        patches = model.vit.patch_embed(images).numpy()
    assert np.abs(stack.part("patch embedding")[:, 5:] - patches).max() < 1e-10
    assert (stack.part("patch embedding")[:, :5] == 0).all() and (stack.part("positions")[:, :5] == 0).all()
    assert np.abs(stack.part("positions")[:, 5:] - model.vit.pos_embed.detach().numpy()).max() < 1e-10
    registers = torch.cat([model.vit.cls_token, model.vit.reg_token], dim=1).detach().numpy()
    assert np.abs(stack.part("prefix tokens")[:, :5] - registers).max() < 1e-10


def test_a_norm_before_the_blocks_is_taken_at_its_own_scale() -> None:
    model = build("clip", torch.float64)
    images = random_images(model, 2)
    stack = cl.residual_stack(model, images, progress=False)
    with torch.no_grad():
        full = model.run_with_cache(images, names_filter="hook_full_embed")[1]["hook_full_embed"]
        patches = torch.nn.functional.pad(model.vit.patch_embed(images), (0, 0, 1, 0))
        expected = frozen(model.vit.norm_pre, full, patches)
        bias = model.vit.norm_pre.bias
    assert np.abs(stack.part("patch embedding") - expected.numpy()).max() < 1e-10
    assert np.abs(stack.part("vit.norm_pre.bias") - bias.detach().numpy()).max() < 1e-10


def test_batches_tokens_tables_and_pictures() -> None:
    model = build("vit")
    images = random_images(model, 5)
    whole = cl.residual_stack(model, images, by="head", tokens=cl.tokens.cls(), progress=False)
    parts = cl.residual_stack(model, images, by="head", tokens=0, batch_size=2, progress=False)
    assert np.abs(whole.per_image - parts.per_image).max() < 1e-6
    assert whole.per_image.shape == (5, 3 + 4 * 5, 1, 24)
    lengths = whole.norms
    assert np.abs(lengths.per_image[:, 3, 0] - np.linalg.norm(whole.part("L0H0")[:, 0], axis=-1)).max() < 1e-5
    assert whole.data.attrs["layer"] == 3 and whole.data.attrs["by"] == "head"
    assert len(lengths.to_dataframe()) == 5 * len(whole.components)
    assert set(whole._repr_mimebundle_()) == {"text/plain", "image/png"}
    assert whole.plot().get_ylabel() == "layer"
    bars = cl.residual_stack(model, images, tokens=0, progress=False)
    names = bars.plot().get_yticklabels()  # as many names as parts have room on the vertical axis alone
    assert [text.get_text() for text in names] == bars.components


def test_heads_are_shown_by_layer() -> None:
    model = build("vit")
    stack = cl.residual_stack(model, random_images(model, 2), by="head", progress=False)
    lengths = stack.norms
    table = layer_table(stack.components, lengths.mean.mean(axis=-1))
    assert table is not None and list(table.index) == list(range(model.n_layers))
    assert list(table.columns) == [*range(model.spec.n_heads), "attn bias", "mlp", *stack.components[:3]]
    assert table.loc[2, 1] == lengths.mean[stack.components.index("L2H1")].mean()
    assert table.loc[1, "attn bias"] == lengths.mean[stack.components.index("attn 1 bias")].mean()
    assert np.isfinite(table.loc[0]).all() and table.loc[1:, stack.components[0]].isna().all()
    at_one = layer_table(stack.components, lengths.mean[:, 1])
    assert at_one is not None
    for ax, cells in ((stack.plot(), table), (stack.plot(token=stack.axes["token"][1]), at_one)):
        shown = cells.drop(columns=stack.components[:3])  # embeddings are far longer than what heads write
        assert np.allclose(np.asarray(ax.collections[0].get_array()).reshape(shown.shape), shown)
    assert layer_table(["L0H0", "L0H1"], np.ones(2)) is None  # one layer
    assert layer_table(["0.0", "1.0", "1.1", "1.1"], np.ones(4)) is None  # a name twice


def test_what_does_not_fit_is_refused_before_work_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    images = random_images(model, 1)
    with pytest.raises(InputError, match="by='neuron' must be one of 'component', 'head'"):
        cl.residual_stack(model, images, by="neuron")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Layer 4 does not exist"):
        cl.residual_stack(model, images, layer=4)
    with pytest.raises(InputError, match=r"layer=\[1, 2\] must be one whole number"):
        cl.residual_stack(model, images, layer=[1, 2])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Token 17 does not exist"):
        cl.residual_stack(model, images, tokens=[17])
    with pytest.raises(InputError, match="17 booleans"):
        cl.residual_stack(model, images, tokens=np.zeros(4, dtype=bool))
    with pytest.raises(InputError, match="is not here"):
        cl.residual_stack(model, images, progress=False).part("attn 9")
    from caap_lab.mechanisms import residual_stack as module

    class Full:
        available = 10

    monkeypatch.setattr(module.psutil, "virtual_memory", Full)
    with pytest.raises(InputError, match=r"need .* GiB .* Choose tokens"):
        cl.residual_stack(model, images)
