"""Any model that a user has as a hooked one: `cl.wrap`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timm.models.mlp_mixer import MlpMixer
from torch import nn

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.black_box import BlackBoxModel
from caap_lab.models.classes import ClassNames
from caap_lab.models.cnn import HookedCNN
from caap_lab.models.cnn_steps import CNNS
from caap_lab.models.device_dtype import plain_defaults
from caap_lab.models.families import FAMILIES, read_spec
from caap_lab.models.hugging_face.preprocessing import from_settings, read_preprocessing
from caap_lab.models.hugging_face.reading import class_names as named_classes
from caap_lab.models.hugging_face.reading import own_image_size
from caap_lab.models.image_sizes import as_image_size
from caap_lab.models.mixer import HookedMixer
from caap_lab.models.parts_inside import find_inside, head_behind, passes_on_to
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.supported import refusal_of
from caap_lab.models.twins import configured_names, timm_twin
from caap_lab.models.twins.families import family_of_class
from caap_lab.models.unwrap import check_whole, path_of, unwrap
from caap_lab.models.vit import HookedViT
from caap_lab.notes import note

_MODELS_INSIDE = ("model", "module", "ema", "backbone", "visual")
"""Attributes under which objects that are no modules keep theirs: pipelines, trainers, averages."""


@dataclass(frozen=True)
class _Options:
    """What was given beside the model."""

    head: nn.Module | None
    grid: tuple[int, int] | None
    image_size: tuple[int, int] | None
    preprocessing: Preprocessing | None
    class_names: Sequence[str] | ClassNames | None
    name: str | None


@plain_defaults()
def wrap(
    model: Any,
    *,
    head: nn.Module | None = None,
    grid: tuple[int, int] | None = None,
    image_size: int | tuple[int, int] | None = None,
    preprocessing: Any = None,
    class_names: Sequence[str] | ClassNames | None = None,
    name: str | None = None,
) -> HookedModel:
    """Any model that you have, with hook points: what `load_model` is for names, for a module in memory.

    ```python
    model = cl.wrap(module)    # of timm, transformers, torchvision, or your own
    cl.wrap(module, class_names=[f"digit {n}" for n in range(10)], name="mine")
    ```

    A timm Vision Transformer becomes a `HookedViT`, a timm ResNet, DenseNet or VGG a `HookedCNN`, an MLP-Mixer a
    `HookedMixer`; the model itself stays in it, on its device and in its number format, and is put into evaluation
    mode. A Vision Transformer of transformers or torchvision becomes a `HookedViT` of its timm twin, which has copies
    of the weights and was compared with it. Compiled, parallel and averaged models and those with PEFT's adapters are
    taken out of their wrappers; so is a model in a module of your own that gives the same outputs. A wrapper that does
    something itself is refused. With `grid`, any other image classifier becomes a `BlackBoxModel`.

    Args:
        model: A module that makes class scores, or features, of images [batch, 3, height, width].
        head: A module to use in place of a Vision Transformer's own head or, where that gives features, behind them: a
            linear layer, for example, or a head of `caap_lab.models.heads`.
        grid: Rows and columns of the maps' cells, for CNNs and black boxes.
        image_size: Pixels or (height, width), where they differ from the model's own; a Vision Transformer's positions
            are resampled.
        preprocessing: How photos become tensors, as a `Preprocessing` or an image processor of transformers. By default
            what the model's timm configuration or its checkpoint's files say.
        class_names: One name per class; by default the checkpoint's own, or ImageNet-1k names for 1000 classes.
        name: What results call the model.

    Raises:
        InputError: the model is not supported; the message says what is, and which part of the model to pass.
    """
    size = None if image_size is None else as_image_size(image_size)
    options = _Options(head, grid, size, _as_preprocessing(preprocessing), class_names, name)
    check_whole(model)
    module = unwrap(model)
    if isinstance(module, HookedModel):
        given = [field for field, value in vars(options).items() if value is not None]
        if given:
            raise InputError(
                f"This {type(module).__name__} is wrapped already, so {given[0]}=... cannot be changed here. Wrap the "
                f"model in it: cl.wrap(model.body, {given[0]}=...)."
            )
        return module
    if not isinstance(module, nn.Module):
        raise _no_module(module)
    hooked = _hooked(module, options)
    if hooked is not None:
        return hooked
    return _inside(module, options) if grid is None else _black_box(module, options)


def _hooked(module: nn.Module, options: _Options) -> HookedModel | None:
    """The hooked model of a class that is known; None for others, and for refused ones that `grid` is given for."""
    twin: HookedViT | None = None
    try:
        if any(family.fits(module) for family in FAMILIES):
            read_spec(module)
        elif isinstance(module, MlpMixer):
            HookedMixer(module)
        elif not isinstance(module, CNNS):
            twin = _of_twin(module, options)
            if twin is None:
                return None
    except InputError as error:
        if options.grid is not None:
            return None
        compiled = next((path_of(n) for n, p in module.named_modules() if type(p).__name__ == "OptimizedModule"), None)
        if compiled is None:
            raise
        raise InputError(
            f"{compiled} is compiled on its own, and hook points stand inside it. Put the original back, {compiled} = "
            f"{compiled}._orig_mod, or compile that in place: {compiled}._orig_mod.compile()."
        ) from error
    if twin is not None:
        return _with_its_grid(twin, options)
    if isinstance(module, CNNS):
        return _cnn(module, options)
    own = Preprocessing.from_timm(module)
    size = options.image_size or (options.preprocessing or own).image_size
    facts: Any = {
        "preprocessing": replace(options.preprocessing or own, image_size=own.image_size),
        "class_names": options.class_names,
        "name": options.name,
    }
    if isinstance(module, MlpMixer):
        _check_no_head(module, options)
        hooked: HookedModel = HookedMixer(module, **facts)
    else:
        hooked = HookedViT(module, head=options.head, **facts)
    return _with_its_grid(hooked if size == own.image_size else hooked.at_image_size(size), options)


def _cnn(module: nn.Module, options: _Options) -> HookedCNN:
    _check_no_head(module, options)
    preprocessing = options.preprocessing or Preprocessing.from_timm(module)
    if options.image_size is not None:
        preprocessing = replace(preprocessing, image_size=options.image_size)
    names = options.class_names
    return HookedCNN(module, grid=options.grid, preprocessing=preprocessing, class_names=names, name=options.name)


def _black_box(module: nn.Module, options: _Options) -> BlackBoxModel:
    _check_no_head(module, options)
    assert options.grid is not None
    return BlackBoxModel(
        module,
        grid=options.grid,
        image_size=options.image_size,
        preprocessing=options.preprocessing or _read_own(module),
        class_names=options.class_names,
        name=options.name,
    )


def _of_twin(module: nn.Module, options: _Options) -> HookedViT | None:
    """The timm twin of a model of transformers or torchvision; None if its class has none."""
    if family_of_class(type(module)) is None:
        return None
    own = options.preprocessing or _read_own(module)
    size = options.image_size or (None if own is None else own.image_size)
    if size is not None and options.image_size is None and options.preprocessing is None:
        config: Any = module.config
        size = own_image_size(config.name_or_path, config, own)
    twin = timm_twin(module, image_size=size)
    assert twin is not None
    if own is None:
        own = Preprocessing.from_timm(twin.model)
        note(
            f"Nothing says how photos were preprocessed for this {type(module).__name__}: they are normalised as for "
            f"the family's published checkpoints, with mean {list(own.mean)} and std {list(own.std)}. If it was "
            "trained with others, give preprocessing=..."
        )
    names = named_classes(twin.class_names) if options.head is None else None
    return HookedViT(
        twin.model,
        head=options.head or twin.head,
        preprocessing=own if size is None else replace(own, image_size=size),
        class_names=options.class_names or names,
        name=options.name or twin.name,
    )


def _inside(module: nn.Module, options: _Options) -> HookedModel:
    """The model inside a module of the user's own, if that module gives the same outputs.

    Raises:
        InputError: it does not, or no model inside is supported, or several are.
    """
    kind, found = type(module).__name__, find_inside(module, _is_known)
    black_box = "cl.wrap(model, grid=(14, 14)) makes a black box of the whole, for the methods that need no tokens."
    if not found:
        held = [path_of(name) for name, _ in module.named_children()]
        parts = f" It holds {', '.join(held[:6])}{' and others' if len(held) > 6 else ''}." if held else ""
        raise InputError(f"{refusal_of(module)}{parts}")
    if len(found) > 1:
        raise InputError(
            f"This {kind} holds several models: {', '.join(path_of(name) for name in found)}. Pass the one that you "
            f"mean, as in cl.wrap({path_of(next(iter(found)))}); or {black_box}"
        )
    ((name, part),) = found.items()
    training = [one for one in module.modules() if one.training]
    hooked = _hooked(part, options)
    assert hooked is not None
    if passes_on_to(module, hooked):
        names = named_classes(configured_names(module, hooked.n_classes))  # of timm's models inside transformers'
        if names is not None and options.class_names is None and options.head is None:
            hooked.class_names = names
        return hooked
    head = None if options.head is not None else head_behind(module, name, hooked)
    for one in training:  # as it was
        one.training = True
    inner = path_of(name)
    way = (
        f"cl.wrap({inner}, head={head}) gives the outputs of the whole."
        if head is not None
        else f"Pass that part, cl.wrap({inner}), with what stands around it as preprocessing=... (a normalisation "
        "before it) or head=... (a layer behind its features)."
    )
    raise InputError(
        f"This {kind} does something itself: on random images its outputs are not those of {inner}, the "
        f"{type(part).__name__} in it. {way} Or {black_box}"
    )


def _is_known(module: nn.Module) -> bool:
    if isinstance(module, (HookedModel, MlpMixer, *CNNS)) or any(family.fits(module) for family in FAMILIES):
        return True
    try:
        return family_of_class(type(module)) is not None
    except InputError:
        return False


def _with_its_grid(hooked: Any, options: _Options) -> Any:
    if options.grid is not None and tuple(options.grid) != hooked.grid:
        raise InputError(
            f"grid={options.grid}: maps of {hooked.model_name} have a cell for each of its {hooked.grid[0]} x "
            f"{hooked.grid[1]} patches. Leave grid out; cl.BlackBoxModel(model, grid=...) makes a black box of it."
        )
    return hooked


def _check_no_head(module: nn.Module, options: _Options) -> None:
    if options.head is not None:
        raise InputError(f"{type(module).__name__} keeps its own head; head=... is for Vision Transformers.")


def _as_preprocessing(given: Any) -> Preprocessing | None:
    """A `Preprocessing`, or what an image processor of transformers does."""
    if given is None or isinstance(given, Preprocessing):
        return given
    processor = getattr(given, "image_processor", given)  # of a processor of images and text
    if type(processor).__module__.split(".")[0] == "transformers" and hasattr(processor, "to_dict"):
        return from_settings(processor.to_dict(), type(processor).__name__)
    raise InputError(
        f"preprocessing={type(given).__name__} is neither a cl.Preprocessing nor an image processor of transformers. "
        "Give its numbers: cl.Preprocessing(image_size, mean, std)."
    )


def _read_own(module: nn.Module) -> Preprocessing | None:
    """What the files say of a checkpoint that transformers has loaded: its folder's, or those in the hub's cache."""
    where = str(getattr(getattr(module, "config", None), "name_or_path", "") or "")
    if not where:
        return None
    if Path(where).is_dir():
        return read_preprocessing(Path(where))
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(where, "preprocessor_config.json")
    except HFValidationError:  # a name that is no repository's
        return None
    return read_preprocessing(Path(cached).parent) if isinstance(cached, str) else None


def _no_module(given: Any) -> InputError:
    """The error for what is no module, with what to pass instead."""
    kind = type(given).__name__
    if isinstance(given, (str, Path)):
        return InputError(f"{str(given)!r} is a name; cl.load_model loads models by name or folder.")
    if isinstance(given, dict):
        return InputError(
            "These are weights or settings in a dict, and no model: load them into a module, or give their file to "
            "cl.load_model(name, checkpoint=...)."
        )
    inside = [name for name in _MODELS_INSIDE if isinstance(getattr(given, name, None), nn.Module)]
    if inside:
        return InputError(f"{kind} is no torch.nn.Module, and holds one: cl.wrap(model.{inside[0]}).")
    if isinstance(given, (tuple, list)):
        places = [place for place, value in enumerate(given) if isinstance(value, nn.Module)]
        hint = f": cl.wrap(model[{places[0]}])" if places else ""
        return InputError(f"Expected one model, not a {kind}{hint}.")
    return InputError(f"cl.wrap takes a torch.nn.Module, not {kind}; put a function into the forward of a module.")
