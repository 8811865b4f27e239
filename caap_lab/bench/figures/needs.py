"""What a figure reads from the paper's tables, as declared by its script, and the plan with exactly these parts."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from caap_lab.bench.paper.profiles import demo_plan, left_out, paper_plan, stand_in
from caap_lab.bench.paper.published import names
from caap_lab.bench.paper.settings import PaperSettings
from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.bench.run_folder import RunFolder
from caap_lab.errors import InputError

if TYPE_CHECKING:
    from caap_lab.bench.figures.data import FigureData
    from caap_lab.variant import Variant


@dataclass(frozen=True)
class Need:
    """What a figure reads from one of the paper's tables."""

    table: int
    what: Literal["trials", "maps", "sweep", "attention"]
    """The table's benchmark trials; maps of single images; a sweep of CAAP, whatever the table's methods; or attention,
    which has no method."""
    models: tuple[str, ...] = ()
    """The paper's names of some models of the table, or the first model if none of them exists; all by default."""
    n_models: int | None = None
    """Number of these models, from the first; all by default."""
    images: int | None = None
    """Number of the table's methods, from the first; all by default."""
    caap_alone: bool = False
    """Maps of CAAP, whatever the table's methods."""
    target: str = ""
    """Default target of maps if the user does not choose one, "label" or "prediction"; by default that of the table."""
    explained: str = ""
    """The target in words, for a figure that chooses its own classes."""
    axis: str = ""
    """Axis of a sweep, such as "blank"."""
    values: tuple[str, ...] = ()
    """Values of the sweep; if there are none, all that the model has: one cutoff per number of blocks, including 0."""
    kept: "Callable[[FigureData, Variant], dict[str, Any]] | None" = None
    """Key under which `FigureData.frame` stores a model's numbers; if they exist, the model is not tried."""

    @property
    def takes_caap_alone(self) -> bool:
        """True if the table's methods do not matter."""
        return self.caap_alone or self.what == "sweep"

    def chosen(self, models: Sequence[str]) -> list[str]:
        """The table's models that it needs, by their names in either profile."""
        wanted = {*self.models, *map(stand_in, self.models)}
        fits = [name for name in models if name in wanted] if self.models else list(models)
        return (fits or list(models[:1]))[: self.n_models]


def sweep_needs(tables: Iterable[int], axis: str, values: tuple[str, ...] = ()) -> tuple[Need, ...]:
    """Sweeps of CAAP on some tables' models and images."""
    return tuple(Need(table, "sweep", axis=axis, values=values) for table in tables)


def trial_needs(tables: Iterable[int]) -> tuple[Need, ...]:
    """All trials of some tables."""
    return tuple(Need(table, "trials") for table in tables)


def narrowed(plan: BenchmarkPlan, needs: Sequence[Need]) -> BenchmarkPlan:
    """A plan with the tables and models that figures need."""
    studies = []
    for study in plan.studies:
        labels = [model.label for model in study.models]
        used = {label for need in needs if need.table == study.table for label in need.chosen(labels)}
        if used:
            studies.append(replace(study, models=tuple(model for model in study.models if model.label in used)))
    return replace(plan, studies=tuple(studies))


def settings_for(settings: PaperSettings, needs: Sequence[Need]) -> PaperSettings:
    """Settings of the paper profile with the tables that figures need.

    If all are needed, the choice stays open: tables without data are then omitted.
    """
    tables = [table for table in settings.wanted if table in {need.table for need in needs}]
    return settings if tables == settings.wanted else replace(settings, tables=tuple(tables))


def paper_figure_plan(settings: PaperSettings, needs: Sequence[Need]) -> BenchmarkPlan:
    """The paper profile's plan for some figures, which needs no data set, model or head that they do not use.

    Args:
        settings: Settings of the profile. If it chooses tables, figures are drawn only from these.
        needs: What the figures read.

    Raises:
        InputError: a data set, a head or a classifier is missing.
    """
    asked = settings_for(settings, needs)
    used, known = set(), set()
    for table in asked.wanted:
        for dataset in names(table, "dataset"):
            there = asked.model_names(table, dataset)
            known |= set(there)
            used |= {name for need in needs if need.table == table for name in need.chosen(there)}
    plan = paper_plan(replace(asked, without=(*asked.without, *sorted(known - used))))
    own = left_out(replace(asked, without=(*asked.without, *sorted(known - used))))
    kept = tuple(note for note in plan.notes if note not in own)
    return narrowed(replace(plan, notes=(*kept, *left_out(asked))), needs)


def run_in(folder: Path) -> BenchmarkPlan | None:
    """The plan of the run in a folder, if there is one.

    Raises:
        InputError: the plan cannot be read.
    """
    path = RunFolder(folder).plan_path
    return BenchmarkPlan.load(path) if path.exists() else None


def completed_demo(plan: BenchmarkPlan, needs: Sequence[Need] | None) -> BenchmarkPlan:
    """The demo profile's plan of a run, completed by missing tables that figures need, with as many images."""
    there = {study.table for study in plan.studies}
    missing = [] if needs is None else sorted({need.table for need in needs} - there)
    if not missing:
        return plan
    more = demo_plan(len(plan.studies[0].data.names), missing)
    return replace(plan, studies=(*plan.studies, *more.studies))


def check_tables(needs: Mapping[str, Sequence[Need] | None], tables: Collection[int], way_out: str) -> None:
    """Raise InputError for figures that read none of the given tables.

    Args:
        needs: What the figures read, by name.
        tables: The tables of the run.
        way_out: A sentence that explains what to do.

    Raises:
        InputError: the message names all of them.
    """
    reads = {name: sorted({need.table for need in some}) for name, some in needs.items() if some}
    lacking = [f"{name} reads {table_words(own)}" for name, own in reads.items() if not set(own) & set(tables)]
    if lacking:
        there = table_words(sorted(tables))
        raise InputError(f"{'; '.join(lacking)}, which the run does not have (it has {there}). {way_out}")


def table_words(tables: Sequence[int]) -> str:
    """Tables by number: "tables 1, 4"."""
    return f"table{'s' * (len(tables) != 1)} {', '.join(map(str, tables)) or 'none'}"
