"""Names for a printed page: without the folders of the machine that computed them."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath

from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.variant import Variant

_ROOT = re.compile(r"(?:~[^/\\]*|\.{1,2}|[A-Za-z]:)?[/\\]")
"""Pattern of the start of a path."""
_PATH = re.compile(r"(?<![\w.~/\\-])(?:~|[A-Za-z]:|\.{1,2})?[/\\](?:[^\s/\\,;|()'\"?=]+[/\\])*(?=[^\s/\\,;|()'\"?=])")
"""Pattern of the folders of a path inside a sentence."""


def short_names(plan: BenchmarkPlan) -> dict[str, str]:
    """Names of a plan's data, models and methods that contain paths, and the same with only file names."""
    specs = [spec for study in plan.studies for spec in (*study.models, *study.methods)]
    found: dict[str, str] = {}
    for name, short in [
        *((study.data.source, _source(study.data.source)) for study in plan.studies),
        *((spec.text, _spec(spec)) for spec in specs),
    ]:
        if name == short or name in found:
            continue
        taken = sum(other == short or other.startswith(f"{short} (") for other in found.values())
        found[name] = f"{short} ({taken + 1})" if taken else short
    return found


def without_paths(text: str, short: Mapping[str, str]) -> str:
    """A sentence with the names of `short_names` instead of the long ones, and without folders of other paths."""
    for name in sorted(short, key=len, reverse=True):
        text = text.replace(name, short[name])
    return _PATH.sub("", text)


def _source(source: str) -> str:
    kind, colon, place = source.partition(":")
    if not colon:
        return _last(source)
    first, *options = place.split("?")
    told = [f"{name}={_last(file)}" for name, _, file in (option.partition("=") for option in options)]
    return "?".join([f"{kind}:{_last(first)}", *told])


def _spec(spec: Variant) -> str:
    options = {name: _last(value) if isinstance(value, str) else value for name, value in spec.options.items()}
    return Variant(_last(spec.name), options).text


def _last(path: str) -> str:
    """The last part of a path; other text is not changed."""
    if not _ROOT.match(path):
        return path
    kind = PureWindowsPath if "\\" in path else PurePosixPath
    return kind(path).name or path
