"""The data of figures: a profile's models and images, and the folder in which results are stored."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import attribute
from caap_lab.bench.benchmark import run_plan
from caap_lab.bench.figures.needs import table_words
from caap_lab.bench.figures.options import FigureOptions, photo_names
from caap_lab.bench.identity import spec_digest, weights_digest
from caap_lab.bench.paper.profiles import paper_name
from caap_lab.bench.paper.published import METRICS
from caap_lab.bench.plan import BenchmarkPlan, Identity, Study, merged
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.run_folder import RunFolder
from caap_lab.bench.target_rule import WORDS, TargetRule, rule_in_key, target_by_rule
from caap_lab.bench.trial import model_of
from caap_lab.data.image_set import ImageSet
from caap_lab.data.open import open_images
from caap_lab.digests.hashing import hex_digest
from caap_lab.errors import InputError
from caap_lab.files import atomic_path
from caap_lab.metrics.catalogue import parse_metric
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Logit
from caap_lab.models.vit import HookedViT
from caap_lab.variant import Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from caap_lab.sweeps.result import CaapSweep

CAAP = Variant("caap", {}, "CAAP")
"""CAAP at its defaults, which figures show whatever methods their tables have."""


@dataclass(frozen=True, eq=False)
class FigureResult:
    """A figure, and the numbers in it."""

    figure: "Figure"
    data: pd.DataFrame
    name: str = ""
    """Name of its files, if a script draws several figures; by default the name of the script."""


@dataclass(frozen=True)
class FigureData:
    """A profile, and the place of its results."""

    plan: BenchmarkPlan
    """The profile's plan, with the studies of all its tables."""
    folder: Path
    """Folder with results of earlier runs, which are not computed again."""
    running: dict[str, Any]
    """Options of `run_plan`: device, batch_size, workers, scheduler, progress."""
    sweep_images: int | None = None
    """Number of images of each study that sweeps use, from the first; all by default."""
    options: FigureOptions = field(default_factory=FigureOptions)
    """Photos and target of the figures that show single images."""
    computed: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    """How many results were not in the folder, by "trial", "map", "sweep map" and "table" (numbers, see `frame`)."""
    _identities: dict[int, Identity] = field(default_factory=dict, init=False, repr=False)
    """The identities of the names in a table's studies when its trials were computed."""
    _opened: dict[str, ImageSet] = field(default_factory=dict, init=False, repr=False)
    """Data sets, by source."""

    def study(self, table: int) -> Study:
        """The first study of a table.

        Raises:
            InputError: the profile does not contain that table.
        """
        return self._studies(table)[0]

    def _studies(self, table: int) -> tuple[Study, ...]:
        studies = tuple(study for study in self.plan.studies if study.table == table)
        if not studies:
            raise InputError(f"This figure needs table {table}'s models and images; omit --tables, or include it.")
        return studies

    def images(self, study: Study) -> ImageSet:
        """The images of a study."""
        return self.all_images(study).only(study.data.names)

    def all_images(self, study: Study) -> ImageSet:
        """All images of a study's data set, of which the study may use only some."""
        source = study.data.source
        if source not in self._opened:
            self._opened[source] = open_images(source)
        return self._opened[source]

    def photos(self, study: Study, count: int | None = None) -> list[str]:
        """Names of the images that a figure shows: those that the user chose from the data set, else the study's first.

        Args:
            study: The study.
            count: Maximum number; all by default.
        """
        chosen = photo_names(self.all_images(study), self.options.photos)
        return list(dict.fromkeys(chosen.values()) if chosen else study.data.names)[:count]

    def target(self, default: str | None = None) -> int | str | None:
        """The target of maps of single images, for `map`: the user's choice, otherwise the default of the figure."""
        target = self.options.target if self.options.target is not None else default
        return int(target) if target is not None and target.isdecimal() else target

    @property
    def tables(self) -> set[int]:
        """Numbers of the tables in the profile."""
        return {study.table for study in self.plan.studies}

    @property
    def progress(self) -> str:
        """How much was computed, as a sentence."""
        done = [f"{number:,} {what}{'s' * (number != 1)}" for what, number in self.computed.items() if number]
        return f"Computed {', '.join(done)}; all else was in {self.folder}." if done else f"All was in {self.folder}."

    def present(self, tables: Iterable[int]) -> list[int]:
        """The given tables that are in the profile.

        Raises:
            InputError: none of them is.
        """
        wanted = list(dict.fromkeys(tables))
        there = [table for table in wanted if table in self.tables]
        if not there:
            raise InputError(
                f"This figure needs {table_words(wanted)}: models and images; omit --tables, or include it."
            )
        return there

    def model(self, variant: Variant) -> HookedModel:
        """A model, loaded."""
        return model_of(variant.text, self.running.get("device", "cpu"))

    # --- results of benchmarks ---

    @property
    def run_folder(self) -> Path:
        """Folder of benchmark trials: the folder itself, in the format of `caap-lab bench`, which can continue it."""
        return self.folder

    @property
    def _older(self) -> RunFolder:
        """Folder in which earlier versions stored benchmark trials."""
        return RunFolder(self.folder / "cells")

    def finished(self) -> set[str]:
        """Keys of the trials in the folder, without failed ones that are to be computed again."""
        retry_failed = bool(self.running.get("retry_failed"))
        return RunFolder(self.run_folder).finished(retry_failed) | self._older.finished(retry_failed)

    def compute(self, tables: Iterable[int]) -> None:
        """Compute the missing trials of some tables, in one run."""
        missing = [table for table in dict.fromkeys(tables) if table in self.tables and table not in self._identities]
        if missing:
            run = RunFolder(self.run_folder)
            run.take_over(self._older)
            before = len(run.finished())
            done = run_plan(self._plan(missing), run.folder, save_plan=False, **self.running)
            self._count("trial", len(run.finished()) - before)
            self._identities.update(dict.fromkeys(missing, done.plan.identity))

    def result(self, tables: Sequence[int]) -> BenchmarkResult:
        """Results of the given tables that are in the profile; missing trials are computed first."""
        there = self.present(tables)
        self.compute(there)
        known = [self._identities[table] for table in there]
        return BenchmarkResult(replace(self._plan(there), identity=merged(known)), self.run_folder)

    def _count(self, what: str, number: int) -> None:
        self.computed[what] = self.computed.get(what, 0) + max(number, 0)

    def _plan(self, tables: Iterable[int]) -> BenchmarkPlan:
        return replace(self.plan, studies=tuple(study for table in tables for study in self._studies(table)))

    # --- results beside them ---

    def map(
        self, study: Study, model: Variant, method: Variant, image: str, target: int | str | None = None
    ) -> AttributionMap:
        """A map of an image, stored in the folder.

        Args:
            study: The study.
            model: One of its models.
            method: A method.
            image: Name of an image of its data set.
            target: Class by index, WordNet id or name, "label" or "prediction"; by default the target of the study.
        """
        images, rule = self.all_images(study), _rule(study, target)
        digests = [weights_digest(model), spec_digest(method), images.digest_of(image)]
        path = self.map_path(study, model, method, image, target, digests)
        if path.exists():
            return AttributionMap.load(path)
        hooked = self.model(model)
        sample = images.named(image)
        explained: Any
        if rule is not None:
            explained = target_by_rule(rule, hooked, hooked.preprocess(sample.image), sample, images)
        else:
            assert target is not None
            index = hooked.target(target)
            explained = Logit(index) if isinstance(study.target, Logit) else index
        m = attribute(hooked, sample.image, method.name, explained, progress=False, **method.options)
        assert isinstance(m, AttributionMap)
        m.save(path)
        self._count("map", 1)
        return m

    def map_path(
        self,
        study: Study,
        model: Variant,
        method: Variant,
        image: str,
        target: int | str | None,
        digests: Sequence[str],
    ) -> Path:
        """Path at which `map` stores a map: its arguments, and hashes of the model, the method and the image."""
        rule = _rule(study, target)
        content = {
            "model": model.text,
            "method": method.text,
            "source": study.data.source,
            "image": image,
            "target": str(target) if rule is None else rule_in_key(rule, by_contrast=False),
            "identity": list(digests),
        }
        return self.folder / "maps" / f"{_key(content)}.safetensors"

    def frame(self, content: dict[str, Any], compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table of numbers, stored in the folder.

        Args:
            content: Everything that determines the numbers, as JSON.
            compute: Function that computes them if the folder does not contain them.
        """
        path = self.frame_path(content)
        if not path.exists():
            with atomic_path(path) as part:
                compute().to_parquet(part)
            self._count("table", 1)
        return pd.read_parquet(path)

    def frame_path(self, content: dict[str, Any]) -> Path:
        """Path at which `frame` stores a table of numbers."""
        return self.folder / "frames" / f"{_key(content)}.parquet"

    def sweep(self, sweep: Callable[..., Any], tables: Sequence[int], **settings: Any) -> pd.DataFrame:
        """Means and standard errors of the paper's metrics in a sweep of CAAP, one row per model, setting and metric.

        Args:
            sweep: `cl.sweep_blanks` or another sweep.
            tables: Their models and first images are used, if the profile contains them; all models must be Vision
                Transformers.
            **settings: Values of the sweep, such as `blanks=...`.

        Returns:
            Columns model, n_layers, the sweep's axes (such as blank), metric, n (images), mean, se, and for metrics of
            curves their protocol and its steps.
        """
        frames = []
        axes: tuple[str, ...] = ()
        for table in self.present(tables):
            study = self.study(table)
            for variant in study.models:
                result = self._sweep(sweep, study, variant, settings)
                frames.append(self._with_protocol(result, study).assign(model=variant.label))
                axes = result.axes
        frame = pd.concat(frames, ignore_index=True)
        columns = ["model", "n_layers", *axes, "metric", "n", "mean", "se", "protocol", "steps"]
        return frame.loc[frame["metric"].isin(METRICS.values()), columns].reset_index(drop=True)

    def _with_protocol(self, result: "CaapSweep", study: Study) -> pd.DataFrame:
        """The summary of a sweep, with the protocol of its curves."""
        model = result.model
        metrics = [parse_metric(text)[0] for text in study.metrics]
        curves = [column.name for metric in metrics if metric.reads_protocol for column in metric.columns]
        frame = result.summary().assign(n_layers=model.n_layers)
        read = frame["metric"].isin(curves)
        steps = len(self.plan.protocol.counts(model.image_size, model.grid)) - 1
        return frame.assign(protocol=read.map({True: self.plan.protocol.name}), steps=read.map({True: float(steps)}))

    def _sweep(self, sweep: Callable[..., Any], study: Study, variant: Variant, settings: dict[str, Any]) -> Any:
        """A sweep of one model, in a separate folder: a common one would be read completely by each sweep."""
        model = self.model(variant)
        assert isinstance(model, HookedViT)
        name = f"table_{study.table:02d}_{paper_name(study.table, variant.label)}"
        run = RunFolder(self.folder / "sweeps" / _file_name(name))
        run.take_over(RunFolder(self._older.folder / "sweeps" / run.folder.name))
        before = len(run.finished())
        result = sweep(
            model,
            self.images(study)[: self.sweep_images],
            None if study.target == "prediction" else study.target,
            metrics=study.metrics,
            protocol=self.plan.protocol,
            out=run.folder,
            batch_size=self.running.get("batch_size", 64),
            progress=self.running.get("progress", True),
            **settings,
        )
        self._count("sweep map", len(run.finished()) - before)
        return result


def map_scores(maps: Iterable[tuple[Variant, Variant, AttributionMap]]) -> pd.DataFrame:
    """Scores of maps, one row per patch: model, method, target, row, column, score.

    Args:
        maps: Each with its model and its method, which have the names of the figure: folders of several models may have
            the same name.
    """
    lines = [
        {
            "model": model.label,
            "method": method.label,
            "target": m.target_name,
            "row": row,
            "column": column,
            "score": float(score),
        }
        for model, method, m in maps
        for (row, column), score in np.ndenumerate(m.scores.numpy())
    ]
    return pd.DataFrame(lines)


def _rule(study: Study, target: int | str | None) -> TargetRule | None:
    """The target of a study, or one that replaces it, by the class's own logit if the study uses that.

    None for a class.
    """
    if target is None:
        return study.target
    if target not in WORDS:
        return None
    return Logit(target) if isinstance(study.target, Logit) else str(target)


def _key(content: dict[str, Any]) -> str:
    return hex_digest(json.dumps(content, sort_keys=True), size=12)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text)
