"""The text next to a figure that describes its origin: data, counts, models, methods and protocol."""

from collections.abc import Sequence
from importlib.metadata import version

from caap_lab._version import __version__
from caap_lab.bench.figures.data import CAAP, FigureData, FigureResult
from caap_lab.bench.figures.needs import Need
from caap_lab.bench.paper.profiles import stand_ins
from caap_lab.bench.plan import Study
from caap_lab.bench.target_rule import WORDS, rule_words

_WHAT = {
    "trials": "benchmark trials",
    "maps": "maps of single images",
    "sweep": "a sweep of CAAP",
    "attention": "attention weights",
}
_UNITS = (
    "Means are over images, se is their standard error (ddof 0). In the CSV, metrics are in percent, and probabilities "
    "of curves from 0 to 1."
)


def about_figure(title: str, data: FigureData, needs: Sequence[Need], result: FigureResult) -> str:
    """The text, in lines; it is the only file of a figure that contains paths of this machine.

    Args:
        title: Title of the figure.
        data: The data of the figure.
        needs: What the figure reads.
        result: The figure.
    """
    lines = [title, f"Profile: {data.plan.profile or 'none'}"]
    absent = sorted({need.table for need in needs} - data.tables)
    if absent:
        lines.append(f"Left out, as the run does not have them: the parts of tables {', '.join(map(str, absent))}.")
    for need in needs:
        for study in data.plan.studies:
            if study.table == need.table:
                lines += ["", *_part(data, need, study, result)]
    lines += ["", *_of_all(data, needs)]
    return "\n".join(lines) + "\n"


def _part(data: FigureData, need: Need, study: Study, result: FigureResult) -> list[str]:
    """What the figure reads of a table's data set."""
    used = need.chosen([model.label for model in study.models])
    models = [f"{m.label} = {m.text}" if m.label != m.text else m.text for m in study.models if m.label in used]
    what = _WHAT[need.what]
    if need.what == "sweep":
        what += f" over the {need.axis}: {', '.join(need.values) or 'all that a model has'}"
    lines = [f"Table {need.table}, {study.data.label}: {what}", f"  Data: {study.data.source}"]
    if need.what == "maps":
        photos = list(result.data["photo"].unique()) if "photo" in result.data else data.photos(study, need.images)
        target = data.target(need.target or None)
        words = target if target not in (None, *WORDS) else rule_words(study.target if target is None else str(target))
        lines += [f"  Images: {', '.join(photos)}", f"  Explained: {need.explained or words}"]
    else:
        names = study.data.names[: data.sweep_images] if need.what == "sweep" else study.data.names
        first = "" if len(names) == len(study.data.names) else f"the first {len(names)} of "
        lines += [f"  Images: n = {len(names)}, {first}{study.data.chosen}"]
        if need.what != "attention":
            lines += [f"  Explained: {rule_words(study.target)}", f"  Metrics: {', '.join(study.metrics)}"]
    methods = () if need.what == "attention" else (CAAP,) if need.takes_caap_alone else study.methods
    named = [m.label if m.label == m.text else f"{m.label} = {m.text}" for m in methods]
    return [*lines, *[f"  Models: {'; '.join(models)}"], *([f"  Methods: {'; '.join(named)}"] if named else [])]


def _of_all(data: FigureData, needs: Sequence[Need]) -> list[str]:
    """What all parts share."""
    choices = ", ".join(f"{key} {value}" for key, value in data.plan.protocol.to_dict().items() if key != "name")
    read = [study for study in data.plan.studies for need in needs if study.table == need.table]
    measured = any(need.what in ("trials", "sweep") for need in needs)
    curves = measured and any(data.plan.reads_protocol(study) for study in read)
    known = [stand_ins(study.table) for study in read] if data.plan.profile == "demo" else []
    return [
        *([f"Curves: protocol {data.plan.protocol.name} ({choices})."] if curves else []),
        *([_UNITS] if measured else []),
        *dict.fromkeys(known),
        *data.plan.notes,
        f"Results: {data.folder}",
        f"Versions: caap_lab {__version__}, torch {version('torch')}, timm {version('timm')}",
    ]
