"""Traces: every cell equals a run with plain torch hooks on timm's own modules, on a scale from corrupted to clean."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import caap_lab as cl
from caap_lab import InputError
from caap_lab.mechanisms.trace_cells import PREFIX, REST
from helpers.models import HookedViT, build, by_trait, random_images
from helpers.passes import Passes

Change = Callable[[Tensor], Tensor]


def timm_module(model: HookedViT, point: str, layer: int) -> tuple[Any, bool]:
    """The module of timm's model whose input (True) or output (False) is a hook point."""
    block = model.block(layer)
    if point == "resid_pre":
        return block, True
    if point == "z":
        return getattr(block.attn, "norm", None) or block.attn.proj, True
    last = "drop_path" if model.head is None else "ls"  # with a head of ours, blocks run step by step
    return getattr(block, last + {"attn_out": "1", "mlp_out": "2"}[point]), False


@contextmanager
def timm_hook(model: HookedViT, point: str, layer: int, change: Change) -> Iterator[None]:
    module, before = timm_module(model, point, layer)
    if before:
        handle = module.register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def plain_logits(model: HookedViT, images: Tensor) -> Tensor:
    return model.vit(images) if model.head is None else model(images)


def plain_activations(model: HookedViT, images: Tensor, points: Iterable[str]) -> dict[tuple[str, int], Tensor]:
    kept: dict[tuple[str, int], Tensor] = {}

    def keep(key: tuple[str, int], activation: Tensor) -> Tensor:
        return kept.setdefault(key, activation)

    with ExitStack() as hooks, torch.no_grad():
        for key in product(points, range(model.n_layers)):
            hooks.enter_context(timm_hook(model, *key, partial(keep, key)))
        plain_logits(model, images)
    return kept


def plain_scores(
    model: HookedViT, kept: dict[tuple[str, int], Tensor], receiver: Tensor, point: str, layers: range, chosen: Change
) -> np.ndarray:
    """Logits of the receiver with what is chosen of some layers' activations taken from another run."""

    def put(layer: int, x: Tensor) -> Tensor:
        return torch.where(chosen(x), kept[point, layer], x)

    with ExitStack() as hooks, torch.no_grad():
        for layer in layers:
            hooks.enter_context(timm_hook(model, point, layer, partial(put, layer)))
        return plain_logits(model, receiver).numpy()


def head_chooser(head: int, heads: int) -> Change:
    return lambda x: (torch.arange(x.shape[-1]) // (x.shape[-1] // heads) == head)[None, None]


def token_chooser(*tokens: int) -> Change:
    return lambda x: (torch.arange(x.shape[1])[:, None] == torch.tensor(tokens)).any(1)[None, :, None]


@pytest.mark.parametrize("family", by_trait())
def test_cells_equal_runs_with_torch_hooks_on_timms_modules(family: str) -> None:
    model = build(family, torch.float64)
    clean, corrupted = random_images(model, 4).split(2)
    stream = "resid_pre" if model.head is None else "attn_out"
    heads = model.spec.n_heads
    last = model.spec.n_tokens - 1
    with torch.no_grad():
        scores = [plain_logits(model, images)[:, 2].numpy() for images in (clean, corrupted)]
    span = (scores[0] - scores[1])[:, None]
    for direction, window in (("denoise", 1), ("noise", 2)):
        given, receiver = (clean, corrupted) if direction == "denoise" else (corrupted, clean)
        kept = plain_activations(model, given, (stream, "mlp_out", "z"))
        options = {"direction": direction, "window": window, "progress": False}
        of_tokens = {"tokens": [0, last], "layers": [1, 3], "batch_size": 6}
        tokens = cl.trace(model, clean, corrupted, 2, points=[stream, "mlp_out"], **of_tokens, **options)
        by_head = cl.trace(model, clean, corrupted, 2, points="z", by="head", layers=[0, 3], **options)
        by_layer = cl.trace(model, clean, corrupted, 2, by="layer", points="mlp_out", layers=2, **options)
        assert tokens.axes == {"point": [stream, "mlp_out"], "layer": [1, 3], "token": [0, last]}
        cells = [
            (tokens.data.sel(point=point, layer=layer, token=token), point, layer, token_chooser(token))
            for point, layer, token in [(stream, 1, 0), (stream, 3, last), ("mlp_out", 1, last), ("mlp_out", 3, 0)]
        ]
        places = ((0, heads - 1), (3, 0))
        cells += [(by_head.data.sel(layer=i, head=h), "z", i, head_chooser(h, heads)) for i, h in places]
        cells += [(by_layer.data.sel(layer=2), "mlp_out", 2, lambda x: torch.ones(1, 1, 1, dtype=torch.bool))]
        for found, point, layer, chosen in cells:
            around = range(layer, layer + 1) if window == 1 else range(max(0, layer - 1), layer + 1)
            expected = plain_scores(model, kept, receiver, point, around, chosen)[:, 2]
            assert abs(found["value"].values - expected).max() < 1e-10, (family, point, layer)
            assert abs(found["effect"].values - (expected - scores[1]) / span[:, 0]).max() < 1e-8
        assert abs(tokens.data["clean"].values - scores[0]).max() < 1e-10


@pytest.mark.parametrize("family", by_trait())
def test_all_tokens_before_block_zero_give_the_other_run(family: str) -> None:
    model = build(family)
    clean, corrupted = random_images(model, 2).split(1)
    for direction, end in (("denoise", 1.0), ("noise", 0.0)):
        found = cl.trace(model, clean, corrupted, by="layer", direction=direction, progress=False, layers=0)
        assert abs(found.mean - end).max() < 1e-5 and found.axes == {"layer": [0]}


class TestTrace:
    """What else a trace takes, gives and refuses."""

    def test_regions_are_objects_rest_and_prefix(self) -> None:
        model = build("dinov2_registers", torch.float64)
        clean, corrupted = random_images(model, 6).split(3)
        masks = [{"box": np.zeros((32, 32), bool), "dot": np.zeros((32, 32), bool)} for _ in range(3)]
        patches = {"box": [[5, 6], [6, 7], [9]], "dot": [[0], [15], [3]]}
        for image, mask in enumerate(masks):
            for name, numbers in patches.items():
                for number in numbers[image]:
                    mask[name].reshape(4, 8, 4, 8)[number // 4, :, number % 4] = True
        options = {"by": "region", "layers": [1, 3], "batch_size": 2, "points": "attn_out", "progress": False}
        found = cl.trace(model, clean, corrupted, 1, masks=masks, **options)
        kept = plain_activations(model, clean, ["attn_out"])
        assert found.axes == {"layer": [1, 3], "region": ["box", "dot", REST, PREFIX]}
        n = model.spec.n_prefix
        for image in range(3):
            own = {name: [n + number for number in numbers[image]] for name, numbers in patches.items()}
            own[PREFIX] = list(range(n))
            own[REST] = sorted(set(range(model.spec.n_tokens)) - {t for tokens in own.values() for t in tokens})
            for name, tokens in own.items():
                logits = plain_scores(model, kept, corrupted, "attn_out", range(1, 2), token_chooser(*tokens))
                assert abs(found.data["value"].sel(layer=1, region=name)[image] - logits[image, 1]) < 1e-10
        # behind the last block's attention the head reads the class token alone
        assert (found.data["effect"].sel(layer=3, region=["box", "dot", REST]) == 0).all()
        for wrong, message in [
            (masks[:2], "each of the 3 pairs, not 2"),
            ([masks[0], masks[1], {"box": masks[2]["box"]}], "same objects: box, dot in pair 0, but box in pair 2"),
            ([{**mask, "dot": np.zeros((32, 32), bool)} for mask in masks], "'dot' of pair 0 covers no patch"),
            ([{REST: mask["box"]} for mask in masks], "cannot be called 'rest'"),
            (None, "needs masks"),
        ]:
            with pytest.raises(InputError, match=message):
                cl.trace(model, clean, corrupted, 1, by="region", masks=wrong)

    def test_several_targets_and_pairs_from_one_pass(self) -> None:
        model = build("vit", torch.float64)
        clean, corrupted = random_images(model, 6).split([5, 1])  # one corrupted image for all
        targets = {"one": 3, "rather": cl.contrast(3, 4), "own": [0, 1, 2, 3, 4], "square": lambda x: x[:, 0] ** 2}
        options = {"by": "head", "points": "z", "layers": [1, 2], "progress": False}
        found = cl.trace(model, clean, corrupted, targets, batch_size=2, **options)
        assert list(found.axes) == ["layer", "head", "target"] and found.data["clean"].shape == (5, 4)
        for name, target in targets.items():
            alone = cl.trace(model, clean, corrupted.expand(5, -1, -1, -1), target, **options)
            assert abs(found.data["effect"].sel(target=name).values - alone.per_image).max() < 1e-8
        assert found.p.shape == (2, 3, 4) and (found.p >= 2 / 2**5).all() and (found.p <= 1).all()
        frame = found.to_dataframe()
        columns = ["model", "image", "layer", "head", "target", "clean", "corrupted", "value", "effect"]
        assert list(frame.columns) == columns
        effect = (frame["value"] - frame["corrupted"]) / (frame["clean"] - frame["corrupted"])
        assert abs(frame["effect"] - effect).max() < 1e-12
        other = cl.trace(model, clean, corrupted, targets, direction="noise", **options)
        assert list(found.difference(other).columns[-2:]) == ["high", "p"]

    def test_default_target_is_the_difference_of_the_two_predictions(self) -> None:
        model = build("vit", torch.float64)
        images = random_images(model, 8)
        with torch.no_grad():
            logits = model(images)
        classes = logits.argmax(1).tolist()
        pairs = [(i, j) for i in range(8) for j in range(i) if classes[i] != classes[j]]
        same = [(i, j) for i in range(8) for j in range(i) if classes[i] == classes[j]]
        (one, other), (third, fourth) = pairs[0], same[0]
        clean, corrupted = images[[one, third]], images[[other, fourth]]
        found = cl.trace(model, clean, corrupted, by="layer", progress=False)
        given = [cl.contrast(classes[one], classes[other]), cl.contrast(classes[third])]
        expected = cl.trace(model, clean, corrupted, given, by="layer", progress=False)
        assert (found.per_image == expected.per_image).all()
        assert found.pair(0).data.attrs["target"] == f"class {classes[one]} rather than class {classes[other]}"
        with pytest.raises(InputError, match="1 of 2 pairs cannot be normalised: for pair 1 the clean"):
            cl.trace(model, clean, clean[[1, 1]], given, by="layer")
        assert not model.has_hooks()
        lost = logits[fourth, 0]
        for function in (cl.trace, cl.attribution_patching, partial(cl.path_patch, senders="mlps", receivers="logits")):
            with pytest.raises(InputError, match=r"image of pair \d scores nan for a function of the logits"):
                function(
                    model, clean, corrupted, target=lambda x: torch.where(x[:, 0].isclose(lost), torch.nan, x[:, 0])
                )
        coarse, pair = model.to(torch.bfloat16), images[:2].to(torch.bfloat16)
        with torch.no_grad():
            middle = coarse(pair)[:, 0].mean()
        with pytest.raises(InputError, match="cannot be normalised"):  # apart by one step of the number format
            cl.trace(coarse, *pair, lambda x: torch.where(x[:, 0] > middle, 8.0, 8.0625), by="layer")

    def test_passes_are_those_that_are_run(self) -> None:
        model = build("vit")
        clean, corrupted = random_images(model, 4).split(2)
        for options in (
            {"points": ["resid_pre", "mlp_out"]},
            {"by": "head", "points": "z", "layers": [1, 2], "window": 3},
        ):
            with Passes(model) as counted:
                found = cl.trace(model, clean, corrupted, 0, progress=False, batch_size=5, **options)
            assert abs(found.data.attrs["passes"] - counted.forwards) < 1e-9
            assert found.data.attrs["plain_passes"] == 2 * (2 + found.mean.size)

    def test_pictures(self) -> None:
        model = build("dinov2_registers")
        clean, corrupted = random_images(model, 4).split(2)
        found = cl.trace(model, clean, corrupted, 0, tokens=[0, 1, 7], layers=[0, 2], progress=False)
        ax = found.plot()
        texts = [text.get_text() for text in ax.texts]
        assert texts == ["cls", "reg 0", "reg 1", "reg 2", "reg 3", "layer 0", "layer 2"]
        assert "2 pairs" in ax.get_title() and ax.figure.axes[1].get_ylabel() == "mean effect (0 corrupted,\n1 clean)"
        pair = found.plot(pair=1, layer=2)
        sheet = pair.images[0].get_array()
        assert "1 pair\n" in pair.get_title()
        place = sheet[40:44, -4:, :3].astype(int)  # a patch that was not traced shows the image alone, in grey
        assert (place == place[..., :1]).all() and (sheet[40:44, -4:, 3] == 255).all()
        heads = cl.trace(model, clean, corrupted, 0, points="z", by="head", direction="noise", progress=False)
        by_head = heads.plot()
        low, high = by_head.collections[0].get_clim()
        assert "2 pairs" in by_head.get_title()
        assert low + high == pytest.approx(2) and "noise: class 0" in heads.condition
        assert (
            "furthest from 1 at layer=" in repr(heads)
            and "an effect of 1 is" in repr(heads)
            and "passes, not" in repr(heads)
        )
        with pytest.raises(InputError, match="Pair 2 does not exist; there are pairs 0 to 1"):
            found.plot(pair=2)

    def test_what_does_not_fit_is_refused_before_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = build("vit")
        clean, corrupted = random_images(model, 5).split([3, 2])
        monkeypatch.setattr(type(model), "run_block", lambda *a: pytest.fail("the model ran"))
        own = np.eye(3, 17, dtype=bool)
        for options, message in [
            ({}, "3 clean and 2 corrupted"),
            ({"points": "resid_per"}, "Nearest: .*resid_pre"),
            ({"points": "blocks.1.attn.hook_z"}, "use points='attn.z', layers=1"),
            ({"points": "logits"}, "not inside a block"),
            ({"points": []}, "one or several different names"),
            ({"by": "patch"}, "token, region, head, layer"),
            ({"by": "head"}, "'resid_pre' has no heads"),
            ({"points": "z", "heads": 3}, "heads 0 to 2"),
            ({"tokens": own}, "same tokens for all pairs"),
            ({"tokens": [17]}, "tokens 0 to 16"),
            ({"layers": 4}, "layers 0 to 3"),
            ({"window": 0}, "window must be"),
            ({"direction": "both"}, "denoise, noise"),
            ({"masks": own}, "only for by='region'"),
            ({"batch_size": 0}, "batch_size must be"),
            ({"target": "zebra"}, "zebra"),
        ]:
            others = corrupted if not options else clean
            with pytest.raises(InputError, match=message):
                cl.trace(model, clean, others, **options)
