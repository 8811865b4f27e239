"""What a figure reads of the paper's tables, as its script declares it, and the plan that has this and no more."""

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
    """What a figure reads of one of the paper's tables."""

    table: int
    what: Literal["trials", "maps", "sweep", "attention"]
    """The table's benchmark trials; maps of single images; a sweep of CAAP, whatever the table's methods; or attention,
    which takes no method."""
    models: tuple[str, ...] = ()
    """The paper's names for some of the table's models, the first model where none of them is there; all by default."""
    n_models: int | None = None
    """The first ones of these; all by default."""
    images: int | None = None
    """The first ones of the table's; all by default."""
    caap_alone: bool = False
    """Maps of CAAP, whatever the table's methods."""
    target: str = ""
    """What maps explain where the user does not say it, "label" or "prediction"; by default what the table does."""
    explained: str = ""
    """The same in words, of a figure that chooses classes of its own."""
    axis: str = ""
    """What a sweep goes over, such as "blank"."""
    values: tuple[str, ...] = ()
    """Its settings; if there are none, all that the model has: its number of blocks and one more cutoffs."""
    kept: "Callable[[FigureData, Variant], dict[str, Any]] | None" = None
    """What `FigureData.frame` keeps a model's numbers under; where they are there, the model is not tried."""

    @property
    def takes_caap_alone(self) -> bool:
        """True if the table's methods do not matter."""
        return self.caap_alone or self.what == "sweep"

    def chosen(self, models: Sequence[str]) -> list[str]:
        """Which of a table's models it needs, by the names that either profile gives them."""
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

    Where all are needed, the choice stays open: those that there are no data for are then left out.
    """
    tables = [table for table in settings.wanted if table in {need.table for need in needs}]
    return settings if tables == settings.wanted else replace(settings, tables=tuple(tables))


def paper_figure_plan(settings: PaperSettings, needs: Sequence[Need]) -> BenchmarkPlan:
    """The paper profile's plan for some figures, which asks for no data set, model or head that they do not use.

    Args:
        settings: Of the profile. Where it chooses tables, figures are drawn from these alone.
        needs: Of the figures.

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
        InputError: it cannot be read.
    """
    path = RunFolder(folder).plan_path
    return BenchmarkPlan.load(path) if path.exists() else None


def completed_demo(plan: BenchmarkPlan, needs: Sequence[Need] | None) -> BenchmarkPlan:
    """A run's plan of the demo profile with the tables that figures need and it lacks, on as many images."""
    there = {study.table for study in plan.studies}
    missing = [] if needs is None else sorted({need.table for need in needs} - there)
    if not missing:
        return plan
    more = demo_plan(len(plan.studies[0].data.names), missing)
    return replace(plan, studies=(*plan.studies, *more.studies))


def check_tables(needs: Mapping[str, Sequence[Need] | None], tables: Collection[int], way_out: str) -> None:
    """Refuse figures that read none of some tables.

    Args:
        needs: Of the figures, by name.
        tables: Those that there are.
        way_out: A sentence that says what to do.

    Raises:
        InputError: names all of them.
    """
    reads = {name: sorted({need.table for need in some}) for name, some in needs.items() if some}
    lacking = [f"{name} reads {table_words(own)}" for name, own in reads.items() if not set(own) & set(tables)]
    if lacking:
        there = table_words(sorted(tables))
        raise InputError(f"{'; '.join(lacking)}, which the run does not have (it has {there}). {way_out}")


def table_words(tables: Sequence[int]) -> str:
    """Tables by number: "tables 1, 4"."""
    return f"table{'s' * (len(tables) != 1)} {', '.join(map(str, tables)) or 'none'}"
