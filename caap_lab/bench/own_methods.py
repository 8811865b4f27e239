"""The code of methods that users registered, on its way to workers, which may live longer than a run."""

import hashlib
import sys
import threading
import types
from collections.abc import Iterable
from contextlib import ExitStack

from caap_lab.digests.python_code import lies_in_library
from caap_lab.attribution.method import Method
from caap_lab.attribution.registry import METHODS, register, registered
from caap_lab.errors import InputError

_installed: dict[str, tuple[bytes, Method]] = {}
"""By name: hash of the code that was installed last, and the method that it became."""
LOCK = threading.RLock()
"""Held while a worker registers methods and runs with them, as another run may bring others under the same names."""


def packed(names: Iterable[str]) -> dict[str, bytes]:
    """The code of those of the methods that users registered, by name; it holds the user's own modules as well.

    Raises:
        InputError: a method holds something that cannot be sent.
    """
    import cloudpickle

    found: dict[str, bytes] = {}
    with ExitStack() as stack:
        for module in _own_modules():  # a worker has none of them, or maybe older ones
            cloudpickle.register_pickle_by_value(module)
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        for name in dict.fromkeys(names):
            own = registered(name)
            if own is None:
                continue
            try:
                found[name] = cloudpickle.dumps(own)
            except Exception as error:  # whatever the objects' own pickling raises
                raise InputError(
                    f"The method {name!r} cannot be sent to workers ({type(error).__name__}: {error}). Let it open "
                    "files and load models when it is called instead of holding them, or run it without workers."
                ) from error
    return found


def install(methods: dict[str, bytes]) -> None:
    """Register on a worker what `packed` gave, unless the same code is registered there already."""
    import cloudpickle

    for name, content in methods.items():
        digest = hashlib.blake2b(content).digest()
        known = _installed.get(name)
        if known is None or known[0] != digest or METHODS.get(name) is not known[1]:
            compute, facts = cloudpickle.loads(content)  # sent by this run's own client, as every task is
            register(name, compute, **facts)
            _installed[name] = (digest, METHODS[name])


def _own_modules() -> list[types.ModuleType]:
    """Modules that are neither Python's, nor installed, nor this package's."""
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(module, types.ModuleType) or not isinstance(file, str) or module.__name__ != name:
            continue
        if name.partition(".")[0] not in ("caap_lab", "__main__", "__mp_main__") and not lies_in_library(file):
            found.append(module)
    return found
