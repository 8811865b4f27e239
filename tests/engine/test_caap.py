"""CAAP: the engine against the plain definitions, and the identities that follow from them."""

import gc
import weakref

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab import InputError
from caap_lab.engine.blanks import BLANKS
from caap_lab.engine.settings import CONTEXTS, TAILS, cutoff_blocks
from caap_lab.models.neighbourhoods import Neighbourhood
from helpers.models import ALL_FAMILIES, build, by_trait, random_images
from helpers.plain_caap import plain_groups, plain_scores

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
IN_BOTH_PRECISIONS = ("rope_mixed", "dino_head4")
"""Of the families by trait; the others are compared in float64, where a mistake cannot hide behind rounding."""


NO_CLASS_TOKEN = ("siglip", "average_pool", "conv_stem")
CASES = [
    case
    for context in CONTEXTS
    for case in by_trait([f for f in ALL_FAMILIES if context != "dropped" or f not in NO_CLASS_TOKEN], context)
]
"""Every family in every context; those that are left out are refused, which has a test of its own."""


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1))


def assert_equals_plain_definition(family: str, context: str, dtype: torch.dtype, cutoffs: tuple[int, ...]) -> None:
    model = build(family, dtype)
    image = random_images(model, 1)
    for cutoff in cutoffs:
        found = cl.caap(model, image, 0, cutoff=cutoff, context=context).all_scores
        expected = plain_scores(model, image, cutoff=cutoff, context=context)
        assert relative_difference(found, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("family, context", CASES)
def test_engine_equals_plain_definition(family: str, context: str) -> None:
    assert_equals_plain_definition(family, context, torch.float64, (1, 2, 4))


@pytest.mark.parametrize(
    "family, context",
    [
        pytest.param(
            *case.values, marks=[*case.marks, *([pytest.mark.slow] * (case.values[0] not in IN_BOTH_PRECISIONS))]
        )
        for case in CASES
    ],
)
def test_engine_equals_plain_definition_in_single_precision(family: str, context: str) -> None:
    assert_equals_plain_definition(family, context, torch.float32, (2,))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("family", ["vit", "dino_head4", "dinov2_registers"])
@pytest.mark.parametrize("start, cutoff", [(1, 3), (2, 4), (3, 4)])
def test_ranges_that_start_later(family: str, context: str, start: int, cutoff: int) -> None:
    model = build(family, torch.float64)
    image = random_images(model, 1)
    found = cl.caap(model, image, 0, start=start, cutoff=cutoff, context=context).all_scores
    expected = plain_scores(model, image, start=start, cutoff=cutoff, context=context)
    assert relative_difference(found, expected) < 1e-10


@pytest.mark.parametrize("kind", ["none", "cross1", "box1", "diamond2", "box2"])
@pytest.mark.parametrize("family", ["vit", "odd_grid"])
def test_neighbourhoods(family: str, kind: str) -> None:
    model = build(family, torch.float64)
    image = random_images(model, 1)
    found = cl.caap(model, image, 0, cutoff=2, neighbourhood=kind).all_scores
    expected = plain_scores(model, image, cutoff=2, neighbourhood_kind=kind)
    assert relative_difference(found, expected) < 1e-10


@pytest.mark.parametrize("blank", [*BLANKS, "mean_activations", "image"])
@pytest.mark.parametrize("family", ["vit", "dinov2_registers"])
def test_blanks(family: str, blank: str) -> None:
    model = build(family, torch.float64)
    image, *others = random_images(model, 4).split(1)
    given = {"mean_activations": cl.blanks.mean_activations(others), "image": others[0]}.get(blank, blank)
    for context in ("clamped", "free"):
        found = cl.caap(model, image, 0, cutoff=3, blank=given, context=context).all_scores
        expected = plain_scores(model, image, cutoff=3, blank=given, context=context)
        assert relative_difference(found, expected) < 1e-10


@pytest.mark.parametrize("context", CONTEXTS)
def test_chunk_and_batch_size_do_not_change_the_map(context: str) -> None:
    model = build("dino_head4", torch.float64)
    images = random_images(model, 5)
    one = [cl.caap(model, image, 0, cutoff=2, context=context).all_scores for image in images]
    for chunk_size, batch_size in [(1, 1), (3, 2), (7, 5), (1000, 3)]:
        maps = cl.caap(
            model,
            images,
            0,
            cutoff=2,
            context=context,
            chunk_size=chunk_size,
            batch_size=batch_size,
            progress=False,
        )
        for found, expected in zip(maps, one, strict=True):
            assert relative_difference(found.all_scores, expected) < 1e-12


@pytest.mark.parametrize(
    "tail, attention", [("shared", "exact"), ("exact", "cached"), ("shared", "cached_all"), ("interpolated", "exact")]
)
def test_chunk_and_batch_size_do_not_change_the_approximations(tail: str, attention: str) -> None:
    model = build("dinov2_registers", torch.float64)
    images = random_images(model, 3)
    options = {"cutoff": 2, "tail": tail, "attention": attention, "progress": False}
    one = [cl.caap(model, image, 0, **options).all_scores for image in images]
    for chunk_size, batch_size in [(1, 3), (20, 2), (1000, 3)]:
        maps = cl.caap(model, images, 0, chunk_size=chunk_size, batch_size=batch_size, **options)
        for found, expected in zip(maps, one, strict=True):
            assert relative_difference(found.all_scores, expected) < 1e-12


class TestIdentities:
    """What must hold by construction (the definitions of the contexts)."""

    @pytest.mark.parametrize("family, context", CASES)
    def test_cutoff_zero_gives_the_blank_score(self, family: str, context: str) -> None:
        model = build(family, torch.float64)
        image = random_images(model, 1)
        found = cl.caap(model, image, 2, cutoff=0, context=context)
        with torch.no_grad():
            white = model(model.preprocess(_white(model)))[0, 2]
        assert (found.scores - white).abs().max() < 1e-10

    @pytest.mark.parametrize("family, context", CASES)
    def test_blank_into_blank_is_constant(self, family: str, context: str) -> None:
        model = build(family, torch.float64)
        white = _white(model)
        found = cl.caap(model, white, 2, cutoff=3, context=context)
        with torch.no_grad():
            assert (found.scores - model(white)[0, 2]).abs().max() < 1e-10

    @pytest.mark.parametrize("context", ["clamped", "free", "frozen"])
    def test_patching_every_token_gives_the_source_score(self, family: str, context: str) -> None:
        """With a neighbourhood as wide as the grid; not where registers stay the blank's."""
        model = build(family, torch.float64)
        image = random_images(model, 1)
        wide = Neighbourhood(tuple((r, c) for r in range(-4, 5) for c in range(-4, 5)))
        holds = context == "free" or "reg" not in model.spec.prefix
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setitem(cl.tokens.NEIGHBOURHOODS, "everything", wide)
            expected = model(image)[0]
            for cutoff in (1, 2, 4):
                found = cl.caap(model, image, 0, cutoff=cutoff, neighbourhood="everything", context=context)
                difference = relative_difference(found.all_scores, expected.expand_as(found.all_scores))
                assert difference < 1e-10 if holds else difference > 1e-3

    def test_cutoff_one_is_simple_insertion_in_the_free_context(self) -> None:
        """Patching only the embeddings is pasting the pixels, since patches are embedded one by one."""
        model = build("vit", torch.float64)
        image, white = random_images(model, 1), _white(model)
        found = cl.caap(model, image, 0, cutoff=1, context="free", neighbourhood="none").all_scores
        for row in range(4):
            for col in range(4):
                pasted = white.clone()
                pixels = (..., slice(8 * row, 8 * row + 8), slice(8 * col, 8 * col + 8))
                pasted[pixels] = image[pixels]
                with torch.no_grad():
                    assert (model(pasted)[0] - found[row, col]).abs().max() < 1e-10

    def test_frozen_is_clamped_over_all_blocks_where_only_the_class_token_is_read(self) -> None:
        model = build("vit", torch.float64)
        image = random_images(model, 1)
        frozen = cl.caap(model, image, 0, cutoff=2, context="frozen").all_scores
        clamped = cl.caap(model, image, 0, cutoff=4).all_scores
        assert relative_difference(frozen, clamped) < 1e-12

    def test_shared_tail_is_exact_without_neighbours(self, family: str) -> None:
        model = build(family, torch.float64)
        image = random_images(model, 1)
        exact = cl.caap(model, image, 0, cutoff=2, neighbourhood="none").all_scores
        shared = cl.caap(model, image, 0, cutoff=2, neighbourhood="none", tail="shared").all_scores
        assert relative_difference(shared, exact) < 1e-12

    def test_shared_tail_is_exact_when_nothing_evolves(self) -> None:
        model = build("vit", torch.float64)
        image = random_images(model, 1)
        exact = cl.caap(model, image, 0, cutoff=4).all_scores
        shared = cl.caap(model, image, 0, cutoff=4, tail="shared").all_scores
        assert relative_difference(shared, exact) < 1e-12

    def test_cached_attention_is_exact_on_the_blank_itself(self, family: str) -> None:
        """The blank's own queries are then the live queries; also when S_i is every token."""
        model = build(family, torch.float64)
        white = _white(model)
        exact = cl.caap(model, white, 0, cutoff=2).all_scores
        cached = cl.caap(model, white, 0, cutoff=2, attention="cached").all_scores
        assert relative_difference(cached, exact) < 1e-10


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize(
    "attention, cutoff",
    [("exact", 1), *((attention, cutoff) for attention in ("exact", "cached", "cached_all") for cutoff in (2, 4))],
)
def test_approximations_equal_their_definitions(attention: str, tail: str, cutoff: int) -> None:
    """E-CAAP and the shared tail against loops over groups, heads and tokens."""
    model = build("vit", torch.float64)
    image = random_images(model, 1)
    found = cl.caap(model, image, 0, cutoff=cutoff, attention=attention, tail=tail).all_scores
    expected = plain_groups(model, image, cutoff, attention, tail)
    assert relative_difference(found, expected) < 1e-10
    if (attention, tail) != ("exact", "exact") and (attention != "exact" or cutoff < 4):
        exact = cl.caap(model, image, 0, cutoff=cutoff).all_scores
        assert relative_difference(found, exact) > 1e-6, "an approximation that changes nothing"


def test_scores_of_all_kinds_and_classes() -> None:
    model = build("vit")
    image = random_images(model, 1)
    logit = cl.caap(model, image, 3)
    prob = cl.caap(model, image, 3, score="prob")
    logprob = cl.caap(model, image, 3, score="logprob")
    assert logit.all_scores.shape == (4, 4, 7)
    assert torch.equal(prob.scores, logit.all_scores.softmax(-1)[..., 3])
    assert (logprob.scores - prob.scores.log()).abs().max() < 1e-5
    assert torch.equal(logit.for_target(5).scores, cl.caap(model, image, 5).scores)
    assert logit.for_target("class 5").target == 5


def test_target_defaults_to_the_prediction() -> None:
    model = build("vit")
    images = random_images(model, 3)
    with torch.no_grad():
        predicted = model(images).argmax(-1).tolist()
    assert [m.target for m in cl.caap(model, images, progress=False)] == predicted
    assert [m.target for m in cl.caap(model, images, [1, 2, 3], progress=False)] == [1, 2, 3]


def test_targets_may_be_an_array_and_blanks_of_ones_own_are_told_apart() -> None:
    model = build("vit")
    images = random_images(model, 4)
    maps = cl.caap(model, images[:2], np.array([1, 2]), progress=False)
    assert [m.target for m in maps] == [1, 2]
    labels = [cl.caap(model, images[0], blank=image).settings["blank"] for image in (images[2], images[3], images[2])]
    assert labels[0] == labels[2] != labels[1] and labels[0].startswith("image ")
    mean = cl.caap(model, images[0], blank=cl.blanks.mean_activations(images[2:])).settings["blank"]
    assert mean.startswith("mean_activations ")
    with pytest.raises(InputError, match="No images"):
        cl.caap(model, [])


def test_one_image_gives_a_map_and_several_a_list() -> None:
    model = build("vit")
    images = random_images(model, 2)
    assert isinstance(cl.caap(model, images[0]), cl.AttributionMap)
    assert isinstance(cl.caap(model, images[:1]), cl.AttributionMap)
    assert len(cl.caap(model, [images[0]])) == 1
    assert len(cl.caap(model, images, progress=False)) == 2


def test_noise_is_seeded() -> None:
    model = build("vit")
    image = random_images(model, 1)
    first, again, other = (cl.caap(model, image, 0, blank="noise", seed=s).scores for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_cutoff_as_count_and_share() -> None:
    assert [cutoff_blocks(c, 12) for c in (None, 0, 12, 0.5, 1.0, 0.0, 1)] == [8, 0, 12, 6, 12, 0, 1]


def test_bad_input_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    image = random_images(model, 1)
    monkeypatch.setattr(type(model), "run_block", lambda *a: pytest.fail("the model ran"))
    for options, message in [
        ({"cutoff": 5}, r"from 0 \(patch nothing\) to 4"),
        ({"cutoff": -1}, "from 0"),
        ({"cutoff": 1.5}, "share of the blocks"),
        ({"start": 4}, "start=4"),
        ({"start": 2, "cutoff": 2}, "leaves no block"),
        ({"neighbourhood": "box9"}, "no neighbourhood 'box9'"),
        ({"blank": "purple"}, "no blank 'purple'"),
        ({"blank": [image, image]}, "one image"),
        ({"context": "open"}, "clamped, free, dropped, frozen"),
        ({"attention": "flash"}, "attention='flash'"),
        ({"tail": "long"}, "tail='long'"),
        ({"score": "loss"}, "score='loss'"),
        ({"context": "free", "attention": "cached"}, "approximate context='clamped'"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"target": 7}, "0 to 6"),
        ({"target": "zebra"}, "zebra"),
        ({"target": [1, 2]}, "2 targets"),
        ({"cutoff": "half"}, "neither a number"),
        ({"chunk_size": 2.5}, "whole number"),
        ({"batch_size": "a"}, "whole number"),
    ]:
        with pytest.raises(InputError, match=message):
            cl.caap(model, image, **{"target": 0, **options})
    with pytest.raises(InputError, match="NaN"):
        cl.caap(model, image * float("nan"), 0)


@pytest.mark.parametrize("family", NO_CLASS_TOKEN)
def test_dropped_needs_a_class_token(family: str) -> None:
    model = build(family)
    with pytest.raises(InputError, match="no class token"):
        cl.caap(model, random_images(model, 1), 0, context="dropped")


def test_hooks_on_the_model_are_refused_not_ignored() -> None:
    model = build("vit")
    model.add_hook("blocks.0.hook_mlp_out", lambda activation, hook: activation * 0)
    with pytest.raises(InputError, match="has hooks"):
        cl.caap(model, random_images(model, 1), 0)


def test_changed_weights_make_a_new_blank_run() -> None:
    model = build("vit")
    image = random_images(model, 1)
    before = cl.caap(model, image, 0).scores
    with torch.no_grad():
        model.vit.head.bias += 1.0
        model.vit.blocks[0].attn.qkv.bias += 0.1
    assert (
        relative_difference(
            cl.caap(model, image, 0, context="clamped").all_scores, plain_scores(model, image, cutoff=3)
        )
        < 1e-5
    )
    assert not torch.allclose(before, cl.caap(model, image, 0).scores)


def test_a_model_and_its_blank_runs_can_be_freed() -> None:
    model = build("vit")
    found = cl.caap(model, random_images(model, 1), 0)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None and found.scores.shape == (4, 4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gpu_agrees_with_cpu(dtype: torch.dtype) -> None:
    model = build("deit3")
    image = random_images(model, 1)
    expected = cl.caap(model, image, 0, cutoff=2).all_scores
    model = model.to("cuda", dtype)
    found = cl.caap(model, image, 0, cutoff=2).all_scores
    assert relative_difference(found, expected) < {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_cpu_agrees_with_single(dtype: torch.dtype) -> None:
    model = build("deit3")
    image = random_images(model, 1)
    expected = cl.caap(model, image, 0, cutoff=2).all_scores
    found = cl.caap(model.to(dtype), image, 0, cutoff=2).all_scores
    assert relative_difference(found, expected) < {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]


def _white(model: cl.HookedViT) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    return ((torch.ones(1, 3, *model.spec.image_size) - mean) / std).to(model.dtype)
