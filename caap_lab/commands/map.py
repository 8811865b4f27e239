"""`caap-lab map`: attribution maps of photos, or of a generated scene."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caap_lab.commands.caap_flags import add_caap_flags, given_caap_options
from caap_lab.commands.map_names import method_name
from caap_lab.commands.target_flags import add_target_flags, with_flags
from caap_lab.errors import InputError
from caap_lab.variant import Variant, parse_variant

if TYPE_CHECKING:
    from caap_lab.attribution.map import AttributionMap
    from caap_lab.models.base import HookedModel
    from caap_lab.models.vit import HookedViT

HELP = "map an image: overlay PNG and scores file"
DEMO_SEED = 2
"""Seed of a scene whose digit the bundled model classifies correctly."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="photos")
    parser.add_argument("--demo", action="store_true", help="a generated scene instead of a photo")
    parser.add_argument(
        "--model",
        default="demo",
        help="a bundled model such as 'demo', a timm name (see: caap-lab models), a folder with config.json and "
        "weights, or hf-hub:OWNER/NAME",
    )
    parser.add_argument("--checkpoint", type=Path, help="file of weights, .safetensors or .pth")
    parser.add_argument("--checkpoint-key", help="which of several sets of weights in that file: 'teacher', 'ema'")
    parser.add_argument("--head", type=Path, help="classification head from a file")
    parser.add_argument("--image-size", type=int, help="input size in pixels")
    parser.add_argument("--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="normalisation mean")
    parser.add_argument("--std", type=float, nargs=3, metavar=("R", "G", "B"), help="normalisation standard deviation")
    parser.add_argument("--device", default="cpu", help="such as cuda; cpu by default")
    parser.add_argument("--dtype", default="float32", help="number format of the model; float32 by default")
    parser.add_argument(
        "--method",
        default="caap",
        help="a name, with options as NAME:key=value,key=value; see: caap-lab methods",
    )
    add_target_flags(parser, "class index, WordNet id or word; the model's prediction by default")
    add_caap_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/map"), help="folder for the results")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Write an overlay and a scores file per image; print what they show.

    Raises:
        InputError: an argument is invalid.
    """
    _check_images(parsed.images, parsed.demo)

    from caap_lab.attribution.registry import METHODS, attribute, unknown_method
    from caap_lab.bench.target_rule import target_by_rule
    from caap_lab.files import check_folder
    from caap_lab.models.images import check_photo
    from caap_lab.models.load import load_model

    variant = parse_variant(parsed.method)
    if variant.name not in METHODS:
        raise unknown_method(variant.name)
    options = _options(variant, parsed)
    for path in parsed.images:
        check_photo(path)
    check_folder(parsed.out)
    parsed.out.mkdir(parents=True, exist_ok=True)
    model = load_model(
        parsed.model,
        checkpoint=parsed.checkpoint,
        checkpoint_key=parsed.checkpoint_key,
        head=parsed.head,
        mean=parsed.mean,
        std=parsed.std,
        image_size=parsed.image_size,
        device=parsed.device,
        dtype=parsed.dtype,
    )
    of = "prediction" if parsed.target is None else model.target(parsed.target)
    rule = with_flags(of, None if parsed.against is None else model.target(parsed.against), vars(parsed))
    method = method_name(variant, options, METHODS[variant.name].options.get(model.kind, {}), parsed)
    results: list[dict[str, Any]] = []
    images = _named_images(parsed)
    _check_earlier_maps(model, {parsed.out / f"{name}_{method}.safetensors": image for name, image in images})
    try:
        for name, image in images:
            m: Any = attribute(model, image, method=variant.name, target=target_by_rule(rule, model, image), **options)
            results.append(_write(model, image, name, method, m, parsed.out))  # type: ignore[arg-type]
            if not parsed.json:
                _print_result(results[-1])
    finally:  # finished results are printed even if the others fail
        if parsed.json and results:
            print(json.dumps(results if len(images) > 1 else results[0], indent=1))
    return 0


def _check_images(paths: list[Path], demo: bool) -> None:
    if bool(paths) == demo:
        raise InputError("Pass one or more photos, or --demo for a generated scene.")
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise InputError(f"There is no file {missing[0]}.")
    stems = [path.stem for path in paths]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise InputError(
            f"Two photos are called {twice.pop()!r}, and results have the photos' names; map them separately."
        )


def _check_earlier_maps(model: "HookedModel", images: dict[Path, Any]) -> None:
    """Raise InputError if a file to be written holds the map of another image."""
    from caap_lab.attribution.map import AttributionMap
    from caap_lab.digests.tensors import tensor_digest

    for path, image in images.items():
        if path.exists() and AttributionMap.load(path).image_digest != tensor_digest(model.preprocess(image)[0]):
            raise InputError(
                f"{path} holds the map of another image of this name. Pass another folder with --out, or delete it."
            )


def _options(variant: Variant, parsed: argparse.Namespace) -> dict[str, Any]:
    """The method's options, from its text and from the flags."""
    flags = given_caap_options(parsed)
    for name in variant.options:
        flag = f"--{name.replace('_', '-')}"
        if name in flags:
            raise InputError(f"{name} is given both in --method {parsed.method} and as {flag}; pass it once.")
        if name == "target":
            raise InputError(f"The target is not an option of a method; pass it as {flag}.")
    return {**variant.options, **flags}


def _named_images(parsed: argparse.Namespace) -> list[tuple[str, Any]]:
    if not parsed.demo:
        return [(path.stem, path) for path in parsed.images]
    from caap_lab.data.scenes import demo_images

    scene = demo_images("single", 1, seed=DEMO_SEED)[0]
    return [(f"demo_digit_{scene.label}", scene.image)]


def _write(model: "HookedViT", image: Any, name: str, method: str, m: "AttributionMap", out: Path) -> dict[str, Any]:
    """Write a map's files; returns what to print about it."""
    import torch

    from caap_lab.files import atomic_path
    from caap_lab.models.probability import probabilities
    from caap_lab.plots.style import figure_png

    with torch.no_grad():
        shares = probabilities(model(image)[0].float())
    top = shares.topk(min(5, model.n_classes))
    overlay = out / f"{name}_{method}.png"
    scores = m.save(out / f"{name}_{method}.safetensors")
    with atomic_path(overlay) as part:
        part.write_bytes(figure_png(m.plot(), dpi=150))
    return {
        "image": name,
        "model": model.model_name,
        "predictions": [
            {"class": int(i), "name": model.class_names.name(int(i)), "probability": round(float(p), 4)}
            for p, i in zip(top.values, top.indices, strict=True)
        ],
        "target": m.target_class if m.class_specific else None,
        "target_name": m.target_name if m.class_specific else m.caption,
        "explains": _explained(m),
        "method": m.method,
        "settings": m.settings,
        "score": m.score,
        "sign": m.sign,
        "top_patches": [
            {"row": r, "column": c, "score": round(float(m.scores[r, c]), 4) + 0.0} for r, c in m.rank()[:5]
        ],
        "seconds": round(m.seconds, 3),
        "overlay": str(overlay),
        "scores": str(scores),
    }


def _explained(m: "AttributionMap") -> str:
    of_class = m.class_specific and isinstance(m.target, int)
    return f"{m.target_name} ({m.target})" if of_class else m.caption


def _print_result(result: dict[str, Any]) -> None:
    print(f"{result['image']} under {result['model']}")
    for prediction in result["predictions"]:
        print(f"  {prediction['probability']:7.1%}  {prediction['name']} ({prediction['class']})")
    settings = ", ".join(f"{key} {value}" for key, value in result["settings"].items())
    print(f"{result['method']} for {result['explains']}: {settings}")
    for patch in result["top_patches"]:
        print(f"  row {patch['row']:2d}, column {patch['column']:2d}: {result['score']} {patch['score']:z.3f}")
    print(f"{result['seconds']:.2f} s; {result['overlay']} and {result['scores']}")
