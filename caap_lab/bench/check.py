"""What a run needs, looked at before its folder is written: nothing misspelt may fill it with trials that failed."""

import inspect
from collections.abc import Iterable

from torch import nn

from caap_lab.attribution.cost import ModelSize
from caap_lab.bench.ready import refusal
from caap_lab.bench.ready_model import Problem
from caap_lab.bench.run_cost import architecture
from caap_lab.bench.run_folder import SCHEMA
from caap_lab.bench.target_rule import OwnTarget, TargetRule
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import BUILT_IN, parse_metric
from caap_lab.models.device_dtype import as_device, as_dtype
from caap_lab.models.hugging_face.folder import names_folder
from caap_lab.models.load import bundled_models, load_model
from caap_lab.models.names import nearest
from caap_lab.models.products import TF32
from caap_lab.variant import Variant

_OTHER_COLUMNS = ("study", "failed")
"""Of tables of rows, besides those of parts."""
_OPTIONS = tuple(inspect.signature(load_model).parameters)[1:]


def check_running(batch_size: int, workers: int | None, scheduler: str | None, device: str, objects: bool) -> None:
    """Refuse ways of running that cannot be.

    Args:
        batch_size: Changed images run at once.
        workers: Processes on this machine.
        scheduler: Address of a running Dask cluster; its workers look for the device themselves.
        device: Where models run.
        objects: True if models came as objects.

    Raises:
        InputError: says which.
    """
    check_count("batch_size", batch_size)
    if workers is not None:
        check_count("workers", workers)
        if scheduler is not None:
            raise InputError("Give workers=... or scheduler=..., not both.")
    if scheduler is not None and (not isinstance(scheduler, str) or not scheduler.strip()):
        raise InputError(f"scheduler={scheduler!r} is no address, such as 'tcp://host:8786'.")
    if objects and (workers is not None or scheduler is not None):
        raise InputError("Workers load models by name; hand over names instead of hooked models.")
    if scheduler is None:
        as_device(device)


def check_metrics(texts: Iterable[str]) -> None:
    """Refuse metrics that are not there, have options that they do not know, or a column that rows have already.

    Raises:
        InputError: says which.
    """
    for text in dict.fromkeys(texts):
        metric, _ = parse_metric(text)
        for column in () if metric in BUILT_IN else metric.columns:
            if column.name in (*SCHEMA.names, *_OTHER_COLUMNS):
                raise InputError(f"The column {column.name!r} of {metric.name} needs another name: rows have one.")


def check_rules(rules: Iterable[TargetRule], here: bool) -> None:
    """Refuse targets that cannot be explained: known by name alone, or a function of the logits on workers.

    Args:
        rules: What is explained.
        here: True if trials run in this process.

    Raises:
        InputError: says which.
    """
    for rule in rules:
        if isinstance(rule, OwnTarget):
            raise InputError(
                f"The target {rule.name!r} came as an object, of which plans keep the name and a hash; call "
                "cl.benchmark with it again."
            )
        if callable(rule) and not here:
            raise InputError("Workers are not given functions as targets; take a contrast or a direction.")


def check_models(specs: Iterable[Variant], here: bool) -> None:
    """Refuse models by name that are not there, are not supported, or have options that no model has.

    Args:
        specs: Models; those that came as objects are left out.
        here: True if they run on this machine, with its devices.

    Raises:
        InputError: says which, with the nearest names; of all of them.
    """
    problems = []
    for spec in {spec.text: spec for spec in specs if "given" not in spec.options}.values():
        try:
            check_options(spec, here)
            if spec.name not in bundled_models() and not names_folder(spec.name):  # quick: no weights are read
                known_architecture(spec)
        except InputError as error:
            problems.append(Problem(spec.label, str(error)))
    if problems:
        raise InputError(refusal(problems))


def check_options(spec: Variant, here: bool = True) -> None:
    """Refuse options that no model has, or a number format or device that there is not.

    Args:
        spec: A model by name.
        here: True if it runs on this machine, with its devices.

    Raises:
        InputError: says which, with the nearest names.
    """
    for option in spec.options:
        if option not in _OPTIONS:
            raise InputError(
                f"{spec.text}: a model has no option {option!r}.{nearest(option, _OPTIONS)} "
                f"Its options are {', '.join(_OPTIONS)}."
            )
    if spec.options.get("dtype", TF32) != TF32:
        as_dtype(spec.options["dtype"])
    if here and "device" in spec.options:
        as_device(spec.options["device"])


def known_architecture(spec: Variant) -> tuple[nn.Module, ModelSize]:
    """A model without weights, and its size; see `architecture`.

    Raises:
        InputError: it is not there, is not supported, or cannot be made with its options.
    """
    try:
        return architecture(spec)
    except InputError:
        raise
    except Exception as error:  # of timm, for a size that does not go with the model
        raise InputError(f"The model {spec.text} cannot be made ({type(error).__name__}: {error}).") from error
