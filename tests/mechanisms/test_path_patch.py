"""Path patching: equal to its four runs in full, a known circuit found, sums of direct paths, screens, tables."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import caap_lab as cl  # isort: skip  # before timm, for a CPU-only torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from caap_lab.mechanisms.nodes import receivers_of, senders_of
from helpers.models import build, by_trait, random_images
from helpers.plain_paths import FourRuns

SENDERS = {"0.1": ("head", 0, 1), "mlp 1": ("mlp", 1), "attn 1": ("attn", 1), "embed": ("embed",)}
RECEIVERS: list[tuple[Any, list[tuple]]] = [
    ("3.1.k", [("head", 3, 1, "k")]),
    ("2.2", [("head", 2, 2, part) for part in "qkv"]),
    ("mlp 3", [("mlp", 3)]),
    ("attn 2", [("attn", 2)]),
    ("logits", [("logits",)]),
    (["1.2.v", "mlp 1", "3.0.q"], [("head", 1, 2, "v"), ("mlp", 1), ("head", 3, 0, "q")]),
]


def separate_biases(model: cl.HookedViT) -> None:
    """Let timm's BEiT call its layer qkv, on which the plain definition has its hooks."""
    for module in model.vit.modules():
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True


@pytest.mark.parametrize("family", by_trait())
def test_paths_equal_the_four_runs_in_full(family: str) -> None:
    model = build(family, torch.float64)
    separate_biases(model)
    clean, corrupted = random_images(model, 2), random_images(model, 2, seed=1)
    shared = family == "shared_keys"  # whose layers make keys and values of all heads at once
    receivers = [(one, plain) for one, plain in RECEIVERS if not shared or all(kind != "head" for kind, *_ in plain)]
    for direction, tokens, senders in (("noise", None, ["0.1", "mlp 1"]), ("denoise", [0, 3], ["attn 1", "embed"])):
        found = cl.path_patch(
            model, clean, corrupted, senders, [one for one, _ in receivers], 3,
            direction=direction, tokens=tokens, batch_size=8, progress=False,
        )  # fmt: skip
        base, other = (clean, corrupted) if direction == "noise" else (corrupted, clean)
        plain = FourRuns(model, base, other, tokens)
        for row, sender in enumerate(senders):
            for column, (_, nodes) in enumerate(receivers):
                expected = (plain.logits(SENDERS[sender], nodes) - plain.base_logits)[:, 3]
                np.testing.assert_allclose(
                    found.per_image[:, row, column], expected.numpy(), atol=1e-10, err_msg=f"{sender} {nodes}"
                )


CUE, OBJECT, DIGIT, MARK, ANSWER, IS_CLASS = (0, 1), (2, 3), (4, 5), 6, (7, 8), 9
"""Channels of the toy model: red or blue cue, red or blue object, digit a or b, what the circuit writes."""


def toy() -> cl.HookedViT:
    """Two layers whose circuit is known: which digit stands on the object of the cue's colour?

    Head 0.1 looks from an object to a cue of its colour, and writes a mark; head 1.0 looks from the class token to the
    marked object, and copies its digit. Head 0.0 and head 1.1 read and write elsewhere.
    """
    vit = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=2, norm_layer=nn.Identity
    )
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
        for channel in range(6):  # each feature is one pixel of the patch
            vit.patch_embed.proj.weight[channel, 0, 0, channel] = 1
        vit.cls_token[0, 0, IS_CLASS] = 1
        first, second = (block.attn for block in vit.blocks)
        for place, (cue, of) in enumerate(zip(CUE, OBJECT, strict=True)):
            first.qkv.weight[8 + place, of] = 8
            first.qkv.weight[16 + 8 + place, cue] = 8
            first.qkv.weight[32 + 8, cue] = 1
        first.proj.weight[MARK, 8] = 1
        second.qkv.weight[0, IS_CLASS] = 8
        second.qkv.weight[16, MARK] = 8
        for place, (digit, answer) in enumerate(zip(DIGIT, ANSWER, strict=True)):
            second.qkv.weight[32 + place, digit] = 1
            second.proj.weight[answer, place] = 1
            vit.head.weight[place, answer] = 1
        for attention, head in ((first, 0), (second, 1)):
            attention.qkv.weight[head * 8 :: 16, :6] = 0.3
            attention.proj.weight[10:, head * 8 : head * 8 + 8] = 0.3
    return cl.HookedViT(vit.double())


def toy_images(*cues: int) -> torch.Tensor:
    """A red object with digit a, a blue one with digit b, and a cue of a colour."""
    images = torch.zeros(len(cues), 3, 32, 32, dtype=torch.float64)
    for image, cue in zip(images, cues, strict=True):
        for row, channels in ((0, [CUE[cue]]), (1, [OBJECT[0], DIGIT[0]]), (2, [OBJECT[1], DIGIT[1]])):
            image[0, 8 * row, channels] = 1
    return images


def test_a_known_circuit_is_recovered() -> None:
    model = toy()
    clean, corrupted = toy_images(0, 1), toy_images(1, 0)
    target = [cl.contrast(0, 1), cl.contrast(1, 0)]
    into = [f"1.{head}.{part}" for head in range(2) for part in "qkv"]
    found = cl.path_patch(model, clean, corrupted, ["embed", "heads"], [*into, "logits"], target, progress=False)
    edges = found.edges(None)
    assert tuple(edges.loc[0, ["sender", "receiver"]]) == ("0.1", "1.0.k")
    assert edges.loc[0, "share"] > 0.95 and edges.loc[0, "effect"] < 0  # noise takes the answer away
    assert tuple(edges.loc[1, ["sender", "receiver"]]) == ("1.0", "logits")
    assert edges["effect"][2:].abs().max() < 1e-3 * abs(edges["effect"][0])
    deeper = cl.path_patch(
        model, clean, corrupted, "embed", ["0.1.q", "0.1.k", "0.1.v"], target, direction="denoise", progress=False
    )
    np.testing.assert_allclose(deeper.share.mean(axis=0), [[0, 1, 0]], atol=0.05)  # the cue enters by the keys
    only = {"target": target, "progress": False}
    objects = cl.path_patch(model, clean, corrupted, "0.1", "1.0.k", tokens=[5, 9], **only)  # rows 1 and 2, column 0
    rest = cl.path_patch(model, clean, corrupted, "0.1", "1.0.k", tokens=[0, 1, 2, 3], **only)
    assert objects.share.mean() > 0.95 and abs(rest.share.mean()) < 1e-3
    screened = cl.path_patch(model, clean, corrupted, ["embed", "heads"], into, target, screen=1, progress=False)
    assert list(screened.edges(None)["receiver"]) == ["1.0.k"] and "1 of 18 paths run" in repr(screened)


@pytest.mark.parametrize("family", ["dinov2_registers", "dino_head4"])
def test_all_direct_paths_to_the_logits_together_carry_all(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2), random_images(model, 2, seed=1)
    found = cl.path_patch(model, *images, {"all": "all"}, "logits", {"a": 1, "b": cl.contrast(2, 3)}, progress=False)
    np.testing.assert_allclose(found.share, 1, atol=1e-10)
    assert found.per_image.shape == (2, 1, 1, 2) and found.axes["sender"] == ["all"]
    assert found.data.attrs["passes"] == 2 * 4  # two runs for the scores and two for the paths, of two pairs


def test_direct_paths_add_up_where_the_head_is_linear() -> None:
    model = toy()
    clean, corrupted = toy_images(0, 1), toy_images(1, 0)
    each = cl.path_patch(model, clean, corrupted, "all", "logits", 0, progress=False)
    np.testing.assert_allclose(each.share.sum(axis=1), 1, atol=1e-10)


def test_paths_to_one_receiver_are_shown_by_layer_and_head() -> None:
    model = build("vit")
    pairs = random_images(model, 2), random_images(model, 2, seed=1)
    found = cl.path_patch(model, *pairs, "all", "logits", 1, progress=False)
    ax = found.plot()
    assert [text.get_text() for text in ax.get_xticklabels()][-2:] == ["mlp", "embed"]
    cells = np.ma.filled(ax.collections[0].get_array(), np.nan).reshape(model.n_layers, -1)
    assert cells[2, 1] == found.mean[found.axes["sender"].index("2.1"), 0]
    assert cells[3, -2] == found.mean[found.axes["sender"].index("mlp 3"), 0]
    assert np.isfinite(cells[0, -1]) and np.isnan(cells[1:, -1]).all()
    assert ax.get_title().endswith("receiver logits")


def test_names_in_boxes_are_dark_in_a_dark_style() -> None:
    model = toy()
    with plt.style.context("dark_background"):
        found = cl.path_patch(model, toy_images(0), toy_images(1), "heads", ["heads", "logits"], progress=False)
        names = [text for text in found.graph(6).texts if text.get_bbox_patch()]
    assert names and {text.get_color() for text in names} == {"black"}


def test_results_do_not_depend_on_batches_or_screens() -> None:
    model = build("vit")
    clean, corrupted = random_images(model, 5), random_images(model, 1, seed=1)
    options: dict[str, Any] = {"target": cl.contrast(1), "progress": False}
    full = cl.path_patch(model, clean, corrupted, "heads", ["2.0.q", "3.1.k", "mlp 2", "logits"], **options)
    screened = cl.path_patch(
        model, clean, corrupted, "heads", ["2.0.q", "3.1.k", "mlp 2", "logits"], screen=4, batch_size=2, **options
    )
    direct = cl.path_patch(model, clean, corrupted, "heads", "logits", screen=4, **options)  # of which none needs a run
    np.testing.assert_allclose(direct.mean[:, 0], full.mean[:, 3], atol=1e-5)
    ran = np.isfinite(screened.mean)
    assert ran.sum() == 4 + 12 and ran[:, 3].all()  # direct paths to the logits are always exact
    np.testing.assert_allclose(screened.mean[ran], full.mean[ran], atol=1e-5)
    assert np.isfinite(full.mean).sum() == screened.data["estimate"].notnull().all("image").sum() == 12 + 6 + 9 + 9
    there = np.isfinite(full.per_image)
    assert np.corrcoef(screened.data["estimate"].values[there], full.per_image[there])[0, 1] > 0.95
    assert full.data.attrs["plain_passes"] == 5 * (2 + 2 * 36)
    assert full.data.attrs["passes"] == 5 * (4 + (6 * 2 + 9 * 1 + 9 * 1) / 4)
    frame = full.edges(3)
    assert list(frame.columns) == ["sender", "receiver", "effect", "standard_error", "share", "p"]
    assert full.graph(6).get_title().endswith("6 strongest paths\nclass 1 against the mean of all classes")
    assert full._repr_mimebundle_()["image/png"] and "36" not in repr(full).split(";")[0]
    assert not model.has_hooks()


def test_words_for_parts() -> None:
    spec = build("vit").spec
    names = [
        one.name for one in receivers_of(spec, ["L3H1", ("head", 2, 1, "k"), (1, 2), "mlp3", ("mlp", 1), "logits"])
    ]
    assert names == ["3.1", "2.1.k", "1.2", "mlp 3", "mlp 1", "logits"]
    assert len(senders_of(spec, "all")) == 1 + 4 * 3 + 4
    assert len(receivers_of(spec, "all")) == 4 * 3 * 3 + 4 + 1
    assert [one.name for one in senders_of(spec, {"early": ["0.0", "0.1"], "embed": "embed"})] == ["early", "embed"]
    assert [one.name for one in senders_of(spec, [["0.0", "mlp 0"]])] == ["0.0 + mlp 0"]


@pytest.mark.parametrize(
    ("senders", "receivers", "options", "words"),
    [
        ("9.1", "logits", {}, "layer 9 does not exist; there are layers 0 to 3"),
        ("0.7", "logits", {}, "head 7 does not exist; there are heads 0 to 2"),
        ("0.1.q", "logits", {}, "only reads, so it cannot be a sender"),
        ("0.1", "embed", {}, "cannot be a receiver"),
        ("3.1", "2.0.q", {}, "No path leads from 3.1 to 2.0.q"),
        ("heads", "nonsense", {}, "is not a part of the model; use"),
        (["0.1", "0.1"], "logits", {}, "given twice"),
        ("0.1", "logits", {"direction": "sideways"}, "denoise, noise"),
        ("0.1", "logits", {"screen": 0}, "at least 1"),
        ("0.1", "logits", {"tokens": [99]}, "Token 99 does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(senders: Any, receivers: Any, options: dict[str, Any], words: str) -> None:
    model = build("vit")
    images = random_images(model, 1)
    with pytest.raises(cl.InputError, match=words):
        cl.path_patch(model, images, images, senders, receivers, 1, progress=False, **options)


def test_a_model_with_hooks_is_refused() -> None:
    model = build("vit")
    images = random_images(model, 1)
    with (
        model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: x)]),
        pytest.raises(cl.InputError, match="has hooks"),
    ):
        cl.path_patch(model, images, images, "0.1", "logits", 1, progress=False)
