"""The options that `bench`, `doctor` and `figures` share: what a benchmark computes, and how it runs."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from caap_lab.commands.target_flags import FLAGS, add_target_flags
from caap_lab.errors import InputError

if TYPE_CHECKING:
    from caap_lab.bench.plan import BenchmarkPlan

HOW = ("device", "batch_size", "workers", "scheduler", "retry_failed")
"""Options of how a benchmark runs; no result depends on them."""
WHAT = (
    "models",
    "methods",
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
)
"""Options of what it computes."""


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of what a benchmark computes and how it runs."""
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="names, folders or hf-hub:OWNER/NAME, with options as NAME:key=value,key=value",
    )
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="such as caap or E-CAAP=caap:attention=cached")
    parser.add_argument("--data", nargs="+", metavar="KIND:PATH", help="such as imagenet:PATH, masks:PATH, demo:single")
    parser.add_argument("--tables", nargs="+", type=int, metavar="N", help="of the profile; all by default")
    parser.add_argument("--images", type=int, help="images per data set; all by default")
    parser.add_argument("--seed", type=int, help="of the draw of images")
    parser.add_argument(
        "--image-list", nargs="+", metavar="FILE", help="names instead of a draw; for the paper profile NAME=FILE"
    )
    parser.add_argument("--metrics", nargs="+", help="faithfulness, localisation, saco")
    add_target_flags(parser, "explain the model's 'prediction' or the image's 'label'")
    parser.add_argument("--protocol", help="of the curves: rise, rise-28, patches, tis, chefer, mutex, xplique, mda")
    parser.add_argument("--head", nargs="+", metavar="NAME=PATH", help="DINOv2's linear heads, for the paper profile")
    parser.add_argument("--device", help="such as cuda")
    parser.add_argument("--batch-size", type=int, help="changed images run at once for the curves")
    parser.add_argument("--workers", type=int, help="processes on this machine")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask cluster, such as tcp://host:8786")
    parser.add_argument("--retry-failed", action="store_true", help="compute failed trials again")


def given_options(parsed: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options of these names that stand on the command line."""
    return {name: value for name in names if (value := getattr(parsed, name)) is not None}


def profile_plan(profile: str, options: dict[str, Any]) -> "BenchmarkPlan":
    """The plan of a profile.

    Args:
        profile: "demo" or "paper".
        options: Options of `WHAT` from the command line.

    Raises:
        InputError: an option does not go with the profile, or something that it needs is missing.
    """
    from caap_lab.bench.profiles import demo_plan, paper_plan

    if profile == "paper":
        seed = {"seed": options["seed"]} if "seed" in options else {}
        return paper_plan(**paper_arguments(options), **seed)
    refuse_others(options, ("images", "tables"), "--profile demo")
    images = {"images": options["images"]} if "images" in options else {}
    return demo_plan(chosen=options.get("tables"), **images)


def paper_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """What `paper_plan` and `doctor` both take, from the options on the command line.

    Raises:
        InputError: an option does not go with the paper profile, or does not have its form.
    """
    known = ("images", "tables", "data", "models", "head", "image_list", "seed", "protocol")
    refuse_others(options, known, "--profile paper")
    return {
        "data": options.get("data", []),
        "models": options.get("models", []),
        "heads": _by_name(options.get("head", []), "head"),
        "chosen": options.get("tables"),
        "image_lists": _by_name(options.get("image_list", []), "image-list"),
        **{name: options[name] for name in ("images", "protocol") if name in options},
    }


def refuse_others(options: dict[str, Any], known: Sequence[str], run: str) -> None:
    """Refuse options that a run does not have.

    Raises:
        InputError: says which option, and which run.
    """
    for name in options:
        if name not in known:
            raise InputError(f"--{name.replace('_', '-')} does not go with {run}.")


def _by_name(texts: Sequence[str], option: str) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise InputError(f"--{option} {text} has to be NAME=PATH, with one of the paper's names.")
    return dict(text.split("=", 1) for text in texts)
