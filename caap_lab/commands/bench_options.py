"""Options that `bench`, `doctor` and `figures` share: what a benchmark computes, and how it runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caap_lab.commands.target_flags import FLAGS, add_target_flags
from caap_lab.errors import InputError

if TYPE_CHECKING:
    from caap_lab.bench.paper.settings import PaperSettings
    from caap_lab.bench.plan import BenchmarkPlan

HOW = ("device", "batch_size", "workers", "scheduler", "retry_failed")
"""Options of how a benchmark runs; results do not depend on them."""
WHAT = (
    "models",
    "methods",
    "without",
    "data",
    "images",
    "seed",
    "metrics",
    "target",
    *FLAGS,
    "protocol",
    "image_list",
    "head",
    "tables",
    "precision",
)
"""Options of what a benchmark computes."""
PAPER = (
    *("data", "models", "methods", "without", "tables", "images", "seed", "protocol", "image_list", "head"),
    "precision",
)
"""Options of the paper profile."""
DEMO = ("images", "tables", "methods", "without")
"""Options of the demo profile."""
PROFILES = ("demo", "paper")


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of what a benchmark computes and how it runs.

    An option with several values may be repeated: the values add up, instead of the last occurrence silently winning.
    """
    what = parser.add_argument_group("what is computed")
    what.add_argument(
        "--models",
        action="extend",
        nargs="+",
        metavar="MODEL",
        help="names, folders or hf-hub:OWNER/NAME, with options as NAME:key=value,key=value; in the paper profile "
        "ViT-B/16=MODEL, or Oxford-IIIT-Pet/ViT-B/16=MODEL for one data set only",
    )
    what.add_argument(
        "--methods",
        action="extend",
        nargs="+",
        metavar="METHOD",
        help="such as caap or E-CAAP=caap:attention=cached; with a profile, the methods to keep, all by default",
    )
    what.add_argument(
        "--without",
        action="extend",
        nargs="+",
        metavar="NAME",
        help="methods, models and data sets of a profile to omit",
    )
    what.add_argument(
        "--data",
        action="extend",
        nargs="+",
        metavar="KIND:PATH",
        help="such as imagenet:PATH, pet:PATH, masks:PATH, demo:single; see the page Data",
    )
    what.add_argument(
        "--tables",
        action="extend",
        nargs="+",
        type=int,
        metavar="N",
        help="numbers of the paper's tables, with a profile; all by default",
    )
    what.add_argument(
        "--images",
        action="extend",
        nargs="+",
        metavar="N",
        help="images per data set; by default all, or the profile's number. In the paper profile also "
        "faithfulness=N, localisation=N, table8=N",
    )
    what.add_argument("--seed", type=int, help="seed of the draw of images; 0 by default")
    what.add_argument(
        "--image-list",
        action="extend",
        nargs="+",
        metavar="FILE",
        help="a file of image names that replaces the draw; in the paper profile ImageNet-1K=FILE and so on",
    )
    what.add_argument(
        "--protocol",
        help="protocol of insertion and deletion: rise (default), rise-28, patches, tis, chefer, mutex, xplique, mda",
    )
    what.add_argument(
        "--head",
        action="extend",
        nargs="+",
        metavar="NAME=PATH",
        help="DINOv2's linear heads in the paper profile, as DINOv2-L/14=PATH",
    )
    what.add_argument(
        "--precision",
        help="number format in which models of the paper profile run: float32 (default), tf32, bfloat16, float16",
    )
    own = parser.add_argument_group(
        "what is measured and explained", "for your own models and images; a profile sets these as in the paper"
    )
    own.add_argument("--metrics", action="extend", nargs="+", help="faithfulness, localisation, saco")
    add_target_flags(own, "explain the model's 'prediction' or the image's 'label'")
    how = parser.add_argument_group("how it runs", "results depend on these only by rounding")
    how.add_argument("--device", help="such as cuda; cpu by default")
    how.add_argument("--batch-size", type=int, help="changed images that run at once for the curves; 64 by default")
    how.add_argument("--workers", type=int, help="processes on this machine that compute trials")
    how.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask cluster, such as tcp://host:8786")
    how.add_argument("--retry-failed", action="store_true", help="compute failed trials again")


def given_options(parsed: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options with these names that were given on the command line."""
    return {name: value for name in names if (value := getattr(parsed, name)) is not None}


def profile_plan(profile: str, options: dict[str, Any]) -> "BenchmarkPlan":
    """The plan of a profile.

    Args:
        profile: "demo", "paper" or a file of settings.
        options: Options of `WHAT` from the command line.

    Raises:
        InputError: an option does not apply to the profile, or something that it needs is missing.
    """
    from caap_lab.bench.paper.profiles import paper_plan

    return demo_profile(options) if profile == "demo" else paper_plan(paper_settings(profile, options))


def demo_profile(options: dict[str, Any]) -> "BenchmarkPlan":
    """The plan of the demo profile.

    Args:
        options: Options of `WHAT` from the command line.

    Raises:
        InputError: an option does not apply to the demo profile.
    """
    from caap_lab.bench.paper.profiles import demo_plan

    refuse_others(options, DEMO, "--profile demo")
    given: dict[str, Any] = {name: options[name] for name in ("methods", "without") if name in options}
    if "images" in options:
        given["images"] = images_of(options)
    return demo_plan(chosen=options.get("tables"), **given)


def paper_settings(profile: str, options: dict[str, Any]) -> "PaperSettings":
    """Settings of the paper profile from the command line, which override those of a file.

    Args:
        profile: "paper" or a TOML file.
        options: Options of `WHAT` from the command line.

    Raises:
        InputError: an option does not apply to the paper profile, or has the wrong form.
    """
    from caap_lab.bench.paper.settings import given_settings
    from caap_lab.bench.paper.settings_file import read_settings

    check_profile(profile)
    if profile == "demo":
        raise InputError("The demo profile needs only this package. Use --profile paper, or a file of settings.")
    refuse_others(options, PAPER, "--profile paper")
    lists = {name: _by_name(options.get(name, []), name) for name in ("head", "image_list")}
    plain = ("data", "models", "tables", "methods", "without", "seed", "protocol", "precision")
    return given_settings(
        read_settings(profile) if profile != "paper" else None,
        heads=lists["head"],
        image_lists=lists["image_list"],
        images=_counts(options["images"]) if "images" in options else None,
        **{name: options[name] for name in plain if name in options},
    )


def check_profile(profile: str) -> None:
    """Raise InputError for a profile that is neither one of ours nor a file.

    Raises:
        InputError: there is no such profile; the message lists the profiles.
    """
    from caap_lab.models.names import nearest

    if profile not in PROFILES and not Path(profile).is_file():
        raise InputError(
            f"There is no profile or file {profile!r}.{nearest(profile, PROFILES)} Profiles are "
            f"{' and '.join(PROFILES)}, or a file of settings, which `caap-lab doctor --write paper.toml` writes."
        )


def images_of(options: dict[str, Any]) -> int:
    """The one number of images per data set.

    Raises:
        InputError: it is not a number, or there are several.
    """
    counts = _counts(options["images"])
    if not isinstance(counts, int):
        raise InputError("--images accepts one number here; numbers per metric or table are only for --profile paper.")
    return counts


def refuse_others(options: dict[str, Any], known: Sequence[str], run: str) -> None:
    """Raise InputError for options that do not apply to a run.

    Raises:
        InputError: names the option and the run.
    """
    for name in options:
        if name not in known:
            raise InputError(f"--{name.replace('_', '-')} cannot be used with {run}.")


def _by_name(texts: Sequence[str], option: str) -> dict[str, str]:
    for text in texts:
        if not all(text.partition("=")):
            name = option.replace("_", "-")
            raise InputError(f"--{name} {text} has to be NAME=PATH, with one of the paper's names.")
    given: dict[str, str] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if name in given:
            raise InputError(f"--{option.replace('_', '-')}: {name} is given twice; pass it once.")
        given[name] = path
    return given


def _counts(texts: Sequence[str]) -> int | dict[str, int]:
    """One number of images, or numbers by metric or table: "500", or "faithfulness=500" and "table8=200".

    Raises:
        InputError: a text does not have this form.
    """
    if len(texts) == 1 and texts[0].isdecimal() and int(texts[0]) > 0:
        return int(texts[0])
    counts = {}
    for text in texts:
        name, _, number = text.partition("=")
        if len(texts) > 1 and text.isdecimal():
            raise InputError(
                f"--images {text} is for all tables and cannot be combined; with other numbers use faithfulness=N, "
                "localisation=N, table8=N."
            )
        if not name or not number.isdecimal() or not int(number):
            raise InputError(
                f"--images {text} has to be a number of at least 1, or faithfulness=N, localisation=N, table8=N."
            )
        if name.strip() in counts:
            raise InputError(f"--images: {name} is given twice; pass it once.")
        counts[name.strip()] = int(number)
    return counts
