"""Models that have no twin: each is refused with the reason, or not known at all."""

from functools import partial
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torchvision.models import VisionTransformer

from caap_lab import InputError
from caap_lab.models.twins import timm_twin
from helpers.originals import build_original

pytestmark = pytest.mark.xdist_group("transformers")

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 52}
SMALL |= {"image_size": 24, "patch_size": 8}


def test_a_class_that_is_not_known_has_no_twin() -> None:
    assert timm_twin(nn.Linear(2, 2)) is None
    assert timm_twin(nn.Sequential(build_original("torchvision"))) is None


def test_a_class_derived_from_a_known_one_has_a_twin() -> None:
    class Mine(VisionTransformer):
        pass

    twin = timm_twin(Mine(24, 8, 1, 4, 32, 52))
    assert twin is not None and twin.name == "Mine"


@pytest.mark.parametrize("part", ["layers.1.mlp", "layers.0.attention.q_proj", "classifier"])
def test_a_part_that_computes_something_else_is_noticed(part: str) -> None:
    original = build_original("vit")
    whole = part if part == "classifier" else f"vit.{part}"
    original.get_submodule(whole).register_forward_hook(lambda module, inputs, output: output * 1.01)
    first = {"layers.1.mlp": "block 1", "layers.0.attention.q_proj": "block 0", "classifier": "class scores"}[part]
    with pytest.raises(InputError, match=rf"differs by \d.* of the largest value.*first difference is in .*{first}"):
        timm_twin(original)


def test_a_classifier_of_zeros_hides_no_difference_before_it() -> None:
    original = build_original("vit")
    with torch.no_grad():
        original.classifier.weight.zero_()
    assert timm_twin(original) is not None
    original.vit.layers[2].layernorm_before.register_forward_hook(lambda module, inputs, output: output * 1.01)
    with pytest.raises(InputError, match="what leaves block 2 differs"):
        timm_twin(original)


def test_weights_that_are_not_finite_do_not_pass() -> None:
    original = build_original("torchvision")
    with torch.no_grad():
        original.encoder.layers[1].ln_2.weight[0] = float("nan")
    with pytest.raises(InputError, match="differs by inf"):
        timm_twin(original)


@pytest.mark.parametrize(
    ("class_name", "reason"),
    [
        ("ViTForMaskedImageModeling", "predicts masked patches"),
        ("ViTMAEModel", "drops patches at random"),
        ("Dinov2Backbone", "feature maps"),
        ("Siglip2VisionModel", "NaFlex"),
        ("BeitForSemanticSegmentation", "labels pixels"),
    ],
)
def test_classes_without_a_twin_are_refused_by_name(class_name: str, reason: str) -> None:
    kind = getattr(transformers, class_name)
    with pytest.raises(InputError, match=f"{class_name} of transformers has no timm twin: .*{reason}"):
        timm_twin(kind.__new__(kind))  # the class alone decides, before any weight is looked at


def test_options_that_timm_does_not_have_are_named() -> None:
    with pytest.raises(InputError, match=r"hidden_act='mish'.*choose one of gelu"):
        timm_twin(transformers.ViTModel(transformers.ViTConfig(hidden_act="mish", **SMALL)))
    with pytest.raises(InputError, match="pools its first patch"):
        timm_twin(transformers.IJepaModel(transformers.IJepaConfig(**SMALL), add_pooling_layer=True))
    with pytest.raises(InputError, match="4 heads have 64 values in total, but d_model is 32"):
        timm_twin(transformers.ViTModel(transformers.ViTConfig(head_dim=16, **SMALL)))
    overlapping = build_original("vit")
    overlapping.vit.embeddings.patch_embeddings.projection.stride = (4, 4)
    with pytest.raises(InputError, match="overlap"):
        timm_twin(overlapping)
    deeper = build_original("vit")
    deeper.classifier = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 5))
    with pytest.raises(InputError, match="classifier is Sequential; a linear layer"):
        timm_twin(deeper)


def test_parts_of_another_kind_are_named() -> None:
    dropped = build_original("vit")
    dropped.vit.layernorm = nn.Identity()
    with pytest.raises(InputError, match="norm of the timm model would be made from Identity, but a LayerNorm"):
        timm_twin(dropped)
    other = build_original("vit")
    other.vit.layers[1].layernorm_before = nn.RMSNorm(32)
    with pytest.raises(InputError, match=r"blocks.1.norm1 .*RMSNorm, but a LayerNorm"):
        timm_twin(other)
    split = build_original("vit")
    split.vit.layers[0].attention.k_proj = nn.Sequential(nn.Linear(32, 4), nn.Linear(4, 32))
    with pytest.raises(InputError, match=r"blocks.0.attn.qkv .*Sequential, but a linear"):
        timm_twin(split)
    with pytest.raises(InputError, match="LayerNorm with a weight"):
        timm_twin(VisionTransformer(24, 8, 1, 4, 32, 52, norm_layer=partial(nn.LayerNorm, elementwise_affine=False)))
    gone = build_original("vit")
    del gone.vit.layers[0].mlp.fc1
    with pytest.raises(InputError, match=r"mlp\.fc1: its structure is not that of"):
        timm_twin(gone)


def test_torchvision_s_options_are_named() -> None:
    with pytest.raises(InputError, match=r"only images of \[24, 24\] pixels"):
        timm_twin(build_original("torchvision"), (32, 32))
    from torchvision.models.vision_transformer import ConvStemConfig

    stem = VisionTransformer(24, 8, 1, 4, 32, 52, conv_stem_configs=[ConvStemConfig(8, 8, 8)])
    with pytest.raises(InputError, match="convolutional stem"):
        timm_twin(stem)


def test_positions_that_the_original_cannot_resample_are_refused() -> None:
    with pytest.raises(InputError, match=r"ViTModel itself cannot resample.*\[24, 32\] pixels, to \[40, 48\]"):
        timm_twin(build_original("vit"), (40, 48))


def test_weights_in_odd_formats_are_refused() -> None:
    mixed = build_original("torchvision")
    mixed.heads.half()
    with pytest.raises(InputError, match=r"several number formats \(float16, float32\)"):
        timm_twin(mixed)
    quantised = build_original("torchvision")
    quantised.heads.head.weight = nn.Parameter(torch.zeros(5, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(InputError, match=r"quantised \(torch.int8\)"):
        timm_twin(quantised)
    with pytest.raises(InputError, match="not loaded"):
        timm_twin(build_original("torchvision").to("meta"))


def test_blocks_that_are_shared_or_passed_over() -> None:
    shared = build_original("torchvision")
    shared.encoder.layers[2] = shared.encoder.layers[0]
    assert timm_twin(shared) is not None
    shortened = build_original("torchvision")
    shortened.encoder.layers.forward = lambda x: shortened.encoder.layers[0](x)
    with pytest.raises(InputError, match="This VisionTransformer has 3 blocks, but 1 were run"):
        timm_twin(shortened)
