"""Which tensors of a checkpoint are the model's weights: sets of weights under keys, and prefixes of names."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from caap_lab.errors import CheckpointError

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "model_state_dict")
"""Keys under which training scripts save weights, in timm's order of preference: averaged ones first."""
_CHOSEN_BY_TIMM = {"state_dict_ema", "model_ema", "state_dict", "model"}
_PREFIXES = (
    *("module", "model", "backbone", "encoder", "net", "network", "vit", "cnn", "base_model", "timm_model"),
    *("teacher", "student", "ema", "model_ema", "ema_model", "online_model"),
)
"""Prefixes that wrappers add to the names of their model's weights."""
_PATCHES = ".patch_embed.proj.weight"
_CONVERTED_BY_TIMM = {"visual"}
"""Prefixes of names in layouts that timm converts."""
_IN_FRONT = re.compile(rf"^(({'|'.join(_PREFIXES)})\.)+")
_INSIDE_NAMES = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch's compiler and training wrappers insert into names."""
_OF_TRAINING = re.compile(r"(loss|criterion|optim|sched|scaler|metric)", re.IGNORECASE)
"""Patterns in keys, or in the first part of names, of training state that is not the model."""
_AVERAGED = re.compile(r"(^|[^a-z])(ema|swa|shadow|polyak)|averag", re.IGNORECASE)
"""Patterns in keys of averaged weights."""
_COUNTERS = {"n_averaged", "initted", "step", "global_step", "num_updates", "epoch"}
_PROJECTION_HEADS = re.compile(r"(head\.(mlp|last_layer)|dino_head|ibot_head)\.")
"""DINO's and iBOT's heads, which only training uses: class scores are computed from the backbone's features."""
_ADAPTERS = re.compile(r"\.(lora_\w+|hada_\w+|lokr_\w+|ia3_\w+|oft_\w+|vera_\w+|base_layer)\.|\.(ia3_\w+|lora_\w+)$")
_OF_MODELS = re.compile(
    r"(cls_token|pos_embed|patch_embed\.proj\.weight|blocks\.0\..+|conv1\.weight|layer1\.0\..+|stem\.proj\.weight"
    r"|features\.(0|conv0)\..+)$"
)
"""Names that identify the weights of a supported timm model."""
_MOST_SHOWN = 4
_MOST_SETS_SHOWN = 6


def find_weights(content: Any, file: object, key: str | None = None) -> dict[str, Tensor]:
    """A model's tensors under its own names, from the content of a checkpoint.

    Args:
        content: The content of the file.
        file: The file's name in errors.
        key: Which set of weights: a key at any depth, or a prefix of names; None if there is only one set.

    Raises:
        CheckpointError: there are no weights; there are several sets and no key to choose; or there are other weights
            that may not belong to training only.
    """
    if isinstance(content, dict) and key is not None:
        content = _chosen(content, key, file)
    content = _unwrapped(content, file)
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not weights by name.")
    state = _tensors(content)
    if not state:
        shown = ", ".join(str(name) for name in list(content)[:6]) or "nothing"
        raise CheckpointError(f"{file} holds no weights by name; found {shown}.")
    adapters = [name for name in state if _ADAPTERS.search(name)]
    if adapters:
        raise CheckpointError(
            f"{file} holds adapters ({adapters[0]}) without their scale and base model. Load them with peft and wrap "
            "the model, cl.wrap(peft.PeftModel.from_pretrained(base_model, folder)); or save the weights of "
            "model.merge_and_unload()."
        )
    return _by_own_names(state, file)


def _unwrapped(content: Any, file: object) -> Any:
    """The content under the keys of training scripts."""
    while isinstance(content, dict):
        key: Any = next((key for key in _WRAPPERS if _holds_tensors(content.get(key))), None)
        if key is not None:
            _check_one_set(content, key, file)
        elif not _tensors(content):
            sets = [name for name, value in content.items() if _holds_tensors(value)]
            sets = [name for name in sets if not _OF_TRAINING.search(str(name))]
            if len(sets) > 1:
                raise CheckpointError(
                    f"{file} holds weights as {_several(sets)}; it is not clear which to load.{_choose(sets[0])}"
                )
            key = next(iter(sets), None)
        if key is None:
            break
        _check_no_list(content, key, file)
        content = content[key]
    return content


def _check_one_set(content: Mapping[Any, Any], key: str, file: object) -> None:
    """Raise CheckpointError for a second set of the same weights under a key unknown to timm, such as "ema"."""
    chosen = _bare_names(content[key])
    for other, value in content.items():
        if other == key or (other in _CHOSEN_BY_TIMM and key in _CHOSEN_BY_TIMM):
            continue
        if _alike(chosen, _bare_names(value)):
            raise CheckpointError(f"{file} holds weights as {_several([key, other])}.{_choose(key)}")


def _check_no_list(content: Mapping[Any, Any], key: Any, file: object) -> None:
    """Raise CheckpointError for averaged weights that are a list without names, such as torch_ema's."""
    shapes = Counter(_shapes(content[key]))
    for place, tensors in _averaged_lists({name: value for name, value in content.items() if name != key}):
        if not Counter(tuple(t.shape) for t in tensors) - shapes and 2 * len(tensors) >= shapes.total():
            raise CheckpointError(
                f"{file} holds weights as {str(key)!r}, and averaged ones without names as {place!r}. "
                f"checkpoint_key={str(key)!r} loads the former; for the latter, put them into your model as your "
                "training script does, and call cl.wrap(model)."
            )


def _averaged_lists(content: Any, place: str = "") -> Iterator[tuple[str, Sequence[Tensor]]]:
    """Lists of tensors under keys that mean averages, with their keys."""
    if isinstance(content, (list, tuple)):
        if _AVERAGED.search(place) and content and all(isinstance(value, Tensor) for value in content):
            yield place, content
        content = dict(enumerate(content))
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(value, (list, tuple, Mapping)):
                yield from _averaged_lists(value, f"{place}.{name}".removeprefix("."))


def _shapes(content: Any) -> Iterator[tuple[int, ...]]:
    for value in content.values() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor):
            yield tuple(value.shape)
        yield from _shapes(value)


def _by_own_names(state: dict[str, Tensor], file: object) -> dict[str, Tensor]:
    """Weights without the prefixes of wrappers, and without those that only training uses."""
    while True:
        if any(_OF_MODELS.match(name) for name in state):
            return {name: value for name, value in state.items() if not _is_of_training(name)}
        groups = {prefix: under for prefix in _prefixes(state) if (under := _under(state, prefix))}
        known = {prefix: under for prefix, under in groups.items() if _is_model(under)}
        if len(groups) == 1 and len(next(iter(groups.values()))) == len(state):
            state = next(iter(groups.values()))  # all names have this prefix
            continue
        if not known:
            return state
        first = next(iter(known))
        if len(known) > 1:
            raise CheckpointError(
                f"{file} holds weights with the prefixes {_several(known)}; it is not clear which to load."
                f"{_choose(first)}"
            )
        others = [name for name in state if not name.startswith(f"{first}.") and not _is_of_training(name)]
        if others:
            more = f" and {len(others) - _MOST_SHOWN} others" if len(others) > _MOST_SHOWN else ""
            raise CheckpointError(
                f"{file} holds a model's weights under {first!r}, and other weights: "
                f"{', '.join(others[:_MOST_SHOWN])}{more}. The file does not say how they work together. "
                f"checkpoint_key={first!r} loads only the former; if the others are a head, build your model, load "
                f"the weights into it, and call cl.wrap(model.{first}, head=model.head)."
            )
        state = known[first]


def _is_of_training(name: str) -> bool:
    return bool(name in _COUNTERS or _PROJECTION_HEADS.match(name) or _OF_TRAINING.search(name.split(".")[0]))


def _is_model(state: Mapping[str, Tensor]) -> bool:
    """True if the names, after any prefixes, are those of a supported model."""
    return any(_OF_MODELS.match(name) for name in state) or any(
        _is_model(under) for prefix in _prefixes(state) if (under := _under(state, prefix))
    )


def _prefixes(names: Iterable[str]) -> list[str]:
    """Known prefixes, and custom ones directly before a Vision Transformer's names."""
    own = {name.removesuffix(_PATCHES): None for name in names if name.endswith(_PATCHES)}
    return [
        *_PREFIXES,
        *(front for front in own if "." not in front and front not in {*_PREFIXES, *_CONVERTED_BY_TIMM}),
    ]


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Tensors by name, without what torch's compiler and training wrappers insert into the names."""
    named = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return {_INSIDE_NAMES.sub("", name): value for name, value in named.items()}


def _holds_tensors(content: Any) -> bool:
    """True for a mapping with tensors by name, at any depth."""
    return isinstance(content, dict) and (bool(_tensors(content)) or any(map(_holds_tensors, content.values())))


def _bare_names(content: Any) -> set[str]:
    """Names of the tensors under a key of a checkpoint, at any depth, without prefixes."""
    if not isinstance(content, dict):
        return set()
    inner = (_bare_names(value) for value in content.values())
    return {_IN_FRONT.sub("", name) for name in _tensors(content)}.union(*inner)


def _alike(one: set[str], other: set[str]) -> bool:
    """True if two sets of names belong to the same model."""
    return bool(one and other) and 2 * len(one & other) >= min(len(one), len(other))


def _chosen(content: Mapping[Any, Any], key: str, file: object) -> dict[Any, Any]:
    """The content of a checkpoint under a key, or under a prefix of names.

    Raises:
        CheckpointError: there is neither.
    """
    found = _search(content, key)
    if found is None:
        names = [str(name) for name, value in content.items() if _holds_tensors(value)]
        names += sorted({name.split(".")[0] for name in _tensors(content) if "." in name})
        known = _several(names) or "no key"
        raise CheckpointError(f"{file} has no weights under checkpoint_key={key!r}; it has some under {known}.")
    return found


def _search(content: Mapping[Any, Any], key: str) -> dict[Any, Any] | None:
    if isinstance(content.get(key), dict):
        return content[key]
    tensors = _tensors(content)
    if under := _under(tensors, key):
        return dict(under)
    inner = [_search(behind, key) for prefix in _prefixes(tensors) if (behind := _under(tensors, prefix))]
    inner += [_search(value, key) for value in content.values() if isinstance(value, dict)]
    return next((found for found in inner if found is not None), None)


def _several(keys: Iterable[Any]) -> str:
    shown = [repr(str(key)) for key in list(keys)[:_MOST_SETS_SHOWN]]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def _choose(key: Any) -> str:
    return f" Choose one, as with checkpoint_key={str(key)!r}."
