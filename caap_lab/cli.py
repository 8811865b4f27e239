"""The command line. Only argparse is imported here; each command loads what it needs."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caap_lab._version import __version__
from caap_lab.errors import InputError

if TYPE_CHECKING:
    from caap_lab.attribution.map import AttributionMap
    from caap_lab.models.vit import HookedViT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status (2 for input that cannot be used)."""
    parsed = _parser().parse_args(arguments)
    try:
        status = parsed.run(parsed)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"caap-lab: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough, as in `caap-lab models | head`
        sys.stdout = None
        return 0
    except OSError as error:
        print(f"caap-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("caap-lab: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="caap-lab",
        description="Look inside Vision Transformers: causal attribution via activation patching.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("map", help="map an image: overlay PNG and scores file")
    command.set_defaults(run=_map)
    command.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="photos")
    command.add_argument("--demo", action="store_true", help="a generated scene instead of a photo")
    command.add_argument(
        "--model", default="demo", help="a bundled model such as 'demo', or a timm name (see: caap-lab models)"
    )
    command.add_argument("--checkpoint", type=Path, help="local weights, .safetensors or .pth")
    command.add_argument("--head", type=Path, help="classification head from a file")
    command.add_argument("--image-size", type=int, help="input size in pixels")
    command.add_argument("--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="normalisation mean")
    command.add_argument("--std", type=float, nargs=3, metavar=("R", "G", "B"), help="normalisation deviation")
    command.add_argument("--device", default="cpu")
    command.add_argument("--dtype", default="float32")
    command.add_argument("--method", default="caap", help="see: caap-lab methods")
    command.add_argument("--target", help="class index, WordNet id or word; the model's prediction by default")
    command.add_argument("--cutoff", type=_cutoff, help="patched blocks: a count, or a share such as 0.5")
    command.add_argument("--start", type=int, help="first patched block")
    command.add_argument("--neighbourhood", help="none, cross1, box1, diamond2, box2")
    command.add_argument("--blank", help="white, black, mean, noise, blurred_noise, zero_activations or an image file")
    command.add_argument("--context", help="clamped, free, dropped, frozen")
    command.add_argument("--attention", help="exact, cached (E-CAAP), cached_all")
    command.add_argument("--tail", help="exact, shared")
    command.add_argument("--score", help="logit, prob, logprob")
    command.add_argument("--seed", type=int, help="seed of the noise blanks")
    command.add_argument("--chunk-size", type=int, help="patches at once; bounds memory")
    command.add_argument("--out", type=Path, default=Path("runs/map"), help="folder for the results")
    command.add_argument("--json", action="store_true", help="print the result as JSON")

    command = commands.add_parser(
        "bench", help="many models x methods x images, resumable; run it again to go on where it stopped"
    )
    command.set_defaults(run=_bench)
    command.add_argument(
        "--profile", choices=("demo", "paper"), help="the paper's tables, small and offline or in full"
    )
    command.add_argument("--out", type=Path, required=True, help="the run's folder; alone, an earlier run goes on")
    _bench_options(command)

    command = commands.add_parser(
        "doctor",
        help="what `bench --profile paper` needs, how to get what is missing, and what it costs",
    )
    command.set_defaults(run=_doctor)
    command.add_argument("--profile", choices=("paper",), help="as `caap-lab bench` has it")
    command.add_argument("--out", type=Path, default=Path("runs/paper"), help="for the command that it prints")
    _bench_options(command)
    command.add_argument("--no-timing", action="store_true", help="do not measure how long a forward pass takes")
    command.add_argument("--json", action="store_true", help="print the same as JSON")

    command = commands.add_parser("tables", help="tables of a benchmark as Markdown, LaTeX and CSV")
    command.set_defaults(run=_tables)
    command.add_argument("run_folder", type=Path, metavar="RUN", help="the folder that `caap-lab bench` wrote")
    command.add_argument("--out", type=Path, help="folder for the tables; RUN/tables by default")

    command = commands.add_parser("figures", help="the paper's figures and tables as PDF, PNG, CSV, Markdown and LaTeX")
    command.set_defaults(run=_figures)
    command.add_argument("names", nargs="+", metavar="NAME", help="all, fig01 to fig10, gallery, tab01 to tab15")
    command.add_argument("--profile", choices=("demo", "paper"), default="demo", help="default %(default)s")
    command.add_argument("--out", type=Path, default=Path("runs/figures"), help="folder; default %(default)s")
    command.add_argument(
        "--results", type=Path, dest="run_folder", help="where results are kept; OUT/results by default"
    )
    _bench_options(command)

    command = commands.add_parser("lab", help="open JupyterLab in the notebooks, on this computer only")
    command.set_defaults(run=_lab)
    command.add_argument("--dir", type=Path, help="copy the notebooks here; files that are there are kept")
    command.add_argument("--port", type=int, help="8888 by default, or the next free one")
    command.add_argument(
        "options", nargs="*", metavar="OPTION", help="of JupyterLab, after --, such as -- --no-browser"
    )

    command = commands.add_parser("models", help="list models")
    command.set_defaults(run=_models)
    command.add_argument("pattern", nargs="?", default="*", help="such as 'vit_base*'")
    command.add_argument("--json", action="store_true")

    command = commands.add_parser("methods", help="list attribution methods")
    command.set_defaults(run=_methods)
    command.add_argument("--json", action="store_true")
    return parser


def _bench_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--models", nargs="+", metavar="MODEL", help="names, with options as NAME:key=value,key=value")
    command.add_argument("--methods", nargs="+", metavar="METHOD", help="such as caap or E-CAAP=caap:attention=cached")
    command.add_argument(
        "--data", nargs="+", metavar="KIND:PATH", help="such as imagenet:PATH, masks:PATH, demo:single"
    )
    command.add_argument("--tables", nargs="+", type=int, metavar="N", help="of the profile; all by default")
    command.add_argument("--images", type=int, help="images a data set; all by default")
    command.add_argument("--seed", type=int, help="of the draw of images")
    command.add_argument(
        "--image-list", nargs="+", metavar="FILE", help="names instead of a draw; for the paper profile NAME=FILE"
    )
    command.add_argument("--metrics", nargs="+", help="faithfulness, localisation")
    command.add_argument("--target", help="explain the model's 'prediction' or the image's 'label'")
    command.add_argument("--protocol", help="of the curves: rise, rise-28, patches, tis, chefer, mutex, xplique, mda")
    command.add_argument("--head", nargs="+", metavar="NAME=PATH", help="DINOv2's linear heads, for the paper profile")
    command.add_argument("--device", help="such as cuda")
    command.add_argument("--batch-size", type=int, help="changed images run at once for the curves")
    command.add_argument("--workers", type=int, help="processes on this machine")
    command.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask cluster, such as tcp://host:8786")
    command.add_argument("--retry-failed", action="store_true", help="compute failed trials again")


DEMO_SEED = 2
"""Of a scene whose digit the bundled model reads rightly."""
_OPTIONS = (
    "cutoff",
    "start",
    "neighbourhood",
    "blank",
    "context",
    "attention",
    "tail",
    "score",
    "seed",
    "chunk_size",
)


def _cutoff(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _map(parsed: argparse.Namespace) -> int:
    if bool(parsed.images) == parsed.demo:
        raise InputError("Give one or more photos, or --demo for a generated scene.")
    missing = [path for path in parsed.images if not path.exists()]
    if missing:
        raise InputError(f"There is no file {missing[0]}.")
    stems = [path.stem for path in parsed.images]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise InputError(f"Two photos are called {twice.pop()!r}, and results are named after them; map them apart.")

    from caap_lab.attribution.registry import METHODS, attribute, unknown_method
    from caap_lab.models.images import check_photo
    from caap_lab.models.load import load_model

    if parsed.method not in METHODS:
        raise unknown_method(parsed.method)
    for path in parsed.images:
        check_photo(path)
    parsed.out.mkdir(parents=True, exist_ok=True)
    model = load_model(
        parsed.model,
        checkpoint=parsed.checkpoint,
        head=parsed.head,
        mean=parsed.mean,
        std=parsed.std,
        image_size=parsed.image_size,
        device=parsed.device,
        dtype=parsed.dtype,
    )
    target = None if parsed.target is None else model.target(parsed.target)
    options = {name: getattr(parsed, name) for name in _OPTIONS if getattr(parsed, name) is not None}
    results: list[dict[str, Any]] = []
    images = _named_images(parsed)
    try:
        for name, image in images:
            found = attribute(model, image, method=parsed.method, target=target, **options)
            results.append(_write(model, image, name, found, parsed.out))  # type: ignore[arg-type]
            if not parsed.json:
                _print_result(results[-1])
    finally:  # what was finished is told, whatever stopped the rest
        if parsed.json and results:
            print(json.dumps(results if len(images) > 1 else results[0], indent=1))
    return 0


def _named_images(parsed: argparse.Namespace) -> list[tuple[str, Any]]:
    if not parsed.demo:
        return [(path.stem, path) for path in parsed.images]
    from caap_lab.data.scenes import demo_images

    scene = demo_images("single", 1, seed=DEMO_SEED)[0]
    return [(f"demo_digit_{scene.label}", scene.image)]


def _write(model: "HookedViT", image: Any, name: str, found: "AttributionMap", out: Path) -> dict[str, Any]:
    import torch

    from caap_lab.files import atomic_path
    from caap_lab.models.probability import probabilities
    from caap_lab.plots.style import figure_png

    with torch.no_grad():
        shares = probabilities(model(image)[0].float())
    top = shares.topk(min(5, model.n_classes))
    overlay = out / f"{name}_{found.method}.png"
    scores = found.save(out / f"{name}_{found.method}.safetensors")
    with atomic_path(overlay) as part:
        part.write_bytes(figure_png(found.plot(), dpi=150))
    return {
        "image": name,
        "model": model.model_name,
        "predictions": [
            {"class": int(i), "name": model.class_names.name(int(i)), "probability": round(float(p), 4)}
            for p, i in zip(top.values, top.indices, strict=True)
        ],
        "target": found.target,
        "target_name": found.target_name,
        "method": found.method,
        "settings": found.settings,
        "score": found.score,
        "sign": found.sign,
        "top_patches": [
            {"row": r, "column": c, "score": round(float(found.scores[r, c]), 4)} for r, c in found.rank()[:5]
        ],
        "seconds": round(found.seconds, 3),
        "overlay": str(overlay),
        "scores": str(scores),
    }


def _print_result(result: dict[str, Any]) -> None:
    print(f"{result['image']} under {result['model']}")
    for found in result["predictions"]:
        print(f"  {found['probability']:7.1%}  {found['name']} ({found['class']})")
    settings = ", ".join(f"{key} {value}" for key, value in result["settings"].items())
    print(f"{result['method']} for {result['target_name']} ({result['target']}): {settings}")
    for patch in result["top_patches"]:
        print(f"  row {patch['row']:2d}, column {patch['column']:2d}: {result['score']} {patch['score']:.3f}")
    print(f"{result['seconds']:.2f} s; {result['overlay']} and {result['scores']}")


def _bench(parsed: argparse.Namespace) -> int:
    from caap_lab.commands.bench import bench

    return bench(parsed)


def _doctor(parsed: argparse.Namespace) -> int:
    from caap_lab.commands.bench import doctor

    return doctor(parsed)


def _tables(parsed: argparse.Namespace) -> int:
    from caap_lab.commands.bench import tables

    return tables(parsed)


def _figures(parsed: argparse.Namespace) -> int:
    from caap_lab.figures.command import figures

    return figures(parsed)


def _lab(parsed: argparse.Namespace) -> int:
    from caap_lab.commands.lab import open_lab

    return open_lab(parsed.dir, parsed.port, parsed.options)


def _models(parsed: argparse.Namespace) -> int:
    from caap_lab.models.load import list_models
    from caap_lab.models.names import nearest

    names = list_models(parsed.pattern)
    if not names:
        hint = nearest(parsed.pattern.strip("*"), list_models())
        raise InputError(
            f"No model is called {parsed.pattern!r}.{hint} `caap-lab models` lists them all; a pattern may have "
            "wildcards, such as '*deit*'."
        )
    print(json.dumps(names, indent=1) if parsed.json else "\n".join(names))
    return 0


def _methods(parsed: argparse.Namespace) -> int:
    from caap_lab.attribution.registry import methods

    table = methods().reset_index()
    if parsed.json:
        print(json.dumps(table.to_dict("records"), indent=1))
        return 0
    for row in table.to_dict("records"):
        passes = f"{row['forwards']} forward, {row['backwards']} backward"
        about = f"{row['family']}; needs {row['needs']}; passes an image: {passes}; scores: {row['sign']}"
        print(f"{row['name']}\n  {row['source']}; {about}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
