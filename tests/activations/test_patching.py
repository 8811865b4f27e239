"""Patching: edits land where they are said to, out of place, and never silently do nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import caap_lab as cl
from caap_lab import InputError, Patch, tokens
from caap_lab.activations.patch import edits, possible_edits
from caap_lab.activations.shards import Shard
from caap_lab.models.targets import contrast
from helpers.models import build, random_images

POINTS = [
    "embed",
    "full_embed",
    "resid_pre",
    "ln1.normalized",
    "q",
    "k",
    "v",
    "attn_scores",
    "pattern",
    "z",
    "result",
    "attn_out",
    "resid_mid",
    "ln2.normalized",
    "pre",
    "post",
    "mlp_out",
    "resid_post",
    "ln_final.normalized",
    "pooled",
    "logits",
]


@pytest.mark.parametrize("point", POINTS)
def test_patching_every_point_with_itself_changes_nothing_and_with_another_image_something(
    point: str,
) -> None:
    model = build("vit", torch.float64)
    image, other = random_images(model, 2).split(1)
    layers = None if model.find(point)[0].layer is None else [1]
    own, foreign = (model.record(x, [point], layers=layers, progress=False) for x in (image, other))
    with torch.no_grad():
        plain = model(image)
        same = model.run_patched(image, Patch(point, layers, source=own))
        changed = model.run_patched(image, Patch(point, layers, source=foreign))
        by_hand = model.run_with_hooks(
            image,
            fwd_hooks=[(site.hook, lambda a, hook: foreign[hook.name]) for site in model.find(point, layers)],
        )
    assert (same - plain).abs().max() < 1e-10
    assert (changed - plain).abs().max() > 1e-3
    assert torch.equal(changed, by_hand)


def test_all_tokens_at_block_zero_give_the_source(family: str) -> None:
    model = build(family, torch.float64)
    image, other = random_images(model, 2).split(1)
    store = model.record(other, ["resid_pre"], layers=[0], progress=False)
    with torch.no_grad():
        found = model.run_patched(image, Patch("resid_pre", [0], source=store))
        assert (found - model(other)).abs().max() < 1e-12


def test_only_the_chosen_tokens_and_heads_are_edited() -> None:
    model = build("vit")
    image = random_images(model, 1)
    seen = {}
    patch = Patch("z", [1], tokens.cell(1, 1), source=7.0, heads=[2])
    with torch.no_grad(), model.hooks(fwd_hooks=[]):
        _, before = model.run_with_cache(image, names_filter="blocks.1.attn.hook_z")
    # The reading hook is added after the patch's, so it sees the edited activation.
    from caap_lab.activations.patch import edits

    hooks = [(site.hook, edit) for site, edit in edits(model, patch, 1)]
    hooks.append(("blocks.1.attn.hook_z", lambda a, hook: seen.update(z=a)))
    model.run_with_hooks(image, fwd_hooks=hooks)
    expected = before["blocks.1.attn.hook_z"].clone()
    expected[0, 6, 2] = 7.0
    assert torch.equal(seen["z"], expected)


def test_pattern_patch_moves_query_rows() -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    uniform = torch.full((3, 17, 17), 1 / 17, dtype=torch.float64)
    with torch.no_grad():
        found = model.run_patched(image, Patch("pattern", [3], tokens.cls(), source=uniform))
        mean_v = model.record(image, ["v"], layers=[3], progress=False)["v", 3].mean(dim=1, keepdim=True)
        expected = model.run_patched(image, Patch("z", [3], tokens.cls(), source=mean_v.expand(-1, 17, -1, -1)))
    assert (found - expected).abs().max() < 1e-10


def test_each_image_may_have_its_own_tokens() -> None:
    model = build("vit", torch.float64)
    images = random_images(model, 3)
    mask = torch.zeros(3, 17, dtype=torch.bool)
    mask[0, 4] = mask[1, 5:8] = mask[2, 16] = True
    with torch.no_grad():
        together = model.run_patched(images, Patch("resid_pre", [2], mask, source=0.0))
        for row in range(3):
            alone = model.run_patched(images[row], Patch("resid_pre", [2], mask[row].nonzero()[:, 0].tolist()))
            assert (together[row] - alone[0]).abs().max() < 1e-12


def test_later_patches_win_and_sources_may_be_per_layer() -> None:
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    zero, one = Patch("mlp_out", [1], source=0.0), Patch("mlp_out", [1], source=1.0)
    by_layer = {1: torch.ones(17, 24, dtype=torch.float64), 2: torch.zeros(17, 24, dtype=torch.float64)}
    with torch.no_grad():
        assert torch.equal(model.run_patched(image, [zero, one]), model.run_patched(image, one))
        both = model.run_patched(image, [one, Patch("mlp_out", [2], source=0.0)])
        assert torch.equal(model.run_patched(image, Patch("mlp_out", [1, 2], source=by_layer)), both)


def test_patches_are_out_of_place() -> None:
    model = build("vit")
    image, other = random_images(model, 2).split(1)
    store = model.record(other, ["resid_pre"], progress=False)
    kept_image, kept_store = image.clone(), store["resid_pre", 1].clone()
    with model.hooks(fwd_hooks=[]), torch.no_grad():
        clean = model.run_with_cache(image, names_filter="blocks.0.hook_resid_post")[1]["blocks.0.hook_resid_post"]
        seen = {}

        hooks = [("blocks.0.hook_resid_post", lambda a, hook: seen.update(post=a))]
        hooks += [(s.hook, e) for s, e in edits(model, Patch("resid_pre", [1], source=store), 1)]
        model.run_with_hooks(image, fwd_hooks=hooks)
    assert torch.equal(seen["post"], clean), "the neighbouring activation in a cache stays what it was"
    assert torch.equal(image, kept_image) and torch.equal(store["resid_pre", 1], kept_store)


def test_gradients_flow_through_a_patched_run() -> None:
    model = build("vit")
    source = torch.zeros(17, 24, requires_grad=True)
    model.run_patched(random_images(model, 1), Patch("resid_pre", [1], [3], source=source))[0, 0].backward()
    assert source.grad is not None
    assert source.grad[3].abs().sum() > 0 and source.grad[4].abs().sum() == 0


@pytest.mark.parametrize(
    "patch, message",
    [
        (Patch("resid_per"), "Nearest: .*resid_pre"),
        (Patch("normalized"), "could be any of"),
        (Patch("resid_pre", [4]), "layers 0 to 3"),
        (Patch("resid_pre", []), "No layers"),
        (Patch("logits", [1]), "not inside a block"),
        (Patch("blocks.1.hook_resid_pre", [1]), "already includes its layer"),
        (Patch("logits", tokens=[0]), "no tokens"),
        (Patch("resid_pre", tokens=[]), "No tokens"),
        (Patch("resid_pre", tokens=[17]), "tokens 0 to 16"),
        (Patch("resid_pre", tokens=torch.zeros(1, 17, dtype=torch.bool)), "selects no token"),
        (Patch("resid_pre", tokens=torch.ones(2, 17, dtype=torch.bool)), r"\[1 images"),
        (Patch("resid_pre", heads=[0]), "no heads"),
        (Patch("z", heads=[3]), "heads 0 to 2"),
        (Patch("z", heads=3), "heads 0 to 2"),
        (Patch("z", heads=[1.5]), r"heads=\[1.5\] must be a whole number"),  # type: ignore[list-item]
        (Patch("z", layers=[0.5]), r"layers=\[0.5\] must be a whole number"),  # type: ignore[list-item]
        (Patch("z", layers="12"), "must be a whole number, or several"),  # type: ignore[arg-type]
        (Patch("z", heads=[True, False, True]), "must be a whole number, or several"),
        (Patch("z", heads=torch.tensor([True, False, True])), "must be a whole number, or several"),  # type: ignore[arg-type]
        (Patch("z", source=None), "must be a store"),
        (Patch("z", source=float("nan")), "must be a number, not nan"),
        (Patch("z", source={layer: True for layer in range(4)}), "must be a number, not True"),
        (Patch("embed", tokens=tokens.cls()), "patch tokens only"),
        (Patch("resid_pre", source=torch.zeros(3, 3)), r"has shape \[3, 3\]; expected \[17, 24\]"),
        (Patch("resid_pre", source={0: torch.zeros(17, 24)}), "no layer 1"),
        (Patch("resid_post", [3], tokens.patches()), "cannot change the logits"),
        (Patch("mlp_out", [3], [5]), "reads only the cls token"),
        (Patch("ln_final.normalized", tokens=[5]), "cannot change the logits"),
    ],
)
def test_patches_that_do_not_fit_are_refused_before_the_run(patch: Patch, message: str) -> None:
    model = build("vit")
    image = random_images(model, 1)
    with (
        pytest.raises(InputError, match=message),
        model.hooks(fwd_hooks=[("hook_embed", lambda a, hook: pytest.fail())]),
    ):
        model.run_patched(image, patch)
    assert not model.has_hooks()


def test_no_patches_at_all_is_refused() -> None:
    model = build("vit")
    with pytest.raises(InputError, match="No patches"):
        model.run_patched(random_images(model, 1), [])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("resid_pre", "not 'resid_pre'"),
        (Image.new("RGB", (9, 9)), "not Image"),
        ([Patch("z", 0), 3], "not int"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_patch_is_refused_with_an_example(given: Any, said: str) -> None:
    model = build("vit")
    with pytest.raises(InputError, match=rf"Expected a cl.Patch, or a list of them, {said}; for example"):
        model.run_patched(random_images(model, 1), given)


def test_patches_refused_in_the_last_block_really_change_nothing(family: str) -> None:
    """The refusal is neither too strict nor too lax: every point of the last block, every token."""
    model = build(family, torch.float64)
    image = random_images(model, 1)
    last = model.spec.n_layers - 1
    with torch.no_grad():
        plain = model(image)
        for name in (n for n in model.hook_dict if n.startswith(f"blocks.{last}.") or n.startswith("ln_final")):
            for token in (0, model.spec.n_prefix, model.spec.n_tokens - 1):
                axis = 2 if name.endswith(("attn_scores", "pattern")) else 1

                def edit(a, hook, token=token, axis=axis):
                    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0), dtype=a.dtype)
                    chosen = torch.zeros(a.shape[axis], dtype=torch.bool)
                    chosen[token] = True
                    return torch.where(chosen.view(-1, *[1] * (a.ndim - axis - 1)), a + noise, a)

                moved = (model.run_with_hooks(image, fwd_hooks=[(name, edit)]) - plain).abs().max() > 1e-9
                patch = Patch(name, tokens=[token], source=0.5)
                if moved:
                    model.run_patched(image, patch)
                else:
                    with pytest.raises(InputError, match="cannot change the logits"):
                        model.run_patched(image, patch)


class TestSweep:
    """Sweeps: every cell equals the run on its own."""

    @pytest.mark.parametrize("batch_size", [1, 4, 100])
    @pytest.mark.parametrize("family", ["vit", "dino_head4", "siglip"])
    def test_cells_equal_single_runs(self, family: str, batch_size: int) -> None:
        model = build(family, torch.float64)
        images, other = random_images(model, 3).split([2, 1])
        store = model.record(other, ["z", "resid_pre"], progress=False)

        def patch(layer: int, head: int) -> Patch:
            return Patch("z", [layer], source=store, heads=[head])

        found = cl.sweep(
            model,
            images,
            patch,
            over={"layer": range(4), "head": [0, 2]},
            metric=3,
            batch_size=batch_size,
            progress=False,
        )
        with torch.no_grad():
            assert abs(found.baseline - model(images)[:, 3].numpy()).max() < 1e-10
            for i, layer in enumerate(range(4)):
                for j, head in enumerate([0, 2]):
                    alone = model.run_patched(images, patch(layer, head))[:, 3].numpy()
                    assert abs(found.values[:, i, j] - alone).max() < 1e-10

    @pytest.mark.parametrize("point", ["attn_out", "mlp_out", "z"])
    @pytest.mark.parametrize("batch_size", [1, 32])
    def test_cells_without_effect_stand_in_a_grid_of_positions(self, point: str, batch_size: int) -> None:
        model = build("vit", torch.float64)
        images, other = random_images(model, 3).split([2, 1])
        store = model.record(other, point, progress=False)
        layers, places = range(model.n_layers), range(model.spec.n_tokens)
        found = cl.sweep(
            model,
            images,
            lambda layer, token: Patch(point, layer, [token], source=store),
            over={"layer": layers, "token": places},
            metric={"one": 1, "two": cl.contrast(2, 0)},
            batch_size=batch_size,
            progress=False,
        )
        assert (found.effect[:, -1, 1:] == 0).all() and (found.effect[:, -1, 0] != 0).all()
        with torch.no_grad():
            for layer in layers:
                for token in places:
                    own = [
                        (s.hook, e) for s, e in possible_edits(model, Patch(point, layer, [token], source=store), 2)[0]
                    ]
                    alone = model.run_with_hooks(images, fwd_hooks=own)
                    expected = torch.stack([alone[:, 1], alone[:, 2] - alone[:, 0]], dim=1)
                    assert abs(found.values[:, layer, token] - expected.numpy()).max() < 1e-10

    def test_errors_name_the_cell(self) -> None:
        model = build("vit")
        image = random_images(model, 1)
        for patch, said in (
            (lambda layer: Patch("attn_out", layer), "Cell layer=9: Layer 9 does not exist"),
            (lambda layer: "attn_out", r"Cell layer=3: Expected a cl.Patch, or a list of them, not 'attn_out'"),
            (lambda layer: Patch("mlp_out", 3, [1]), "cannot change the logits"),
        ):
            with pytest.raises(InputError, match=said):
                cl.sweep(model, image, patch, over={"layer": [3, 9]}, metric=0, progress=False)

    def test_any_axis_any_point_and_several_patches(self) -> None:
        model = build("vit", torch.float64)
        image = random_images(model, 1)
        cases = {
            "embed": [Patch("embed", source=0.0)],
            "mixed": [Patch("mlp_out", [2], source=0.0), Patch("attn_out", [0], source=0.0)],
            "head": [Patch("pooled", source=0.0)],
        }
        found = cl.sweep(model, image, lambda case: cases[case], over={"case": cases}, metric=0, progress=False)
        with torch.no_grad():
            for i, patches in enumerate(cases.values()):
                assert abs(found.values[0, i] - model.run_patched(image, patches)[0, 0].item()) < 1e-10

    def test_each_image_may_have_its_own_target(self) -> None:
        model = build("vit", torch.float64)
        images = random_images(model, 2)

        def own_targets(logits: torch.Tensor) -> torch.Tensor:
            return torch.stack([logits[0, 5], logits[1, 2]])

        by_list, by_function = (
            cl.sweep(
                model,
                images,
                lambda layer: Patch("attn_out", [layer]),
                over={"layer": range(4)},
                metric=metric,
                batch_size=6,
                progress=False,
            )
            for metric in ([5, 2], own_targets)
        )
        assert (by_list.values == by_function.values).all()
        assert by_list.metric == "logit of class 2, class 5"
        with torch.no_grad():
            assert abs(by_list.baseline - model(images)[range(2), [5, 2]].numpy()).max() < 1e-12

    def test_result_is_labelled(self) -> None:
        model = build("vit")
        images = random_images(model, 3)
        found = cl.sweep(
            model,
            images,
            lambda layer: Patch("attn_out", [layer]),
            over={"layer": range(4)},
            metric=lambda logits: logits.softmax(-1)[:, 1],
            progress=False,
        )
        frame = found.to_dataframe()
        assert list(frame.columns) == ["model", "image", "layer", "baseline", "value", "effect"]
        assert len(frame) == 12
        assert (frame["value"] - frame["baseline"] - frame["effect"]).abs().max() < 1e-12
        assert abs(frame.groupby("layer")["effect"].mean().to_numpy() - found.mean).max() < 1e-12
        assert (
            abs(frame.groupby("layer")["effect"].std(ddof=0).to_numpy() / 3**0.5 - found.standard_error).max() < 1e-12
        )
        assert "4 layer" in repr(found)

    def test_result_carries_labels(self) -> None:
        model = build("vit")
        images = random_images(model, 2)
        places = [(0, 0), (1, 2)]
        found = cl.sweep(
            model,
            images,
            lambda layer, cell, part: Patch("attn_out", [layer], tokens.box(*cell, cell[0] + 1, cell[1] + 1)),
            over={"layer": [0, 2], "cell": places, "part": ["all"]},
            metric=3,
            progress=False,
        )
        data = found.data
        assert data["effect"].dims == ("image", "layer", "cell", "part")
        assert data.attrs == {"metric": "logit of class 3", "model": model.model_name}
        assert found.axes == {"layer": [0, 2], "cell": places, "part": ["all"]}
        assert (data["effect"] == data["value"] - data["baseline"]).all()
        np.testing.assert_array_equal(found.values, data["value"].values)
        assert data["effect"].sel(layer=2, part="all").shape == (2, 2)
        for row in found.to_dataframe().itertuples():
            cell = data.isel(image=row.image, cell=places.index(row.cell)).sel(layer=row.layer, part=row.part)
            assert (row.baseline, row.value, row.effect) == (cell["baseline"], cell["value"], cell["effect"])
        assert repr(found).startswith("SweepResult: effect on logit of class 3 of") and len(repr(found)) < 200

    def test_plots_of_effects(self) -> None:
        model = build("vit", torch.float64)
        images = random_images(model, 3)
        over = {"layer": range(4), "head": [0, 2], "scale": [0.0, 1.0]}

        def patch(layer: int, head: int, scale: float) -> Patch:
            return Patch("z", [layer], source=scale, heads=[head])

        found = cl.sweep(model, images, patch, over=over, metric=3, progress=False)
        assert set(found._repr_mimebundle_()) == {"text/plain", "image/png"}  # of three axes, those of one label
        with pytest.raises(InputError, match=r"one or two axes, not 3 \(layer, head, scale\).*such as plot\(layer=0\)"):
            found.plot()
        with pytest.raises(InputError, match="head=1 is not here; there are 0, 2"):
            found.plot(head=1)
        with pytest.raises(InputError, match="no axis 'heads'; there are layer, head, scale"):
            found.plot(heads=0)
        heat = found.plot(scale=0.0)
        np.testing.assert_array_equal(heat.collections[0].get_array(), found.mean[:, :, 0])
        low, high = heat.collections[0].get_clim()
        assert low == -high and (heat.get_xlabel(), heat.get_ylabel()) == ("head", "layer (block)")
        assert "3 images, scale 0.0" in heat.get_title() and "logit of" in heat.figure.axes[1].get_ylabel()
        line = found.plot(scale=0.0, head=2)
        np.testing.assert_array_equal(line.lines[0].get_ydata(), found.mean[:, 1, 0])
        assert line.get_xlabel() == "layer (block)" and "effect on logit of" in line.get_ylabel()
        cases = cl.sweep(
            model,
            images,
            lambda case: Patch("mlp_out", [int(case)]),
            over={"case": ["0", "2"]},
            metric=3,
            progress=False,
        )
        assert [text.get_text() for text in cases.plot().get_xticklabels()] == ["0", "2"]
        bundle = cases._repr_mimebundle_()
        assert bundle["image/png"].startswith(b"\x89PNG") and bundle["text/plain"] == repr(cases)

    def test_blocks_before_the_patch_run_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = build("vit")
        runs = []
        run_block = type(model).run_block
        monkeypatch.setattr(
            type(model), "run_block", lambda self, layer, x: runs.append(len(x)) or run_block(self, layer, x)
        )
        cl.sweep(
            model,
            random_images(model, 1),
            lambda layer: Patch("mlp_out", [layer]),
            over={"layer": range(4)},
            metric=0,
            progress=False,
        )
        # Layer l costs 4 - l blocks; the shared prefix 4 blocks in all.
        assert sum(runs) == 4 + (4 + 3 + 2 + 1)

    def test_bad_cells_are_refused_before_the_first_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = build("vit")
        image = random_images(model, 1)
        monkeypatch.setattr(type(model), "run_block", lambda *a: pytest.fail("the model ran"))
        for over, message in [
            ({}, "at least one axis"),
            ({"layer": []}, "at least one"),
            ({"layer": [0, 9]}, "layers 0"),
        ]:
            with pytest.raises(InputError, match=message):
                cl.sweep(model, image, lambda layer: Patch("mlp_out", [layer]), over=over, metric=0, progress=False)
        with pytest.raises(InputError, match="zebra"):
            cl.sweep(model, image, lambda layer: Patch("mlp_out", [layer]), over={"layer": [0]}, metric="zebra")

    def test_many_images_are_run_in_chunks_with_their_own_sources_tokens_and_targets(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = build("vit", torch.float64)
        images, others = random_images(model, 14).split(7)
        store = model.record(others, ["resid_pre"], layers=[1, 2], progress=False)
        own = torch.eye(17, dtype=torch.bool)[3:10]  # one token per image, another for each
        rows = []
        run_block = type(model).run_block
        monkeypatch.setattr(
            type(model), "run_block", lambda self, layer, x: rows.append(len(x)) or run_block(self, layer, x)
        )

        def patch(layer: int, kind: str) -> Patch:
            source = {"store": store, "tensor": store["resid_pre", layer], "one": store["resid_pre", layer][:1]}[kind]
            return Patch("resid_pre", [layer], own, source=source)

        over = {"layer": [1, 2], "kind": ["store", "tensor", "one"]}
        classes = [0, 1, 2, 3, 4, 5, 6]
        metric = {"own": classes, "rather": contrast(1, 2), "both": lambda logits: logits[:, :2].sum(1)}
        found, whole = (
            cl.sweep(model, images, patch, over=over, metric=metric, batch_size=size, progress=False)
            for size in (3, 100)
        )
        with torch.no_grad():
            assert max(rows[: len(rows) // 2]) <= 3
            assert found.axes == {**over, "target": ["own", "rather", "both"]} and found.baseline.shape == (7, 3)
            assert abs(found.values - whole.values).max() < 1e-12
            for i, layer in enumerate([1, 2]):
                for j, kind in enumerate(["store", "tensor", "one"]):
                    logits = model.run_patched(images, patch(layer, kind))
                    scores = [logits[range(7), classes], logits[:, 1] - logits[:, 2], logits[:, :2].sum(1)]
                    assert abs(found.values[:, i, j] - torch.stack(scores, dim=1).numpy()).max() < 1e-10
            plain = model(images)
            assert abs(found.baseline[:, 1] - (plain[:, 1] - plain[:, 2]).numpy()).max() < 1e-10
            assert abs(found.effect - (found.values - found.baseline[:, None, None])).max() < 1e-12
            assert len(found.to_dataframe()) == 7 * 6 * 3

    def test_of_a_store_on_disk_only_the_images_of_a_chunk_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = build("vit")
        images, others = random_images(model, 10).split(5)
        store = model.record(others, ["z"], layers=[1], out=tmp_path / "store", progress=False)
        read = []
        of_shard = Shard.read
        monkeypatch.setattr(
            Shard, "read", lambda self, hook: read.append(self.stop - self.start) or of_shard(self, hook)
        )
        found = cl.sweep(
            model,
            images,
            lambda head: Patch("z", [1], source=store, heads=head),
            over={"head": range(3)},
            metric=contrast(4),
            batch_size=2,
            progress=False,
        )
        assert read == [2, 2, 1] and found.metric == "logit of class 4 against the mean of all classes"
        with pytest.raises(InputError, match=r"has shape \[5, .*axis of 1 or 4"):
            cl.sweep(
                model,
                images[:4],
                lambda head: Patch("z", [1], source=store),
                over={"head": [0]},
                metric=0,
                progress=False,
            )
