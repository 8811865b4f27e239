"""The settings file that `caap-lab doctor --write` fills with the parts it finds."""

from dataclasses import replace

from caap_lab.bench.paper.doctor import Report
from caap_lab.bench.paper.parts import DATASETS, HEADS, HEADS_HOME, MODELS
from caap_lab.bench.paper.settings import PaperSettings
from caap_lab.bench.paper.settings_file import Missing
from caap_lab.data.open import KINDS
from caap_lab.variant import Variant, parse_variant


def filled(report: Report) -> PaperSettings:
    """The report's settings, with the weights that were found by name."""
    models = {part.name: _weights(report.settings, part.name) for part in report.weights if part.here}
    return replace(report.settings, models={**models, **report.settings.models})


def missing(report: Report) -> list[Missing]:
    """The entries still to be filled in: all parts that are missing, with how to get them."""
    settings, found = report.settings, []
    for part in (part for part in report.data if not part.here):
        kind = DATASETS[part.name]
        text = part.report if part.name in settings.data else f"it comes from {KINDS[kind].home}"
        found.append(Missing("data", part.name, text, f"{kind}:PATH"))
    for part in (part for part in report.weights if not part.here):
        spec = _weights(settings, part.name)
        example = Variant(spec.name, {**spec.options, "checkpoint": "PATH"}).text
        found.append(Missing("models", part.name, part.report, example))
    found += [Missing("models", part.name, part.report, "FOLDER") for part in report.classifiers if not part.here]
    for part in (part for part in report.heads if not part.here):
        file = HEADS.get(part.name, "head.pth")
        text = part.report if part.name in settings.heads else f"the file {file} of {HEADS_HOME}"
        found.append(Missing("heads", part.name, text, f"PATH/{file}"))
    return found


def _weights(settings: PaperSettings, name: str) -> Variant:
    return settings.models[name] if name in settings.models else parse_variant(f"{name}={MODELS[name]}")
