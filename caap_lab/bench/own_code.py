"""Methods, metrics and neighbourhoods that users registered, sent to workers, which may outlive a run."""

import sys
import threading
import types
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Literal

from caap_lab.attribution.registry import METHODS, register, registered
from caap_lab.digests.hashing import hex_digest
from caap_lab.digests.python_code import lies_in_library
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import BUILT_IN, METRICS
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS, own_neighbourhoods

Kind = Literal["method", "metric", "neighbourhood"]
Packed = dict[tuple[Kind, str], bytes]
"""Pickled code, by kind and name."""

_installed: dict[tuple[Kind, str], tuple[str, object]] = {}
"""Hash of the code installed last, and the method, metric or neighbourhood that it became."""
LOCK = threading.RLock()
"""Held while a worker registers code and runs with it, because another run may bring other code of the same names."""


def packed(methods: Iterable[str], metrics: Iterable[str] = ()) -> Packed:
    """The code of the methods and metrics that users registered, with the user's own modules that it uses.

    All of the user's own neighbourhoods are included, because any option may name one.

    Raises:
        InputError: one of them contains something that cannot be sent.
    """
    import cloudpickle

    contents: dict[tuple[Kind, str], Any] = {}
    for name in methods:
        if registered(name) is not None:
            contents["method", name] = registered(name)
    for name in metrics:
        if METRICS[name] not in BUILT_IN:
            contents["metric", name] = METRICS[name]
    for name, neighbourhood in own_neighbourhoods().items():
        contents["neighbourhood", name] = neighbourhood
    result: Packed = {}
    with ExitStack() as stack:
        for module in _own_modules():  # a worker does not have them, or has older ones
            cloudpickle.register_pickle_by_value(module)
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        for (kind, name), content in contents.items():
            try:
                result[kind, name] = cloudpickle.dumps(content)
            except Exception as error:  # any error raised by pickling
                raise InputError(
                    f"The {kind} {name!r} cannot be sent to workers ({type(error).__name__}: {error}). Let it open "
                    "files and load models when it is called instead of storing them, or run it without workers."
                ) from error
    return result


def install(code: Packed) -> None:
    """Register on a worker what `packed` returned, unless the same code is already registered there."""
    import cloudpickle

    registries: dict[Kind, dict[str, Any]] = {"method": METHODS, "metric": METRICS, "neighbourhood": NEIGHBOURHOODS}
    for (kind, name), content in code.items():
        registry = registries[kind]
        digest = hex_digest(content, size=16)
        known = _installed.get((kind, name))
        if known is None or known[0] != digest or registry.get(name) is not known[1]:
            loaded = cloudpickle.loads(content)  # sent by this run's own client, like every task
            if kind == "method":
                compute, facts = loaded
                register(name, compute, **facts)
            else:
                registry[name] = loaded
            _installed[kind, name] = (digest, registry[name])


def _own_modules() -> list[types.ModuleType]:
    """Modules that belong neither to Python, nor to installed packages, nor to this package."""
    own = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(module, types.ModuleType) or not isinstance(file, str) or module.__name__ != name:
            continue
        if name.partition(".")[0] not in ("caap_lab", "__main__", "__mp_main__") and not lies_in_library(file):
            own.append(module)
    return own
