"""What figures are drawn from: a profile's models and images, and the folder where results are kept."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.registry import attribute
from caap_lab.bench.benchmark import run_plan
from caap_lab.bench.identity import spec_digest, weights_digest
from caap_lab.bench.pairing import label_of
from caap_lab.bench.plan import BenchmarkPlan, Identity, Study, merged
from caap_lab.bench.result import BenchmarkResult
from caap_lab.bench.trial import model_of
from caap_lab.data.image_set import ImageSet
from caap_lab.data.open import open_images
from caap_lab.errors import InputError
from caap_lab.files import atomic_path
from caap_lab.models.base import HookedModel
from caap_lab.variant import Variant

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class World:
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
    """Tables whose trials are there."""
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
        found = tuple(study for study in self.plan.studies if study.table == table)
        if not found:
            raise InputError(f"This figure needs table {table}'s models and images; leave --tables out, or name it.")
        return found

    def compute(self, tables: Iterable[int]) -> None:
        """Compute the trials of some tables that are missing, in one run."""
        missing = [table for table in dict.fromkeys(tables) if table not in self._computed]
        if missing:
            done = run_plan(self._plan(missing), self.run_folder, **self.running)
            self._identities.update(dict.fromkeys(missing, done.plan.identity))
            self._computed.update(missing)

    def result(self, tables: Sequence[int]) -> BenchmarkResult:
        """Results of some tables; trials that are missing are computed first."""
        self.compute(tables)
        known = [self._identities[table] for table in dict.fromkeys(tables)]
        return BenchmarkResult(replace(self._plan(tables), identity=merged(known)), self.run_folder)

    def _plan(self, tables: Iterable[int]) -> BenchmarkPlan:
        return replace(self.plan, studies=tuple(study for table in tables for study in self._studies(table)))

    @property
    def run_folder(self) -> Path:
        """Trials of benchmarks and sweeps."""
        return self.folder / "cells"

    def images(self, study: Study) -> ImageSet:
        """The images of a study."""
        source = study.data.source
        if source not in self._opened:
            self._opened[source] = open_images(source)
        return self._opened[source].only(study.data.names)

    def map(
        self, study: Study, model: Variant, method: Variant, image: str, target: int | None = None
    ) -> AttributionMap:
        """A map of a study's image, kept in the folder: for the target, else for the class that the study explains."""
        told: dict[str, Any] = {"model": model.text, "method": method.text, "source": study.data.source, "image": image}
        told["target"] = study.target if target is None else str(target)
        images = self.images(study)
        told["identity"] = [weights_digest(model), spec_digest(method), images.digest_of(image)]
        path = self.folder / "maps" / f"{_digest(told)}.safetensors"
        if path.exists():
            return AttributionMap.load(path)
        hooked = self.model(model)
        sample = images.named(image)
        if target is None and study.target == "label":
            target = label_of(sample, images, hooked)
        m = attribute(hooked, sample.image, method.name, target, progress=False, **method.options)
        assert isinstance(m, AttributionMap)
        m.save(path)
        return m

    def frame(self, told: dict[str, Any], compute: "Callable[[], pd.DataFrame]") -> "pd.DataFrame":
        """Numbers that are kept in the folder under what they are about; computed the first time."""
        import pandas as pd

        path = self.folder / "frames" / f"{_digest(told)}.parquet"
        if not path.exists():
            with atomic_path(path) as part:
                compute().to_parquet(part)
        return pd.read_parquet(path)

    def model(self, spec: Variant) -> HookedModel:
        """A model, loaded."""
        return model_of(spec.text, self.running.get("device", "cpu"))


def _digest(told: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure, and the numbers in it."""

    figure: "Figure"
    data: "pd.DataFrame"


Draw = Callable[[World], Drawn]
