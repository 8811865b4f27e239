"""Which of timm's models the package supports, and why it does not support the others.

`load_model`, `list_models`, error messages and the table in the documentation all read this file only.
"""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

import timm
from torch import nn


@dataclass(frozen=True)
class Kind:
    """A kind of models, under its common name."""

    title: str
    file: str
    """The file of timm that builds them."""
    names: tuple[str, ...]
    """Wildcards for timm's names, as in file names."""


VITS = (
    Kind("ViT (AugReg, DINO, MAE and others)", "vision_transformer", ("vit_*",)),
    Kind("ViT with average pooling or registers", "vision_transformer", ("vit_*_gap_*", "vit_*_reg?_*")),
    Kind("DINOv2 (also with registers)", "vision_transformer", ("vit_*_dinov2",)),
    Kind("TIPSv2", "vision_transformer", ("vit_*_tipsv2",)),
    Kind("CLIP", "vision_transformer", ("vit_*_clip_*", "vit_*_clip_quickgelu_*", "vit_*_clip_laion2b")),
    Kind("SigLIP and SigLIP 2", "vision_transformer", ("vit_*_siglip_*",)),
    Kind("SO150M", "vision_transformer", ("vit_so150m*",)),
    Kind("FlexiViT", "vision_transformer", ("flexivit_*",)),
    Kind("AIMv2", "vision_transformer", ("aimv2_*",)),
    Kind("BEiT-3", "vision_transformer", ("beit3_*",)),
    Kind("EVA (first release)", "vision_transformer", ("eva_large_*",)),
    Kind("RADIO v3 and v4", "vision_transformer", ("vit_*_radio_v?",)),
    Kind("InternViT", "vision_transformer", ("vit_intern*",)),
    Kind("small test models", "vision_transformer", ("test_vit*",)),
    Kind("DeiT (also distilled)", "deit", ("deit_*",)),
    Kind("DeiT III", "deit", ("deit3_*",)),
    Kind("DINOv3", "eva", ("vit_*_dinov3*",)),
    Kind("Perception Encoder", "eva", ("vit_pe_*",)),
    Kind("EVA", "eva", ("eva_giant_*",)),
    Kind("EVA-02", "eva", ("eva02_*",)),
    Kind("ViT with rotary positions", "eva", ("vit_*_rope_*",)),
    Kind("Sapiens2", "eva", ("vit_*_sapiens2",)),
    Kind("LingBot", "eva", ("vit_*_lingbot",)),
    Kind("BEiT and BEiT v2", "beit", ("beit_*", "beitv2_*")),
    Kind("ViT behind a convolutional stem", "vision_transformer_hybrid", ("vit_*_r*",)),
    Kind("MobileCLIP-B", "vision_transformer_hybrid", ("vit_*_mci_*",)),
)
"""Vision Transformers; a name belongs to the last kind of its file that it matches."""

_SAID = [kind.title for kind in VITS if kind.title != "small test models"]

CNNS = (
    Kind("ResNet", "resnet", ("*",)),
    Kind("DenseNet", "densenet", ("*",)),
    Kind("VGG", "vgg", ("*",)),
)
MIXERS = (Kind("MLP-Mixer", "mlp_mixer", ("mixer_*", "gmixer_*")),)
KINDS = (*VITS, *CNNS, *MIXERS)

_STEPS = "the hook points of pre-norm blocks would not hold what their names say"
REFUSED_NAMES = {
    "vit_*_18x2_*": f"it runs two attentions and two MLPs side by side in each block, so {_STEPS}",
    "vit_*_rpn_*": f"its blocks have their norms behind attention and MLP, so {_STEPS}",
    "vit_*_xp_*": f"its blocks run attention and MLP side by side, so {_STEPS}",
    "vit_dlittle_*": f"its attention is differential (one softmax less another), so {_STEPS}",
    "vit_dwee_*": f"its attention is differential (one softmax less another), so {_STEPS}",
    "vit_pwee_*": f"its blocks run attention and MLP side by side, so {_STEPS}",
    "vit_dpwee_*": f"its blocks run a differential attention and the MLP side by side, so {_STEPS}",
    "eva02_enormous_*": f"its blocks have their norms behind attention and MLP, so {_STEPS}",
    "gmlp_*": "its MLP blocks have a gate between patches, which has no rules here",
    "resmlp_*": "its blocks scale and shift in the place of norms, which has no rules here",
}
"""Names in files of supported kinds whose models are not supported, with the reason."""

_STAGES = "it merges patches from stage to stage, so no token stands for one patch through all blocks"
_WINDOWS = f"its attention stays within windows, and {_STAGES}"
_ENCODER = "timm builds it as an encoder of a language model with a class of blocks of its own"
REFUSED_FILES = {
    **dict.fromkeys(
        ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr", "maxxvit", "gcvit", "nest", "davit"),
        _WINDOWS,
    ),
    **dict.fromkeys(("hiera", "hieradet_sam2"), f"its attention stays within units of a mask, and {_STAGES}"),
    **dict.fromkeys(("mvitv2", "pvt_v2", "twins", "pit", "levit", "coat"), _STAGES),
    **dict.fromkeys(
        ("tiny_vit", "visformer", "nextvit", "efficientformer", "efficientformer_v2", "metaformer"),
        f"it mixes convolutions with attention, and {_STAGES}",
    ),
    **dict.fromkeys(
        ("efficientvit_mit", "efficientvit_msra", "edgenext", "mobilevit", "fastvit", "swiftformer", "shvit"),
        f"it mixes convolutions with attention, and {_STAGES}",
    ),
    **dict.fromkeys(
        ("repvit", "iformer", "byoanet", "mobilenetv5"),
        f"it mixes convolutions with attention, and {_STAGES}",
    ),
    "focalnet": f"it modulates patches in the place of attention, and {_STAGES}",
    "vitamin": f"its blocks hold MLPs of another class (GeGluMlp), so {_STEPS}",
    "cait": "its class token joins only in blocks of its own at the end, and its heads are mixed before the softmax",
    "xcit": "its attention is between channels, not between tokens",
    "convit": "its attention is a gated mix of content and place, not one softmax of scores",
    "crossvit": "it runs two streams with patches of two sizes",
    "tnt": "it runs a stream of pixels within each patch beside the stream of patches",
    "volo": f"its first blocks have outlook attention, which has no scores between patches, and {_STAGES}",
    "vision_transformer_sam": "its attention stays within windows in most blocks, with positions by row and column",
    "vision_transformer_relpos": "timm builds its relative positions in blocks of another class",
    "naflexvit": "its patches come as a list with sizes of its own for each image, not as one grid",
    "deepseek_vit": _ENCODER,
    "gemma4_vit": f"{_ENCODER}, with norms behind attention and MLP too",
    "qwen3_vit": _ENCODER,
    "sequencer": "it mixes patches with recurrent layers and has no attention",
}
"""timm's files of models with tokens that are not supported, with the reason; the rest are other networks."""

_NO_TOKENS = "it is a network without a stream of tokens"
BLACK_BOX = "`cl.wrap(model, grid=(14, 14))` runs on it the methods that need no tokens."

SUPPORTED = (
    f"caap_lab works with timm's {', '.join(_SAID[:-1])} and {_SAID[-1]}, with its "
    f"{', '.join(kind.title for kind in CNNS)} and {MIXERS[0].title}, and, by `cl.wrap`, with Vision Transformers of "
    f"transformers and torchvision. `caap-lab models` lists timm's names. {BLACK_BOX}"
)
"""The supported kinds in one sentence, for error messages."""


def supported_names(tags: bool = False) -> list[str]:
    """Timm's names that `load_model` accepts.

    Args:
        tags: Whether to include weights tags, such as "vit_base_patch16_224.augreg_in1k".
    """
    files = sorted({kind.file for kind in KINDS})
    return timm.list_models(module=files, exclude_filters=[*REFUSED_NAMES], pretrained=tags, include_tags=tags)


def kind_of(name: str) -> Kind | None:
    """The kind that a timm name belongs to; None if it is not supported."""
    if refusal(name) is not None:
        return None
    file = file_of(name)
    return [kind for kind in KINDS if kind.file == file and _fits(name, kind.names)][-1]


def refusal(name: str) -> str | None:
    """A sentence that says why `load_model` does not accept one of timm's names; None if it does."""
    file = file_of(name)
    reasons = [reason for pattern, reason in REFUSED_NAMES.items() if _fits(name, (pattern,))]
    if not reasons and any(kind.file == file for kind in KINDS):
        return None
    reason = reasons[0] if reasons else REFUSED_FILES.get(file, _NO_TOKENS)
    return f"{name} is not supported: {reason}. {BLACK_BOX}"


def refusal_of(model: nn.Module) -> str:
    """A sentence that says why a model of no supported family is not supported."""
    kind, file = type(model).__name__, type(model).__module__.rsplit(".", 1)[-1]
    if type(model).__module__ == f"timm.models.{file}" and file in REFUSED_FILES:
        return f"{kind} is not supported: {REFUSED_FILES[file]}. {BLACK_BOX}"
    return f"{kind} is not supported. {SUPPORTED}"


def file_of(name: str) -> str:
    """The file of timm that builds a model of this name, with or without a weights tag."""
    return timm.model_entrypoint(name).__module__.rsplit(".", 1)[-1]


def names_by_kind() -> Iterator[tuple[Kind, list[str]]]:
    """Each kind with its names in timm."""
    names = {name: kind_of(name) for name in supported_names()}
    for kind in KINDS:
        yield kind, [name for name, its_kind in names.items() if its_kind is kind]


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    bare = name.split(".", 1)[0]
    return any(fnmatch.fnmatchcase(bare, pattern) for pattern in patterns)
