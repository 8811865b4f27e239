"""What `run_with_cache` gives: a dict by full names that knows TransformerLens's short ones, and sums itself up."""

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from transformer_lens.ActivationCache import ActivationCache as TheirCache
from transformer_lens.utilities import get_act_name

from caap_lab import InputError
from helpers.black_boxes import small_black_box
from helpers.cnns import small_cnn
from helpers.mixers import small_mixer
from helpers.models import build, random_images


@pytest.fixture(scope="module")
def cache() -> Any:
    model = build("vit")
    return model.run_with_cache(random_images(model, 2))[1]


TRANSFORMER_LENS = [
    *[(name, layer) for name in ("q", "k", "v", "z", "pattern", "attn_scores", "pre", "post") for layer in (0, 3)],
    *[(name, 1) for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")],
    *[("normalized", 2, part) for part in ("ln1", "ln2")],
    *[(name, 1) for name in ("attn", "key", "query", "value", "mlp_post")],
    ("q", 2, "a"),
    ("resid_pre", 1, "b"),
    ("normalized",),
    ("embed",),
    ("logits",),
    ("k3",),
    ("normalized3ln1",),
]


@pytest.mark.parametrize("key", TRANSFORMER_LENS, ids=str)
def test_names_are_read_as_transformer_lens_reads_them(cache: Any, key: tuple[Any, ...]) -> None:
    full = get_act_name(*key)
    short = key if len(key) > 1 else key[0]
    assert dict.__contains__(cache, full), full
    assert cache[short] is cache[full] and short in cache and cache.get(short) is cache[full]


def test_layers_count_from_the_end(cache: Any) -> None:
    assert cache["resid_pre", -1] is cache["blocks.3.hook_resid_pre"]
    assert cache["attn.q", -4] is cache["blocks.0.attn.hook_q"]
    assert cache["hook_q", 1] is cache["blocks.1.attn.hook_q"]


def test_it_is_a_dict_of_full_names(cache: Any) -> None:
    model = build("vit")
    assert list(cache) == list(cache.keys()) and set(cache) == {*model.hook_dict} and isinstance(cache, dict)
    again = pickle.loads(pickle.dumps(cache))
    assert torch.equal(again["q", -1], cache["q", -1])
    assert cache.get("nothing") is None and cache.get(("q", 9), 0) == 0 and ("q", 9) not in cache and 3 not in cache


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("pattern", r"is an activation of every layer; give the layer, as in \['pattern', 0\]"),
        (("pattern", 9), "of layer 9 is not in this cache, which has it for layers 0-3"),
        (("pattern", -5), "Layer -5 does not exist: this model has 4 layers"),
        (("patern", 1), "Nearest: attn.pattern"),
        (("normalized", 1), "could be any of ln1.normalized, ln2.normalized"),
        (3, "is not the name of an activation"),
        (("q", "1"), "is not the name of an activation"),
        (("q", 1, "attn", 2), "is not the name of an activation"),
    ],
    ids=str,
)
def test_what_is_not_there_is_said(cache: Any, key: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cache[key]


def test_it_sums_itself_up_in_a_line_for_each_kind(cache: Any) -> None:
    first, *lines = repr(cache).splitlines()
    assert first.startswith("ActivationCache of vit_base_patch16_224: ") and "float32 on cpu" in first
    assert len(lines) == len({name.split(".", 2)[-1] for name in cache}) < 25
    (pattern,) = [line.split(maxsplit=1) for line in lines if "pattern" in line]
    assert pattern == ["attn.pattern", "0-3     [2, 3, 17, 17]  27.1 KiB"]
    page = cache._repr_html_()
    assert page.count("<tr>") == len(lines) + 1 and "[2, 3, 17, 17]" in page and "white-space: nowrap" in page


@pytest.mark.parametrize(
    "small", [small_mixer, small_black_box, partial(small_cnn, "resnet18")], ids=["mixer", "black_box", "cnn"]
)
def test_other_kinds_of_models_have_one_too(small: Callable[[], Any]) -> None:
    model = small()
    cache = model.run_with_cache(torch.zeros(1, 3, *model.image_size))[1]
    assert torch.equal(cache["logits"], cache["hook_logits"]) and "logits" in repr(cache)


OF_THEIR_OWN = {"toggle_autodiff", "apply_slice_to_batch_dim"}
THEIR_METHODS = {name for name in vars(TheirCache) if not name.startswith("_") and "ssm" not in name} - OF_THEIR_OWN


@pytest.mark.parametrize("name", sorted(THEIR_METHODS - set(dir(dict))))
def test_methods_of_transformer_lens_lead_to_what_does_the_same(cache: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}'. In caap_lab: .*\b(cl|torch|model)\."):
        getattr(cache, name)


def test_what_it_says_to_use_for_the_stream_works(cache: Any) -> None:
    stream = torch.stack([cache["resid_post", layer] for layer in range(cache.n_layers)])
    assert torch.equal(stream[-1], cache["resid_post", -1])
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        cache.nothing  # noqa: B018
