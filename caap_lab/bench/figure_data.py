"""What figures are drawn from: a profile's models and images, and the folder where results are kept."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import attribute
from caap_lab.bench.benchmark import run_plan
from caap_lab.bench.identity import spec_digest, weights_digest
from caap_lab.bench.plan import BenchmarkPlan, Identity, Study, merged
from caap_lab.bench.profiles import paper_name
from caap_lab.bench.published import METRICS
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.target_rule import rule_in_key, target_by_rule
from caap_lab.bench.trial import model_of
from caap_lab.data.image_set import ImageSet
from caap_lab.data.open import open_images
from caap_lab.digests.hashing import hex_digest
from caap_lab.errors import InputError
from caap_lab.files import atomic_path
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Logit
from caap_lab.models.vit import HookedViT
from caap_lab.variant import Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class FigureResult:
    """A figure, and the numbers in it."""

    figure: "Figure"
    data: pd.DataFrame


@dataclass(frozen=True)
class FigureData:
    """A profile, and where its results are."""

    plan: BenchmarkPlan
    """The profile's, with the studies of all its tables."""
    folder: Path
    """Results of earlier runs; what is there is not computed again."""
    running: dict[str, Any]
    """Options of `run_plan`: device, batch_size, workers, scheduler, progress."""
    sweep_images: int | None = None
    """Images of each study that sweeps use, the first ones; all by default."""
    _computed: set[int] = field(default_factory=set, init=False, repr=False)
    """Tables whose trials are computed."""
    _identities: dict[int, Identity] = field(default_factory=dict, init=False, repr=False)
    """What the names of a table's studies stood for when its trials were computed."""
    _opened: dict[str, ImageSet] = field(default_factory=dict, init=False, repr=False)
    """Data sets, by source."""

    def study(self, table: int) -> Study:
        """The first study of a table.

        Raises:
            InputError: the profile was made without that table.
        """
        return self._studies(table)[0]

    def _studies(self, table: int) -> tuple[Study, ...]:
        studies = tuple(study for study in self.plan.studies if study.table == table)
        if not studies:
            raise InputError(f"This figure needs table {table}'s models and images; leave --tables out, or name it.")
        return studies

    def images(self, study: Study) -> ImageSet:
        """The images of a study."""
        source = study.data.source
        if source not in self._opened:
            self._opened[source] = open_images(source)
        return self._opened[source].only(study.data.names)

    def model(self, variant: Variant) -> HookedModel:
        """A model, loaded."""
        return model_of(variant.text, self.running.get("device", "cpu"))

    # --- results of benchmarks ---

    @property
    def run_folder(self) -> Path:
        """Trials of benchmarks and sweeps."""
        return self.folder / "cells"

    def compute(self, tables: Iterable[int]) -> None:
        """Compute the missing trials of some tables, in one run."""
        missing = [table for table in dict.fromkeys(tables) if table not in self._computed]
        if missing:
            done = run_plan(self._plan(missing), self.run_folder, **self.running)
            self._identities.update(dict.fromkeys(missing, done.plan.identity))
            self._computed.update(missing)

    def result(self, tables: Sequence[int]) -> BenchmarkResult:
        """Results of some tables; missing trials are computed first."""
        self.compute(tables)
        known = [self._identities[table] for table in dict.fromkeys(tables)]
        return BenchmarkResult(replace(self._plan(tables), identity=merged(known)), self.run_folder)

    def _plan(self, tables: Iterable[int]) -> BenchmarkPlan:
        return replace(self.plan, studies=tuple(study for table in tables for study in self._studies(table)))

    # --- results beside them ---

    def map(
        self, study: Study, model: Variant, method: Variant, image: str, target: int | None = None
    ) -> AttributionMap:
        """A map of a study's image, kept in the folder.

        Args:
            study: The study.
            model: One of its models.
            method: One of its methods.
            image: Name of one of its images.
            target: Class index; by default the class that the study explains.
        """
        images = self.images(study)
        content = {
            "model": model.text,
            "method": method.text,
            "source": study.data.source,
            "image": image,
            "target": rule_in_key(study.target, by_contrast=False) if target is None else str(target),
            "identity": [weights_digest(model), spec_digest(method), images.digest_of(image)],
        }
        path = self.folder / "maps" / f"{_key(content)}.safetensors"
        if path.exists():
            return AttributionMap.load(path)
        hooked = self.model(model)
        sample = images.named(image)
        explained: Any = target
        if target is None:
            explained = target_by_rule(study.target, hooked, hooked.preprocess(sample.image), sample, images)
        elif isinstance(study.target, Logit):
            explained = Logit(target)
        m = attribute(hooked, sample.image, method.name, explained, progress=False, **method.options)
        assert isinstance(m, AttributionMap)
        m.save(path)
        return m

    def frame(self, content: dict[str, Any], compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table of numbers, kept in the folder.

        Args:
            content: Everything that decides the numbers, as JSON.
            compute: Computes them, if the folder does not have them.
        """
        path = self.folder / "frames" / f"{_key(content)}.parquet"
        if not path.exists():
            with atomic_path(path) as part:
                compute().to_parquet(part)
        return pd.read_parquet(path)

    def sweep(self, sweep: Callable[..., Any], tables: Sequence[int], **settings: Any) -> pd.DataFrame:
        """Means and standard errors of the paper's metrics in a sweep of CAAP, one row per model, setting and metric.

        Args:
            sweep: `cl.sweep_blanks` or another sweep.
            tables: Their models and first images are used; all models must be Vision Transformers.
            **settings: What the sweep goes over, such as `blanks=...`.

        Returns:
            Columns model, n_layers, the sweep's axes (such as blank), metric, n (images), mean, se.
        """
        frames = []
        axes: tuple[str, ...] = ()
        for table in tables:
            study = self.study(table)
            for variant in study.models:
                model = self.model(variant)
                assert isinstance(model, HookedViT)
                result = sweep(
                    model,
                    self.images(study)[: self.sweep_images],
                    None if study.target == "prediction" else study.target,
                    metrics=study.metrics,
                    # One folder for all would be read in full by each sweep.
                    out=self.run_folder
                    / "sweeps"
                    / _file_name(f"table_{table:02d}_{paper_name(table, variant.label)}"),
                    progress=self.running.get("progress", True),
                    **settings,
                )
                frames.append(result.summary().assign(model=variant.label, n_layers=model.n_layers))
                axes = result.axes
        frame = pd.concat(frames, ignore_index=True)
        columns = ["model", "n_layers", *axes, "metric", "n", "mean", "se"]
        return frame.loc[frame["metric"].isin(METRICS.values()), columns].reset_index(drop=True)


def metric_panels(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of `FigureData.sweep` in the paper's order of metrics, with its name and unit in the column panel."""
    parts = [frame[frame["metric"] == column].assign(panel=f"{name} (%)") for name, column in METRICS.items()]
    return pd.concat(parts, ignore_index=True)


def map_scores(rows: Sequence[Sequence[AttributionMap]]) -> pd.DataFrame:
    """Scores of the maps in some rows, one line per patch: model, method, target, row, column, score."""
    lines = [
        {
            "model": m.model_name,
            "method": m.method,
            "target": m.target_name,
            "row": row,
            "column": column,
            "score": float(score),
        }
        for m in chain.from_iterable(rows)
        for (row, column), score in np.ndenumerate(m.scores.numpy())
    ]
    return pd.DataFrame(lines)


def _key(content: dict[str, Any]) -> str:
    return hex_digest(json.dumps(content, sort_keys=True), size=12)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text)
