"""Images of other sizes than the model was made for: positions are resampled as timm does, and all else follows."""

import copy
import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import caap_lab as cl

from caap_lab import HookedCNN, HookedMixer, HookedViT, InputError, load_model  # isort: skip  # before timm
import timm
from timm.models import beit, eva, vision_transformer
from timm.models.mlp_mixer import MlpMixer

from caap_lab.models.heads import ClassAndMeanHead
from helpers.models import build, random_images, randomise
from helpers.plain_caap import plain_scores

SMALL: dict[str, Any] = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
WIDE = (32, 48)
NAMES: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": {},
    "deit_base_distilled_patch16_224": {},
    "deit3_base_patch16_224": {},
    "vit_base_patch14_reg4_dinov2": {"init_values": 0.1},
    "vit_base_patch16_siglip_224": {},
    "vit_base_patch16_dinov3": {},
    "vit_pe_core_base_patch16_224": {"attn_pool_num_heads": 3},
    "eva02_base_patch14_448": {},
    "vit_base_patch16_rope_mixed_224": {},
    "beit_base_patch16_224": {},
}
DYNAMIC = [name for name in NAMES if not name.startswith("beit")]
BY_TRAIT = (
    "deit_base_distilled_patch16_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_dinov3",
    "beit_base_patch16_224",
)
FILTERS = {"beit": beit, "eva": eva, "vision_transformer": vision_transformer}


def by_trait(names: Any) -> list[Any]:
    return [pytest.param(name, marks=() if name in BY_TRAIT else pytest.mark.slow) for name in names]


def body(name: str, size: Any = 32, **switches: Any) -> Any:
    return randomise(lambda: timm.create_model(name, img_size=size, **SMALL, **NAMES[name], **switches)).eval()


def set_by_timm(vit: Any, size: tuple[int, int]) -> Any:
    other = copy.deepcopy(vit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.set_input_size(size)
    return other


@pytest.mark.parametrize("name", by_trait(NAMES))
def test_a_model_at_another_size_is_timms(name: str) -> None:
    model = HookedViT(body(name))
    small = random_images(model, 1)
    with torch.no_grad():
        before = model(small)
        for size in (WIDE, (40, 24)):
            other = model.at_image_size(size)
            x = random_images(other, 2)
            assert torch.equal(other(x), set_by_timm(model.vit, size)(x))
            assert other.grid == (size[0] // 8, size[1] // 8) and other.image_size == size
            assert other.model_name == model.model_name and other.preprocessing.mean == model.preprocessing.mean
        assert torch.equal(model(small), before) and model.grid == (4, 4)
    positions = re.compile("pos_embed|relative_position_bias_table")
    for (key, mine), theirs in zip(model.vit.named_parameters(), other.vit.parameters(), strict=True):
        assert mine is theirs or positions.search(key), key
    built = HookedViT(body(name, WIDE))  # a timm model that was built for this size
    x = random_images(built, 2)
    with torch.no_grad():
        assert built.grid == (4, 6) and torch.equal(built(x), built.vit(x))
        vit = copy.deepcopy(model.vit)
        again = HookedViT(set_by_timm(vit, WIDE))  # one that was set to it
        assert torch.equal(again(x), again.vit(x))


@pytest.mark.parametrize("name", by_trait(DYNAMIC))
def test_a_dynamic_model_at_each_size_is_timms(name: str) -> None:
    model = HookedViT(body(name, dynamic_img_size=True))
    with torch.no_grad():
        for size in (WIDE, (24, 32), (32, 32)):
            other = model.at_image_size(size)
            x = random_images(other, 2)
            assert torch.equal(other(x), model.vit(x)), "timm's dynamic model itself takes this size"
    with pytest.raises(InputError, match=r"takes preprocessed tensors \[3, 32, 32\] .*at_image_size"):
        model(torch.zeros(1, 3, *WIDE))


@pytest.mark.parametrize("name", by_trait(NAMES))
def test_loading_at_another_size_resamples_as_timm_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = body(name)
    state = {key: value.contiguous() for key, value in vit.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    small = {"img_size": 32, **SMALL, **NAMES[name]}
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, **small))
    wanted = timm.create_model(name, img_size=WIDE).eval()
    converter = FILTERS[type(vit).__module__.rsplit(".", 1)[-1].replace("deit", "vision_transformer")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted.load_state_dict(converter.checkpoint_filter_fn(dict(state), wanted))
    model = load_model(name, checkpoint=tmp_path / "model.safetensors", image_size=WIDE)
    x = random_images(model, 2)
    with torch.no_grad():
        assert torch.equal(model(x), wanted(x)) and torch.equal(model(x), model.vit(x))
    assert model.grid == (4, 6) and model.preprocessing.image_size == WIDE
    other = load_model(name, checkpoint=tmp_path / "model.safetensors").at_image_size(WIDE)
    with torch.no_grad():
        assert torch.allclose(other(x), wanted(x), atol=1e-5)
    with pytest.raises(InputError, match=r"have 8 x 8 pixels\. Use \(32, 40\) or \(40, 48\)"):
        load_model(name, checkpoint=tmp_path / "model.safetensors", image_size=(33, 44))


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224", "vit_base_patch16_dinov3"])
def test_everything_follows_the_size(name: str) -> None:
    model = HookedViT(body(name, dynamic_img_size=True)).at_image_size((32, 24))
    x = random_images(model, 2)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    assert model.preprocess(photo).shape == (1, 3, 32, 24)
    m = cl.caap(model, x[:1], 2, cutoff=1)
    assert torch.allclose(m.all_scores, plain_scores(model, x[:1], cutoff=1), rtol=1e-4, atol=1e-4)
    assert m.scores.shape == (4, 3) and m.image.shape == (32, 24, 3)
    mask = model.preprocessing.mask(np.eye(50, 70) > 0)
    assert mask.shape == (32, 24)
    objects = np.zeros((32, 24), bool)
    objects[:16, :16] = True
    assert 0 <= cl.localisation(m, objects).aupr1 <= 1
    assert 0 <= cl.insertion_deletion(model, x[:1], m, step="patch").insertion <= 1
    assert cl.attention_regions(model, x[:1], objects, progress=False).data["regions"].shape == (1, 4, 3)
    assert cl.tokens.mask(objects).indices(model.spec) == [t + model.spec.n_prefix for t in (0, 1, 3, 4)]
    store = model.record(x, ["pattern"], layers=[0])
    assert store["pattern", 0].shape[-1] == model.spec.n_tokens == 12 + model.spec.n_prefix
    assert cl.attribute(model, x[:1], "input_x_gradient", 2).scores.isfinite().all()
    assert m.plot().figure is not None


def test_heads_names_and_formats_go_with_the_model() -> None:
    vit = randomise(lambda: timm.create_model("vit_base_patch14_dinov2", img_size=32, init_values=0.1, **SMALL))
    head = ClassAndMeanHead(torch.randn(3, 48), torch.randn(3), 24)
    model = HookedViT(vit, head=head, class_names=["a", "b", "c"], name="mine").to(torch.float64)
    other = model.at_image_size(WIDE)
    assert (other.dtype, other.model_name, other.class_names.name(1)) == (torch.float64, "mine", "b")
    assert other.head is model.head and other.spec.pool == "cls+mean"
    assert HookedViT(vit).at_image_size(WIDE).class_names.name(1) == "class 1"
    assert other.fingerprint != model.fingerprint
    with torch.inference_mode():
        made = model.at_image_size(WIDE)
    assert not any(parameter.is_inference() for parameter in made.parameters())
    assert made.vit.pos_embed.requires_grad and made.vit.pos_embed.is_leaf


def test_patches_that_are_not_square() -> None:
    vit = randomise(lambda: timm.create_model("vit_base_patch16_224", img_size=32, **{**SMALL, "patch_size": (8, 16)}))
    model = HookedViT(vit)
    assert model.grid == (4, 2) and model.patch_size == (8, 16)
    other = model.at_image_size((24, 48))
    x = random_images(other, 1)
    with torch.no_grad():
        assert other.grid == (3, 3) and torch.equal(other(x), set_by_timm(vit, (24, 48))(x))
    assert torch.allclose(cl.caap(other, x, 0, cutoff=1).all_scores, plain_scores(other, x, cutoff=1), atol=1e-4)
    with pytest.raises(InputError, match=r"have 8 x 16 pixels\. Use \(24, 32\) or \(24, 48\)"):
        model.at_image_size((24, 40))


def test_a_model_that_fills_up_images_is_taken_at_whole_sizes() -> None:
    switches = {"dynamic_img_size": True, "dynamic_img_pad": True}
    model = HookedViT(body("vit_base_patch16_224", WIDE, **switches))
    x = random_images(model, 2)
    with torch.no_grad():
        assert torch.equal(model(x), model.vit(x)) and model.grid == (4, 6)
    with pytest.raises(InputError, match="pads its images"):
        HookedViT(body("vit_base_patch16_224", (36, 48), **switches))
    with pytest.raises(InputError, match="whole number of patches"):
        model.at_image_size(36)


def test_sizes_that_a_model_does_not_take_are_refused() -> None:
    model = build("vit")
    for size, message in (
        (33, r"Use \(32, 32\) or \(40, 40\)"),
        (4, r"Use \(8, 8\)"),
        (9000, "more than 8192 pixels"),
        ("32", "not a number of pixels"),
        ((32, 32, 3), "not a number of pixels"),
    ):
        with pytest.raises(InputError, match=message):
            model.at_image_size(size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"load the model with image_size=.*at_image_size"):
        model(torch.zeros(1, 3, 40, 40))
    mixer = HookedMixer(MlpMixer(img_size=32, patch_size=8, num_blocks=1, embed_dim=16, num_classes=3))
    with pytest.raises(InputError, match="a Mixer, which takes images of 32 x 32 pixels only"):
        mixer.at_image_size(64)
    pooled = body("vit_base_patch16_siglip_224")
    pooled.attn_pool.pos_embed = torch.nn.Parameter(torch.zeros(16, 24))
    with pytest.raises(InputError, match="adds positions in its head"):
        HookedViT(pooled).at_image_size(64)


def test_a_cnn_takes_any_size() -> None:
    cnn = timm.create_model("resnet18", num_classes=3).eval()
    model = HookedCNN(cnn, class_names=["a", "b", "c"])
    other = model.at_image_size((64, 96))
    x = random_images(other, 2)
    with torch.no_grad():
        assert torch.equal(other(x), cnn(x))
    assert other.grid == (4, 6) and other.class_names.name(2) == "c" and model.image_size == (224, 224)
    assert HookedCNN(cnn, grid=(7, 7)).at_image_size((64, 96)).grid == (2, 3)
    with pytest.raises(InputError, match="not a whole number of cells"):
        HookedCNN(cnn, grid=(7, 7)).at_image_size((80, 96))
