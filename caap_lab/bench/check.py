"""Checks of a run's arguments before its folder is written: no typing error may fill it with failed trials."""

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
"""Columns of tables of rows, in addition to those of parts."""
_OPTIONS = tuple(inspect.signature(load_model).parameters)[1:]


def check_running(batch_size: int, workers: int | None, scheduler: str | None, device: str, objects: bool) -> None:
    """Raise InputError for invalid arguments of running.

    Args:
        batch_size: Changed images run at once.
        workers: Processes on this machine.
        scheduler: Address of a running Dask cluster; its workers check the device themselves.
        device: Device of the models.
        objects: True if models were given as objects.

    Raises:
        InputError: the message names the argument.
    """
    check_count("batch_size", batch_size)
    if workers is not None:
        check_count("workers", workers)
        if scheduler is not None:
            raise InputError("Give workers=... or scheduler=..., not both.")
    if scheduler is not None and (not isinstance(scheduler, str) or not scheduler.strip()):
        raise InputError(f"scheduler={scheduler!r} must be an address, such as 'tcp://host:8786'.")
    if objects and (workers is not None or scheduler is not None):
        raise InputError("Workers load models by name; use names instead of hooked models.")
    if scheduler is None:
        as_device(device)


def check_metrics(texts: Iterable[str]) -> None:
    """Raise InputError for metrics that do not exist, unknown options, or a column that rows already have.

    Raises:
        InputError: the message names the metric.
    """
    for text in dict.fromkeys(texts):
        metric, _ = parse_metric(text)
        for column in () if metric in BUILT_IN else metric.columns:
            if column.name in (*SCHEMA.names, *_OTHER_COLUMNS):
                raise InputError(
                    f"The column {column.name!r} of {metric.name} needs another name: rows already have it."
                )


def check_rules(rules: Iterable[TargetRule], here: bool) -> None:
    """Raise InputError for targets that cannot be computed: known only by name, or a function of the logits on workers.

    Args:
        rules: The targets.
        here: True if trials run in this process.

    Raises:
        InputError: the message names the target.
    """
    for rule in rules:
        if isinstance(rule, OwnTarget):
            raise InputError(
                f"The target {rule.name!r} was given as an object, of which plans only store the name and a hash; call "
                "cl.benchmark with it again."
            )
        if callable(rule) and not here:
            raise InputError("Workers cannot receive functions as targets; use a contrast or a direction.")


def check_models(specs: Iterable[Variant], here: bool) -> None:
    """Raise InputError for models by name that do not exist, are not supported, or have unknown options.

    Args:
        specs: Models; those given as objects are omitted.
        here: True if they run on this machine, with its devices.

    Raises:
        InputError: the message lists all of them, with the nearest names.
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
    """Raise InputError for unknown options of a model, or a number format or device that is not available.

    Args:
        spec: A model by name.
        here: True if it runs on this machine, with its devices.

    Raises:
        InputError: the message names them, with the nearest names.
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
        InputError: it does not exist, is not supported, or cannot be built with its options.
    """
    try:
        return architecture(spec)
    except InputError:
        raise
    except Exception as error:  # raised by timm, for a size that does not fit the model
        raise InputError(f"The model {spec.text} cannot be built ({type(error).__name__}: {error}).") from error
