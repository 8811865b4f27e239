"""What is said to be supported, against all of timm's names."""

import fnmatch

import pytest
import timm
import torch
from timm.models import list_modules
from timm.models.mlp_mixer import MlpMixer

from caap_lab import InputError
from caap_lab.models.cnn import HookedCNN
from caap_lab.models.cnn_steps import CNNS as CNN_CLASSES
from caap_lab.models.families import read_spec
from caap_lab.models.load import list_models, load_model
from caap_lab.models.mixer import refuse_unsupported
from caap_lab.models.supported import (
    CNNS,
    KINDS,
    MIXERS,
    REFUSED_FILES,
    REFUSED_NAMES,
    SUPPORTED,
    VITS,
    file_of,
    kind_of,
    names_by_kind,
    refusal,
    refusal_of,
    supported_names,
)

VIT_FILES = {kind.file for kind in VITS}
WITHOUT_TOKENS = [
    "byobnet",
    "convmixer",
    "convnext",
    "cpubone",
    "csatv2",
    "cspnet",
    "cspnext",
    "dla",
    "dpn",
    "efficientnet",
    "efficientvim",
    "fasternet",
    "ghostnet",
    "mobilenetv3",
    "hardcorenas",
    "hgnet",
    "hrnet",
    "inception_next",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lcnetv2",
    "lowformer",
    "mambaout",
    "nasnet",
    "nfnet",
    "pnasnet",
    "rdnet",
    "regnet",
    "repghost",
    "res2net",
    "resnest",
    "resnetv2",
    "rexnet",
    "selecsls",
    "senet",
    "sknet",
    "starnet",
    "tresnet",
    "vovnet",
    "xception",
    "xception_aligned",
]
"""timm's files of convolutional and state-space networks, for which one reason is enough."""


def test_every_file_of_timm_is_placed() -> None:
    files = set(list_modules())
    placed = [{kind.file for kind in KINDS}, set(REFUSED_FILES), set(WITHOUT_TOKENS)]
    assert set.union(*placed) >= files, "a new file of timm's: say whether its models are supported, or why not"
    assert sum(len(group & files) for group in placed) == len(files)


def test_every_name_of_timm_is_of_one_kind_or_refused_with_a_reason() -> None:
    listed = set(supported_names())
    for name in timm.list_models():
        kind, reason = kind_of(name), refusal(name)
        assert (name in listed) == (reason is None) == (kind is not None), name
        if reason is not None:
            assert reason.startswith(f"{name} is not supported: ") and "cl.wrap(model, grid=" in reason
            assert file_of(name) in WITHOUT_TOKENS or "without a stream of tokens" not in reason, name
    counted = {kind.title: names for kind, names in names_by_kind()}
    assert all(counted.values()) and sum(map(len, counted.values())) == len(listed)
    assert len(counted) == len(KINDS), "two kinds share a title"
    assert listed <= set(list_models())


def test_names_with_tags_belong_to_the_kind_without() -> None:
    kind = kind_of("vit_small_patch16_dinov3.lvd1689m")
    assert kind is not None and kind.title == "DINOv3"
    assert "vit_small_patch16_dinov3.lvd1689m" in supported_names(tags=True)
    assert "norms behind" in str(refusal("eva02_enormous_patch14_clip_224.laion2b_s4b_b115k"))


def test_the_message_names_every_kind() -> None:
    assert all(kind.title in SUPPORTED for kind in (*VITS, *CNNS, *MIXERS) if kind.names != ("test_vit*",))
    assert refusal_of(torch.nn.Linear(1, 1)) == f"Linear is not supported. {SUPPORTED}"
    with pytest.raises(InputError, match="xcit_nano_12_p16_224 is not supported: its attention is between channels"):
        load_model("xcit_nano_12_p16_224")


def _check_on_meta(name: str) -> None:
    """Build a model without weights and compare what the package says of its class with what is listed."""
    with torch.device("meta"):
        model = timm.create_model(name)
    if isinstance(model, CNN_CLASSES):
        HookedCNN(model)
    elif isinstance(model, MlpMixer):
        refuse_unsupported(model)
    else:
        assert read_spec(model).n_layers == len(model.blocks)


@pytest.mark.parametrize("kind", VITS, ids=lambda kind: kind.title)
def test_the_smallest_model_of_each_kind_is_taken(kind: object) -> None:
    names = next(names for other, names in names_by_kind() if other is kind)
    sizes = ("tiny", "small", "medium", "base", "large", "huge", "giant")
    _check_on_meta(min(names, key=lambda name: next((i for i, size in enumerate(sizes) if size in name), 9)))


@pytest.mark.parametrize("pattern", REFUSED_NAMES)
def test_refused_names_are_refused_by_the_model_too(pattern: str) -> None:
    name = min(fnmatch.filter(timm.list_models(), pattern), key=len)
    with pytest.raises(InputError):
        _check_on_meta(name)


@pytest.mark.slow
def test_every_name_is_listed_if_and_only_if_its_model_is_taken() -> None:
    files = sorted(VIT_FILES | {kind.file for kind in MIXERS})
    listed = set(list_models())
    for name in timm.list_models(module=files):
        if name in listed:
            _check_on_meta(name)
        else:
            with pytest.raises(InputError):
                _check_on_meta(name)


@pytest.mark.slow
def test_models_of_refused_files_are_refused_with_the_same_reason() -> None:
    for file, reason in REFUSED_FILES.items():
        for name in timm.list_models(module=file)[:1]:
            with torch.device("meta"):
                model = timm.create_model(name)
            with pytest.raises(InputError) as error:
                read_spec(model)
            if type(model).__module__ == f"timm.models.{file}":  # others are built from another file's class
                assert reason in str(error.value), name
