"""`cl.wrap`: hooked models from any model in memory."""

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
from caap_lab.models.compiling import compile_blocks, wants_compiled
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
"""Attributes with which pipelines, trainers and averages, which are not modules, hold their model."""


@dataclass(frozen=True)
class _Options:
    """The options that were given with the model."""

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
    compile: bool = False,
) -> HookedModel:
    """A hooked model of any module in memory; `load_model` does the same for names.

    ```python
    model = cl.wrap(module)    # of timm, transformers, torchvision, or your own
    cl.wrap(module, class_names=[f"digit {n}" for n in range(10)], name="mine")
    ```

    A timm Vision Transformer becomes a `HookedViT`, a timm ResNet, DenseNet or VGG a `HookedCNN`, an MLP-Mixer a
    `HookedMixer`; the model is kept inside, on its device and in its number format, and set to evaluation mode. A
    Vision Transformer of transformers or torchvision becomes a `HookedViT` of its timm twin, which has copies of the
    weights and is checked against the original. Compiled, parallel and averaged models and those with PEFT adapters are
    unwrapped; so is a model inside your own module that returns the same outputs. A wrapper that changes the
    computation is an error. With `grid`, any other image classifier becomes a `BlackBoxModel`.

    Args:
        model: A module that computes class scores, or features, from images [batch, 3, height, width].
        head: A module to use instead of a Vision Transformer's own head or, if that returns features, on these
            features: for example a linear layer, or a head from `caap_lab.models.heads`.
        grid: Rows and columns of the cells of maps, for CNNs and black boxes.
        image_size: Pixels or (height, width), if different from the model's own; a Vision Transformer's positions are
            resampled.
        preprocessing: How photos become tensors: a `Preprocessing` or an image processor of transformers. By default
            from the model's timm configuration or its checkpoint's files.
        class_names: One name per class; by default the checkpoint's own, or ImageNet-1k names for 1000 classes.
        name: Name of the model in results.
        compile: Run the blocks of a Vision Transformer or Mixer through torch.compile; see `load_model`.

    Raises:
        InputError: the model is not supported; the message says which models are, and which part of the model to pass.
    """
    size = None if image_size is None else as_image_size(image_size)
    options = _Options(head, grid, size, _as_preprocessing(preprocessing), class_names, name)
    compile = wants_compiled(compile)
    check_whole(model)
    module = unwrap(model)
    if isinstance(module, HookedModel):
        given = [field for field, value in vars(options).items() if value is not None] + ["compile"] * compile
        if given:
            raise InputError(
                f"This {type(module).__name__} is already wrapped, so {given[0]}=... cannot be changed here. Wrap the "
                f"model inside: cl.wrap(model.body, {given[0]}=...)."
            )
        return module
    if not isinstance(module, nn.Module):
        raise _no_module(module)
    hooked = _hooked(module, options)
    if hooked is None:
        hooked = _inside(module, options) if grid is None else _black_box(module, options)
    if compile:
        compile_blocks(hooked)
    return hooked


def _hooked(module: nn.Module, options: _Options) -> HookedModel | None:
    """The hooked model of a module of a known class; None for others, and for unsupported ones if `grid` is given."""
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
            f"{compiled} is compiled separately, but contains hook points. Restore the original, {compiled} = "
            f"{compiled}._orig_mod, or compile it in place: {compiled}._orig_mod.compile()."
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
    """The hooked timm twin of a transformers or torchvision model; None if its class has none."""
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
            f"The preprocessing of this {type(module).__name__} is not known: photos are normalised as for the "
            f"family's published checkpoints, with mean {list(own.mean)} and std {list(own.std)}. If it was "
            "trained with other values, give preprocessing=..."
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
    """The hooked model inside a user's module, if that module returns the same outputs.

    Raises:
        InputError: it does not, or it contains no supported model or several.
    """
    kind, found = type(module).__name__, find_inside(module, _is_known)
    black_box = "cl.wrap(model, grid=(14, 14)) wraps all of it as a black box, for methods that do not need tokens."
    if not found:
        held = [path_of(name) for name, _ in module.named_children()]
        parts = f" It holds {', '.join(held[:6])}{' and others' if len(held) > 6 else ''}." if held else ""
        raise InputError(f"{refusal_of(module)}{parts}")
    if len(found) > 1:
        raise InputError(
            f"This {kind} contains several models: {', '.join(path_of(name) for name in found)}. Pass the one that you "
            f"mean, as in cl.wrap({path_of(next(iter(found)))}); or {black_box}"
        )
    ((name, part),) = found.items()
    training = [one for one in module.modules() if one.training]
    hooked = _hooked(part, options)
    assert hooked is not None
    if passes_on_to(module, hooked):
        names = named_classes(configured_names(module, hooked.n_classes))  # for timm models inside transformers models
        if names is not None and options.class_names is None and options.head is None:
            hooked.class_names = names
        return hooked
    head = None if options.head is not None else head_behind(module, name, hooked)
    for one in training:  # restore the mode
        one.training = True
    inner = path_of(name)
    way = (
        f"cl.wrap({inner}, head={head}) returns the same outputs."
        if head is not None
        else f"Pass that part, cl.wrap({inner}), and what surrounds it as preprocessing=... (a normalisation before "
        "it) or head=... (a layer after its features)."
    )
    raise InputError(
        f"This {kind} changes the computation: on random images its outputs are not those of {inner}, the "
        f"{type(part).__name__} inside. {way} Or {black_box}"
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
            f"grid={options.grid}: maps of {hooked.model_name} have one cell per patch, {hooked.grid[0]} x "
            f"{hooked.grid[1]}. Omit grid; cl.BlackBoxModel(model, grid=...) wraps it as a black box."
        )
    return hooked


def _check_no_head(module: nn.Module, options: _Options) -> None:
    if options.head is not None:
        raise InputError(f"{type(module).__name__} keeps its own head; head=... is for Vision Transformers.")


def _as_preprocessing(given: Any) -> Preprocessing | None:
    """A `Preprocessing` from a given one or an image processor of transformers."""
    if given is None or isinstance(given, Preprocessing):
        return given
    processor = getattr(given, "image_processor", given)  # a processor of images and text
    if type(processor).__module__.split(".")[0] == "transformers" and hasattr(processor, "to_dict"):
        return from_settings(processor.to_dict(), type(processor).__name__)
    raise InputError(
        f"preprocessing={type(given).__name__} is neither a cl.Preprocessing nor an image processor of transformers. "
        "Give its values: cl.Preprocessing(image_size, mean, std)."
    )


def _read_own(module: nn.Module) -> Preprocessing | None:
    """The preprocessing in the files of a checkpoint loaded by transformers: in its folder, or in the hub's cache."""
    where = str(getattr(getattr(module, "config", None), "name_or_path", "") or "")
    if not where:
        return None
    if Path(where).is_dir():
        return read_preprocessing(Path(where))
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(where, "preprocessor_config.json")
    except HFValidationError:  # a name that is not a repository's
        return None
    return read_preprocessing(Path(cached).parent) if isinstance(cached, str) else None


def _no_module(given: Any) -> InputError:
    """The error for an argument that is not a module, with what to pass instead."""
    kind = type(given).__name__
    if isinstance(given, (str, Path)):
        return InputError(f"{str(given)!r} is a name; cl.load_model loads models by name or folder.")
    if isinstance(given, dict):
        return InputError(
            "This is a dict of weights or settings, not a model: load them into a module, or pass their file to "
            "cl.load_model(name, checkpoint=...)."
        )
    inside = [name for name in _MODELS_INSIDE if isinstance(getattr(given, name, None), nn.Module)]
    if inside:
        return InputError(f"{kind} is not a torch.nn.Module but holds one: cl.wrap(model.{inside[0]}).")
    if isinstance(given, (tuple, list)):
        places = [place for place, value in enumerate(given) if isinstance(value, nn.Module)]
        hint = f": cl.wrap(model[{places[0]}])" if places else ""
        return InputError(f"Expected one model, not a {kind}{hint}.")
    return InputError(f"cl.wrap takes a torch.nn.Module, not {kind}; call a function in the forward of a module.")
