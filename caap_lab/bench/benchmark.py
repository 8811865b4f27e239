"""`benchmark`: compute the trials of a plan into a run's folder, and resume where an earlier run stopped."""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from caap_lab.attribution.registry import check_variant
from caap_lab.bench.cells import groups, rows_of
from caap_lab.bench.check import check_metrics, check_models, check_rules, check_running
from caap_lab.bench.cluster import refuse_import, started
from caap_lab.bench.identity import Unreadable, identified, model_digest
from caap_lab.bench.plan import BenchmarkPlan, Data, Study, Trial
from caap_lab.bench.ready import Running, check_ready
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.stored_maps import with_stored_maps
from caap_lab.bench.target_rule import TargetRule
from caap_lab.bench.trial import Row, compute, failure, forget_failures, model_of
from caap_lab.data.image_set import ImageSet, read_list
from caap_lab.data.open import open_images
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import default_metrics
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from caap_lab.models.base import HookedModel
from caap_lab.variant import Variant, parse_variant

_COMPACT_AFTER = 64  # trials between two attempts to compact parts


def benchmark(
    models: str | Variant | HookedModel | Sequence[str | Variant | HookedModel],
    methods: str | Variant | Sequence[str | Variant],
    data: str | ImageSet | Sequence[str | ImageSet] | Mapping[str, str | ImageSet],
    *,
    out: str | Path,
    images: int | None = None,
    seed: int = 0,
    image_list: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    target: TargetRule = "prediction",
    protocol: str | CurveProtocol = "rise",
    device: str = "cpu",
    batch_size: int = 64,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    compute: bool = True,
    progress: bool = True,
) -> BenchmarkResult:
    """Run models x methods x images, trial by trial, and save each when it is finished; the same call resumes the run.

    ```python
    result = cl.benchmark("demo", ["caap:cutoff=3", "rollout"], "demo:single", out="run", images=2)
    result.summary()
    ```

    Args:
        models: Names for `cl.load_model` with options as text ("vit_tiny_patch16_224:checkpoint=weights.safetensors"),
            or hooked models. "LABEL=..." sets the name in tables.
        methods: Names from `cl.methods()` with options as text ("E-CAAP=caap:attention=cached").
        data: What `cl.open_images` opens ("imagenet:PATH", "demo:single"), or an image set; several as a list, or as a
            dictionary by their names in tables ({"ImageNet": "imagenet:PATH"}).
        out: The run's folder. Finished trials in it are not computed again.
        images: Number of images of each data set, drawn with `seed`; all by default.
        seed: Seed of the draw.
        image_list: A file of image names instead of a draw; see `ImageSet.save_list`.
        metrics: "faithfulness" (insertion, deletion), "localisation" (AUPR, pointing game), or your own; options as
            text ("localisation:tolerance=15"). By default the first, and the second if all images have masks.
        target: Explain the model's "prediction", or the image's "label"; or a target whose classes may be these two
            words: `cl.contrast("prediction")`, `cl.contrast("label", "tiger cat")`, `cl.logit("prediction")`; or a
            direction, or a function of the logits. A class is explained by its own logit; if classes are texts (CLIP),
            by its contrast to the mean of all, unless `cl.logit` selects the logit.
        protocol: Protocol of the curves; see `cl.insertion_deletion`.
        device: Device of the models, such as "cuda".
        batch_size: Number of changed images that run at once for the curves.
        workers: Distribute the trials over this many processes of this machine, through Dask.
        scheduler: Distribute them over a running Dask cluster, such as "tcp://host:8786".
        retry_failed: Compute failed trials again.
        compute: With False, only read the trials that the folder contains: nothing runs and nothing is written, so
            another process may be using it.
        progress: Show a progress bar.

    Returns:
        The results, including those of earlier runs in the same folder.

    Raises:
        InputError: an argument is invalid, or another process uses the folder; raised before anything runs.
        OSError: results cannot be written; finished trials are kept.
        KeyboardInterrupt: after Ctrl-C, when the trials in progress are finished and saved.
    """
    given: dict[str, HookedModel] = {}
    specs = tuple(_model(model, given) for model in _several(models))
    labels = list(data) if isinstance(data, Mapping) else None
    given_sets = data.values() if isinstance(data, Mapping) else _several(data)
    sets = [open_images(one) if isinstance(one, str) else one for one in given_sets]
    chosen = [_choose(one, images, seed, image_list) for one in sets]
    method_variants = tuple(parse_variant(one) for one in _several(methods))
    for name, some in (("models", specs), ("methods", method_variants), ("data", sets)):
        if not some:
            raise InputError(f"{name} is empty: give one, or several in a list.")
    studies = tuple(
        Study(
            Data(one.source, tuple(sample.name for sample in one), one.chosen, label),
            specs,
            method_variants,
            default_metrics(one.has_masks) if metrics is None else tuple(metrics),
            target,
        )
        for one, label in zip(chosen, labels or [""] * len(chosen), strict=True)
    )
    plan = BenchmarkPlan(studies, curve_protocol(protocol))
    if not compute:
        return _read(plan, out, given, _by_source(chosen), progress)
    return run_plan(
        plan,
        out,
        device=device,
        batch_size=batch_size,
        workers=workers,
        scheduler=scheduler,
        retry_failed=retry_failed,
        progress=progress,
        models=given,
        images=_by_source(chosen),
    )


def run_plan(
    plan: BenchmarkPlan,
    out: str | Path,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    models: Mapping[str, HookedModel] | None = None,
    images: Mapping[str, ImageSet] | None = None,
    save_plan: bool = True,
) -> BenchmarkResult:
    """Compute the trials of a plan that a folder does not have yet; arguments are `benchmark`'s.

    `models` and `images` are those that are at hand already, by the text of their spec and by source. Without
    `save_plan` the folder's own plan stays as it is: a part of it is computed, or something beside it.
    """
    refuse_import("cl.benchmark")
    models, images = dict(models or {}), dict(images or {})
    check_running(batch_size, workers, scheduler, device, objects=bool(models))
    here = workers is None and scheduler is None
    check_rules((study.target for study in plan.studies), here)
    check_models((spec for study in plan.studies for spec in study.models), here=scheduler is None)
    check_metrics(text for study in plan.studies for text in study.metrics)
    for trial in plan.trials:
        check_variant(trial.method)
        if "given" in trial.model.options and trial.model.text not in models:
            raise InputError(
                f"The model {trial.model.name} came as an object, not by name; call cl.benchmark with it again."
            )
    images |= {
        study.data.source: open_images(study.data.source) for study in plan.studies if study.data.source not in images
    }
    unreadable = Unreadable()
    plan = identified(plan, models, images, progress, unreadable)
    run = RunFolder(out)
    finished = run.finished(retry_failed)
    waiting = [trial for trial in plan.trials if trial.key not in finished]
    forget_failures()
    check_ready(plan, waiting, run.folder, unreadable, Running(models, images, device, batch_size, here, progress))
    methods = {spec.name for study in plan.studies for spec in study.methods}
    metrics = {name for trial in plan.trials for name in trial.metric_names}
    with started(workers, scheduler, device, methods, metrics) as cluster, run.locked():
        done = run.clean()
        if save_plan:
            plan.save(run.plan_path)
        if retry_failed:
            done = done[done["error"].isna()]
        finished = set(done["key"])
        waiting = with_stored_maps((trial for trial in plan.trials if trial.key not in finished), done)
        with (
            _stop_on_interrupt() as stopped,
            tqdm(
                total=len(plan.trials),
                initial=len(plan.trials) - len(waiting),
                desc="benchmark",
                unit="trial",
                disable=not progress,
            ) as bar,
        ):
            rows: Iterable[Row]
            if cluster is None:
                rows = _local(waiting, models, images, device, batch_size, stopped)
            else:
                rows = cluster.rows(waiting, device, batch_size, stopped)
            for count, row in enumerate(rows, start=1):
                run.append([row])
                bar.update()
                if count % _COMPACT_AFTER == 0:
                    run.compact()
        run.compact()
    result = BenchmarkResult(plan, run.folder)
    if stopped():
        tqdm.write(f"Stopped. {result.progress} Run the same again to continue.", sys.stderr)
        raise KeyboardInterrupt
    return result


def _read(
    plan: BenchmarkPlan,
    out: str | Path,
    models: Mapping[str, HookedModel],
    images: Mapping[str, ImageSet],
    progress: bool,
) -> BenchmarkResult:
    """The results that a folder contains of a plan."""
    check_metrics(text for study in plan.studies for text in study.metrics)
    for method in {spec.text: spec for study in plan.studies for spec in study.methods}.values():
        check_variant(method)
    if not RunFolder(out).parts.is_dir():
        raise InputError(f"compute=False reads the folder of a run, but {out} is not one.")
    return BenchmarkResult(identified(plan, models, images, progress), RunFolder(out).folder)


def resume(out: str | Path, **options: Any) -> BenchmarkResult:
    """Continue the run in a folder; options are those of `run_plan`."""
    return run_plan(BenchmarkPlan.load(RunFolder(out).plan_path), out, **options)


def _local(
    trials: Sequence[Trial],
    models: Mapping[str, HookedModel],
    images: Mapping[str, ImageSet],
    device: str,
    batch_size: int,
    stopped: Callable[[], bool],
) -> Iterator[Row]:
    """Rows of trials, computed in this process, until the run is stopped; errors of a trial are recorded in its row."""
    for group in groups(trials):
        if stopped():
            return
        text, source = group[0].model.text, group[0].source
        yield from rows_of(
            group,
            partial(_found, text, models, images[source], device),
            batch_size,
            partial(_row, models=models, images=images[source], device=device, batch_size=batch_size),
            stopped,
        )


def _found(text: str, models: Mapping[str, HookedModel], images: ImageSet, device: str) -> tuple[HookedModel, ImageSet]:
    return models[text] if text in models else model_of(text, device), images


def _row(trial: Trial, models: Mapping[str, HookedModel], images: ImageSet, device: str, batch_size: int) -> Row:
    """A trial's row; a separate function, so that no variable holds the last model while the next one is loaded."""
    try:
        return compute(trial, *_found(trial.model.text, models, images, device), batch_size)
    except Exception as error:  # recorded: one bad trial must not end a run overnight
        return failure(trial, error)


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a request to stop, which the caller checks; the second one stops at once."""
    wish = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wish.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def first(signum: int, frame: Any) -> None:
        wish.set()
        signal.signal(signal.SIGINT, before)
        tqdm.write("Finishing the trials in progress; Ctrl-C again stops at once.", sys.stderr)

    signal.signal(signal.SIGINT, first)
    try:
        yield wish.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _several(value: Any) -> list[Any]:
    single = isinstance(value, (str, Variant, HookedModel, ImageSet))
    return [value] if single else list(value)


def _model(model: str | Variant | HookedModel, given: dict[str, HookedModel]) -> Variant:
    if not isinstance(model, HookedModel):
        return parse_variant(model)
    spec = Variant(model.model_name, {"given": model_digest(model)}, model.model_name)
    given[spec.text] = model
    return spec


def _by_source(sets: Sequence[ImageSet]) -> dict[str, ImageSet]:
    by_source: dict[str, ImageSet] = {}
    for one in sets:
        if by_source.setdefault(one.source, one) is not one:
            raise InputError(f"{one.source} is given twice; give it once, with all images.")
    return by_source


def _choose(images: ImageSet, count: int | None, seed: int, image_list: str | Path | None) -> ImageSet:
    if image_list is not None:
        if count is not None:
            raise InputError("Give images=... or image_list=..., not both.")
        return images.only(read_list(image_list))
    return images if count is None else images.sample(count, seed)
