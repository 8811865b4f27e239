"""Models by name: the bundled demo backbones, timm's Vision Transformers, CNNs and MLP-Mixers, and whole folders."""

import fnmatch
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from timm.models.mlp_mixer import MlpMixer
from torch import Tensor, nn

from caap_lab.errors import CheckpointError, InputError
from caap_lab.models.bundled import BACKBONES, build
from caap_lab.models.checkpoint import as_timm_cnn, check_file, count_classes, load_exactly, load_into, read_state_dict
from caap_lab.models.classes import ClassNames
from caap_lab.models.cnn import HookedCNN, cnn_grid
from caap_lab.models.cnn_steps import CNNS
from caap_lab.models.compiling import check_compiler, compile_blocks, wants_compiled
from caap_lab.models.device_dtype import as_device, as_dtype, check_format, plain_defaults
from caap_lab.models.families import read_spec
from caap_lab.models.heads import ClassAndMeanHead, read_head
from caap_lab.models.hub import fetch_weights
from caap_lab.models.hugging_face.adapter import count_trained_classes, merge
from caap_lab.models.hugging_face.folder import (
    HUB,
    AdapterFolder,
    check_folder_name,
    names_folder,
    open_folder,
)
from caap_lab.models.hugging_face.reading import read_parts
from caap_lab.models.hugging_face.timm_folder import timm_builder, timm_class_names
from caap_lab.models.image_sizes import as_image_size, check_whole_patches
from caap_lab.models.mixer import HookedMixer, refuse_unsupported
from caap_lab.models.model_names import ModelNames
from caap_lab.models.names import nearest
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.products import TF32, check_tf32, mark_tf32
from caap_lab.models.supported import kind_of, refusal, supported_names
from caap_lab.models.vit import HookedViT

BUNDLED = Path(__file__).parent / "weights"


@plain_defaults()
def load_model(
    name: str | Path,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_key: str | None = None,
    head: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | tuple[int, int] | None = None,
    crop_pct: float | None = None,
    class_names: Sequence[str] | ClassNames | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
    compile: bool = False,
) -> HookedViT | HookedCNN | HookedMixer:
    """A model by name, with hook points.

    ```python
    model = cl.load_model("demo")    # comes with the package
    # cl.load_model("vit_base_patch16_224"), or with checkpoint="weights.safetensors": any ViT, CNN or Mixer of timm
    ```

    Args:
        name: A bundled model, which needs no network access ("demo", "demo-clip", "demo-dinov2", "demo-deit3",
            "demo-spurious", or the CNN "demo-cnn"); or the name of a timm Vision Transformer, ResNet, DenseNet or VGG,
            optionally with a weights tag. See `list_models`. MLP-Mixers (`mixer_*`, `gmixer_*`) are also supported, for
            gradient methods. Or a folder with config.json and weights, as saved by timm, transformers or PEFT, or
            "hf-hub:OWNER/NAME" (also "hf-hub:OWNER/NAME@REVISION") for such a repository. No code in it is run.
        checkpoint: Local weights file. By default the weights come from the Hugging Face cache or, if not there, the
            hub.
        checkpoint_key: Which weights to load from a file with several sets, such as "teacher" or "ema": their key, or
            the prefix of their names.
        head: Local file of a Vision Transformer's classification head; see `caap_lab.models.heads`.
        mean: Mean of each colour on the scale 0 to 1, instead of the model's own. A wrong value lowers accuracy.
        std: Standard deviation of each colour, instead of the model's own.
        image_size: Pixels or (height, width), instead of the model's own; a ViT's positions are resampled.
        crop_pct: Fraction of the resized photo's short side that the crop keeps, instead of the model's own: 0.875
            resizes to 256 pixels and crops 224.
        class_names: One name per class, instead of those in a folder's files, or ImageNet's for 1000 classes.
        device: Where to put the model.
        dtype: Number format of the weights, such as "float16"; or "tf32": weights in float32, and matrix products in
            TF32 on GPUs that support it, whenever the model runs. Torch's global settings are not changed, so gradients
            that you compute yourself from `model(x)` follow those.
        compile: Run the blocks of a Vision Transformer or Mixer through torch.compile, which takes a while at first;
            what it saves is on the page "Speed". Results stay the same up to rounding. Blocks with hooks run without
            it, and so does everything that records gradients.

    Raises:
        CheckpointError: the weights file does not fit, or is not safe to read.
        InputError: another argument is invalid; the message says what is valid.
    """
    device, short = as_device(device), dtype == TF32
    dtype = as_dtype(torch.float32 if short else dtype)
    if short:
        check_tf32(device)
    check_format(device, dtype)
    if wants_compiled(compile):
        check_compiler(device)
    for what, path in (("checkpoint", checkpoint), ("head", head)):
        if path is not None and not _is_file(path):
            if what == "checkpoint":
                check_file(Path(path))  # whose error says what it is instead
            raise CheckpointError(f"There is no {what} file {path}.")
    if checkpoint_key is not None and checkpoint is None:
        raise InputError("checkpoint_key=... chooses among the weights in a file; give the file as checkpoint=...")
    size = None if image_size is None else as_image_size(image_size)
    for field, value in (("mean", mean), ("std", std), ("crop_pct", crop_pct)):
        if value is not None:
            Preprocessing((1, 1), **{"mean": (0.5,) * 3, "std": (0.5,) * 3, field: value})  # type: ignore[arg-type]

    name = str(name.absolute()) if isinstance(name, Path) else name
    check_name(name)
    model: HookedViT | HookedCNN | HookedMixer
    if name in bundled_models():
        model = _load_bundled(name, checkpoint, checkpoint_key, head, mean, std, size, class_names)
    elif names_folder(name):
        if checkpoint is not None:
            raise InputError(f"{name} has weights of its own; checkpoint=... goes with the name of a timm model.")
        model = _load_folder(name, head, mean, std, size, class_names)
    else:
        body = _load_timm(name, checkpoint, checkpoint_key, head, size)
        model = _hooked(name, body, head, mean, std, size, class_names)
    if crop_pct is not None:
        model.preprocessing = replace(model.preprocessing, crop_pct=float(crop_pct))
    if short:
        mark_tf32(model.body)
    model = model.to(device, dtype)
    if compile:
        compile_blocks(model)
    return model


def list_models(pattern: str = "*") -> list[str]:
    """Names for `load_model`: the bundled ones, then timm's.

    ```python
    cl.list_models("*dinov2*")
    ```

    Args:
        pattern: Wildcards as in file names, such as `deit*`. With a dot in it, timm's names come with their
            weights tags (`vit_base_patch16_224.*`).

    Returns:
        A list, which is displayed by family; a long list shows only the first names of each.
    """
    names = fnmatch.filter([*bundled_models(), *supported_names(tags="." in pattern)], pattern)
    return ModelNames(names, _family)


def _family(name: str) -> str:
    kind = None if name in bundled_models() else kind_of(name)
    return "bundled" if kind is None else kind.title


def _load_folder(
    name: str,
    head: str | Path | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: tuple[int, int] | None,
    class_names: Sequence[str] | ClassNames | None,
) -> HookedViT | HookedCNN | HookedMixer:
    folder = open_folder(name)
    label = name.removeprefix(HUB) if name.startswith(HUB) else Path(name).expanduser().resolve().name
    base = folder.base if isinstance(folder, AdapterFolder) else folder
    if not base.from_timm:
        parts = read_parts(folder, size, mean, std)
        names = parts.class_names if class_names is None and head is None else class_names
        return _with_head(label, parts.vit, parts.head, head, parts.preprocessing, names)
    body = _load_timm(label, base.weights[0], None, head, size, timm_builder(base))
    names = timm_class_names(base)
    if isinstance(folder, AdapterFolder):
        n_classes: Any = count_trained_classes(folder)
        if n_classes is not None:
            names = None
            body.reset_classifier(n_classes)  # type: ignore[operator]
        body = merge(folder, body)
    return _hooked(label, body, head, mean, std, size, names if class_names is None and head is None else class_names)


def _hooked(
    name: str,
    body: nn.Module,
    head: str | Path | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: tuple[int, int] | None,
    class_names: Sequence[str] | ClassNames | None,
) -> HookedViT | HookedCNN | HookedMixer:
    preprocessing = Preprocessing.from_timm(body, mean, std)
    if size is not None:
        preprocessing = replace(preprocessing, image_size=size)
    if isinstance(body, (MlpMixer, *CNNS)):
        hooked = HookedMixer if isinstance(body, MlpMixer) else HookedCNN
        return hooked(body, preprocessing=preprocessing, class_names=class_names, name=name)
    return _with_head(name, body, None, head, preprocessing, class_names)


def _load_timm(
    name: str,
    checkpoint: str | Path | None,
    key: str | None,
    head: str | Path | None,
    size: tuple[int, int] | None,
    make: Callable[..., nn.Module] | None = None,
) -> nn.Module:
    """A timm model with its weights; `make` builds it without weights, if its name is not enough."""
    make = make or partial(timm.create_model, name, pretrained=False)
    with torch.device("meta"):  # shapes only: an unsupported name is an error before any weights are read
        blank = make()
    options: dict[str, Any] = {} if size is None else {"img_size": size}
    if isinstance(blank, CNNS):
        _check_no_head(name, "CNN", head)
        cnn_grid(blank, size or Preprocessing.from_timm(blank).image_size)
        options = {}
    elif isinstance(blank, MlpMixer):
        refuse_unsupported(blank)
        _check_no_head(name, "Mixer", head)
        if size not in (None, blank.stem.img_size):
            raise InputError(
                f"image_size={size} is not possible: {name} mixes its patches with weights made for images of "
                f"{blank.stem.img_size} pixels."
            )
    else:
        spec = read_spec(blank)
        if size is not None and size != spec.image_size:
            check_whole_patches(size, spec.patch_size, name)
    if checkpoint is None:
        config = get_pretrained_cfg(name)
        if config is None or not config.hf_hub_id:
            raise InputError(f"timm has no weights for {name}; give a local file with checkpoint=...{_tags(name)}")
        checkpoint = fetch_weights(name, config.hf_hub_id, config.hf_hub_filename)
    state = read_state_dict(checkpoint, key)
    if isinstance(blank, CNNS):
        state = as_timm_cnn(blank, state)
    body = make(num_classes=count_classes(state), **options)
    _fill(body, state, checkpoint)
    return body


def _load_bundled(
    name: str,
    checkpoint: str | Path | None,
    key: str | None,
    head: str | Path | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: tuple[int, int] | None,
    class_names: Sequence[str] | ClassNames | None,
) -> HookedViT | HookedCNN:
    card = json.loads((BUNDLED / f"{name}.json").read_text(encoding="utf-8"))
    arguments: dict[str, Any] = card["architecture_kwargs"]
    if size is not None and "img_size" in arguments:
        check_whole_patches(size, (arguments["patch_size"], arguments["patch_size"]), name)
        arguments = {**arguments, "img_size": size}
    body = build(card["architecture"], arguments)
    path = BUNDLED / card["weights"] if checkpoint is None else checkpoint
    state = read_state_dict(path, key)
    own_head: nn.Module | None = None
    if card["head"] == "cls+mean":
        weight, bias = state.pop("head.weight", None), state.pop("head.bias", None)
        if weight is None or bias is None:
            raise CheckpointError(f"{path} has no head.weight and head.bias, which {name} needs.")
        own_head = ClassAndMeanHead(weight.float(), bias.float(), body.num_features)
    _fill(body, state, path)
    preprocessing = Preprocessing(
        image_size=tuple(card["input_size"][1:]) if size is None else size,
        mean=tuple(card["mean"] if mean is None else mean),
        std=tuple(card["std"] if std is None else std),
    )
    if isinstance(body, CNNS):
        _check_no_head(name, "CNN", head)
        names = card["class_names"] if class_names is None else class_names
        return HookedCNN(body, preprocessing=preprocessing, class_names=names, name=name)
    names = card["class_names"] if class_names is None and head is None else class_names
    return _with_head(name, body, own_head, head, preprocessing, names)


def _with_head(
    name: str,
    vit: nn.Module,
    own_head: nn.Module | None,
    head: str | Path | None,
    preprocessing: Preprocessing,
    class_names: Sequence[str] | ClassNames | None,
) -> HookedViT:
    """The hooked model, with the head and class names of the head file if one is given."""
    if head is not None:
        own_head, names = read_head(head, vit)
        class_names = names if class_names is None else class_names
    return HookedViT(vit, head=own_head, preprocessing=preprocessing, class_names=class_names, name=name)


def _check_no_head(name: str, kind: str, head: str | Path | None) -> None:
    if head is not None:
        raise InputError(f"{name} is a {kind} and keeps its own head; head=... is for Vision Transformers.")


def _fill(model: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    try:
        if isinstance(model, (MlpMixer, *CNNS)):
            load_exactly(model, state)
        else:
            load_into(model, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(card.stem for card in BUNDLED.glob("*.json"))


def check_name(name: str) -> None:
    """Raise InputError for an unknown model name, without loading anything.

    Raises:
        InputError: the name is neither a bundled model, nor timm's, nor a folder or a repository's id; the message
            gives the nearest names, or the weights tags that timm knows.
    """
    if not isinstance(name, str):
        raise InputError(
            f"Expected the name of a model, not {type(name).__name__}; "
            "for a model that is already in memory, use cl.wrap(model)."
        )
    if name in bundled_models():
        return
    if name in BACKBONES:
        raise InputError(
            f"The bundled weights of {name!r} are missing from {BUNDLED}; install the package again, or "
            f"train them: python -m caap_lab.training.train {name} --help."
        )
    if names_folder(name):
        check_folder_name(name)
        return
    if not timm.is_model(name):
        hint = nearest(name, [*bundled_models(), *timm.list_models()])
        raise InputError(f"There is no model named {name!r}.{hint} `caap-lab models` lists them all.")
    reason = refusal(name)
    if reason is not None:
        raise InputError(reason)
    known = get_arch_pretrained_cfgs(name)
    if "." in name and name not in known:
        raise InputError(f"{name!r} names no weights that timm knows.{_tags(name)}")


def _tags(name: str) -> str:
    known = [tagged for tagged, config in get_arch_pretrained_cfgs(name).items() if config.hf_hub_id]
    return f" Known: {', '.join(known)}." if known else ""


def _is_file(path: str | Path) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that is too long, or a folder without read permission
        return False
