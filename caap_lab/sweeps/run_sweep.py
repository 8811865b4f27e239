"""The run of a sweep: one image after another, with as few passes per image as possible; rows are saved at once."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm.auto import tqdm

from caap_lab.attribution.caap_maps import caap_maps
from caap_lab.bench.cells import Cell, rows_of_maps
from caap_lab.bench.check import check_metrics
from caap_lab.bench.identity import model_digest, own_metrics, spec_digest
from caap_lab.bench.plan import Trial
from caap_lab.bench.run_folder import Row, RunFolder
from caap_lab.bench.stored_maps import stored_map, with_stored_maps
from caap_lab.bench.target_rule import TargetRule, target_by_rule
from caap_lab.bench.trial import failure
from caap_lab.checks import check_count
from caap_lab.data.image_set import ImageSet
from caap_lab.engine.settings import CaapOptions
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import default_metrics, parse_metric
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from caap_lab.models.base import Images, check_kind
from caap_lab.models.targets import TargetLike
from caap_lab.models.vit import HookedViT
from caap_lab.sweeps.dataset import rows_to_dataset
from caap_lab.sweeps.images import Masks, SweepImage, sweep_images
from caap_lab.sweeps.result import CaapSweep
from caap_lab.sweeps.sweep_cost import sweep_passes
from caap_lab.sweeps.sweep_settings import Label, Setting, settings_of
from caap_lab.sweeps.sweep_target import SweepTarget
from caap_lab.variant import Variant


class Options(CaapOptions, total=False):
    """Arguments of all sweeps in addition to `caap`'s own options; `sweep_cutoffs` explains them."""

    metrics: Sequence[str] | None
    protocol: str | CurveProtocol
    masks: Masks | None
    out: str | Path | None
    batch_size: int
    progress: bool


def run_sweep(
    model: HookedViT,
    images: ImageSet | Images,
    target: TargetLike | None,
    axes: tuple[str, ...],
    changes: Mapping[Label, dict[str, Any]],
    *,
    metrics: Sequence[str] | None = None,
    protocol: str | CurveProtocol = "rise-28",
    masks: Masks | None = None,
    out: str | Path | None = None,
    batch_size: int = 64,
    progress: bool = True,
    **fixed: Any,
) -> CaapSweep:
    """Maps and metrics of every image and setting that `out` does not contain yet.

    Args:
        model: The model.
        images: As in `sweep_cutoffs`, like all arguments that are not explained here.
        target: See there.
        axes: Names of a setting's label: one name, or two for labels that are pairs.
        changes: Label to the options of the setting.
        metrics: See there.
        protocol: See there.
        masks: See there.
        out: See there.
        batch_size: See there.
        progress: See there.
        **fixed: `caap`'s options that are the same for all settings.
    """
    check_kind(model, "A sweep of CAAP")
    check_count("batch_size", batch_size)
    settings = settings_of(model, changes, fixed)
    wanted = SweepTarget.of(model, target)
    pictures = sweep_images(model, images, wanted.rule, masks)
    has_masks = images.has_masks if isinstance(images, ImageSet) else masks is not None
    chosen_metrics = default_metrics(has_masks) if metrics is None else tuple(metrics)
    check_metrics(chosen_metrics)
    for metric in chosen_metrics:
        if parse_metric(metric)[0].needs_masks and not has_masks:
            raise InputError(f"metrics={metric!r} needs a mask of every image: masks=..., or a data set with masks.")

    digest = model_digest(model)
    spec = Variant(model.model_name, {"given": digest}, model.model_name)  # as in cl.benchmark
    chosen = curve_protocol(protocol)
    own = own_metrics(chosen_metrics)
    method_digests = [spec_digest(setting.variant) for setting in settings]
    trials = [
        [
            Trial(
                spec,
                setting.variant,
                picture.source,
                picture.sample.name,
                chosen_metrics,
                wanted.written,
                chosen,
                digest,
                method_digest,
                picture.digest,
                own,
                wanted.by_contrast,
            )
            for setting, method_digest in zip(settings, method_digests, strict=True)
        ]
        for picture in pictures
    ]
    with TemporaryDirectory() if out is None else nullcontext(out) as folder:
        run = RunFolder(folder)
        with run.locked():
            done = run.clean()
            finished = set(done["key"][done["error"].isna()])
            missing = (trial for row in trials for trial in row if trial.key not in finished)
            to_compute = {trial.key: trial for trial in with_stored_maps(missing, done)}
            complete = not to_compute
            with tqdm(total=len(pictures) * len(settings), desc="sweep", unit="map", disable=not progress) as bar:
                for picture, row in zip(pictures, trials, strict=True):
                    pairs = zip(row, settings, strict=True)
                    waiting = [(to_compute.pop(c.key), setting) for c, setting in pairs if c.key in to_compute]
                    if waiting:
                        run.append(_image_rows(model, picture, wanted.rule, waiting, batch_size))
                    bar.update(len(row))
        kept = done if complete else run.rows()
    frame = kept.set_index("key").loc[[trial.key for row in trials for trial in row]].reset_index(drop=True)
    if frame["error"].notna().all():
        raise InputError(f"No map could be computed: {frame['error'].iloc[0]}")
    names = [picture.sample.name for picture in pictures]
    return CaapSweep(
        data=rows_to_dataset(frame, axes, [setting.label for setting in settings], names, model.grid),
        default=next((s.label for s in settings if not set(changes[s.label]) & set(s.variant.options)), None),
        metrics=chosen_metrics,
        passes=sweep_passes(model, settings, wanted.rule),
        model=model,
        readers=tuple(picture.read for picture in pictures),
    )


def _image_rows(
    model: HookedViT,
    picture: SweepImage,
    rule: TargetRule | int,
    waiting: Sequence[tuple[Trial, Setting]],
    batch_size: int,
) -> list[Row]:
    """Rows of an image's trials; errors are recorded in them, so that one bad image does not end a long sweep."""
    rows: list[Row] = []
    for _, same in groupby(sorted(waiting, key=lambda w: str(w[1].shared)), key=lambda w: w[1].shared):
        group = list(same)
        try:
            x = picture.read()
            target = target_by_rule(rule, model, x, picture.sample, picture.images)
            missing = [setting.caap for trial, setting in group if trial.stored_map is None]
            new = iter(caap_maps(model, x, target, missing)[0] if missing else ())
            maps = [stored_map(trial, model, x) or next(new) for trial, _ in group]
            cells = [Cell(trial, picture.sample, x, m, picture.mask) for (trial, _), m in zip(group, maps, strict=True)]
            rows += rows_of_maps(cells, model, batch_size)
        except Exception as error:
            rows += [failure(trial, error) for trial, _ in group]
    return rows
