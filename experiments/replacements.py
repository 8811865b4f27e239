"""Which conclusions of an ablation depend on the replacement: outlying and other patches of real models.

    python -m experiments.replacements --models A=vit_tiny_patch16_224:checkpoint=PATH,mean=[...],std=[...] \
        --photos folder:PATH --images 64 --out docs/tables/replacements.md

Tokens are replaced at the input of every block starting with a given one: patches of outlying norm, which act as
registers, after the block where they become outliers; as many other patches; and half of the patches in the last third
of blocks.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.statistics import sign_flip_p
from caap_lab.variant import parse_variant

OUTLIERS, OTHERS = "outlying patches", "as many other patches"
REPLACEMENTS = {
    "zero": "zero",
    "mean": "mean over images, each place its own",
    "token_mean": "mean over images and all tokens",
    "such_mean": "mean of these tokens over images",
    "shuffled": "the same places of another image",
    "such_shuffled": "such tokens of another image",
    "noise": "noise of each channel's mean and spread",
}


class Choice(NamedTuple):
    """The replaced tokens of each image, and the first block in which they are replaced."""

    tokens: Bool[np.ndarray, "image token"]
    start: int


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.replacements", description=__doc__)
    parser.add_argument("--models", nargs="+", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--photos", required=True, help="what cl.open_images opens, with labels")
    parser.add_argument("--images", type=int, default=64, help="photos, drawn with seed 0; default %(default)s")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    samples = list(cl.open_images(args.photos).sample(args.images, seed=0))
    lines = [
        f"{args.images} photos drawn with seed 0. Change: of the predicted class's logit against the mean of all "
        "classes', mean ± standard error (ddof 0). Kept: photos whose prediction stays. Right: photos whose prediction "
        f"is the label. p: paired permutation test over photos, {OUTLIERS} against {OTHERS}. {describe()}."
    ]
    for variant in map(parse_variant, args.models):
        model = cl.load_model(variant.name, **variant.options)
        assert isinstance(model, cl.HookedViT)
        images = model.preprocess([sample.image for sample in samples])
        lines += ["", f"**{variant.label}**", "", *table(model, images, [s.label for s in samples], args.batch_size)]
        if args.out is not None:
            args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def table(model: cl.HookedViT, images: Tensor, labels: list[int | None], batch_size: int) -> list[str]:
    """Lines of the table for one model."""
    choices, about = choose(model, images, batch_size)
    with torch.no_grad():
        logits = torch.cat([model(batch) for batch in images.split(batch_size)])
    predicted = logits.argmax(1).tolist()
    metric: dict[str, Any] = {
        "change": [cl.contrast(index) for index in predicted],
        "kept": [says(index) for index in predicted],
        "right": [says(-1 if label is None else label) for label in labels],
    }
    made = sources(model, images, choices, batch_size)

    def patch(tokens: str, replacement: str) -> cl.Patch:
        chosen, start = choices[tokens]
        blocks = range(start, model.n_layers)
        return cl.Patch("resid_pre", blocks, tokens=torch.from_numpy(chosen), source=made[tokens][replacement])

    over = {"tokens": list(choices), "replacement": list(REPLACEMENTS)}
    found = cl.sweep(model, images, patch, over=over, metric=metric, batch_size=batch_size).data
    lines = [f"{about} Right without replacement: {found['baseline'].sel(target='right').mean().item():.0%}.", ""]
    lines += ["| tokens | replaced by | change | kept | right |", "|---|---|---|---|---|"]
    for tokens in choices:
        for name, text in REPLACEMENTS.items():
            cell = found.sel(tokens=tokens, replacement=name)
            change = cell["effect"].sel(target="change").values
            kept, right = (cell["value"].sel(target=target).mean().item() for target in ("kept", "right"))
            se = change.std() / len(change) ** 0.5
            lines.append(f"| {tokens} | {text} | {change.mean():+.2f} ± {se:.2f} | {kept:.0%} | {right:.0%} |")
    lines += ["", f"| replaced by | {OUTLIERS} minus {OTHERS} | p |", "|---|---|---|"]
    effect = found["effect"].sel(target="change")
    for name, text in REPLACEMENTS.items():
        pairs = (effect.sel(tokens=OUTLIERS, replacement=name) - effect.sel(tokens=OTHERS, replacement=name)).values
        p = float(sign_flip_p(pairs, samples=10_000, seed=0))
        lines.append(f"| {text} | {pairs.mean():+.2f} ± {pairs.std() / len(pairs) ** 0.5:.2f} | {p:.2g} |")
    return lines


def choose(model: cl.HookedViT, images: Tensor, batch_size: int) -> tuple[dict[str, Choice], str]:
    """The tokens to replace, and a sentence on the outliers."""
    norms = cl.token_norms(model, images, layers=range(model.n_layers - 1), batch_size=batch_size)
    layer, first = norms.outlier_layer, model.spec.n_prefix
    ratios = norms.ratios[:, norms.axes["layer"].index(layer)]
    try:
        outliers = norms.outliers()[:, first:]
        about = (
            f"Outlying: more than 3 times the median norm behind block {layer}, {outliers.sum(1).mean():.1f} patches"
        )
    except cl.InputError:
        outliers = ratios >= np.sort(ratios, axis=1)[:, -4:][:, :1]
        about = f"No patch has more than 3 times the median norm; in their place, the 4 largest behind block {layer}"
    random = np.random.default_rng(0).random(outliers.shape)
    others = np.argsort(np.argsort(random + outliers, axis=1), axis=1) < outliers.sum(1, keepdims=True)
    half = np.argsort(np.argsort(random, axis=1), axis=1) < outliers.shape[1] // 2
    late, behind = 2 * model.n_layers // 3, layer + 1
    chosen = {
        OUTLIERS: (outliers, behind),
        OTHERS: (others, behind),
        "half of the patches, last third": (half, late),
    }
    choices = {name: Choice(np.pad(patches, ((0, 0), (first, 0))), start) for name, (patches, start) in chosen.items()}
    text = f"{about} per photo, with norms up to {ratios.max():.1f} times the median; replaced from block {behind} on."
    return choices, f"{text} The last third begins at block {late}."


def sources(
    model: cl.HookedViT, images: Tensor, choices: Mapping[str, Choice], batch_size: int
) -> dict[str, dict[str, Any]]:
    """Sources of patches by choice of tokens and replacement."""
    first = min(choice.start for choice in choices.values())
    store = model.record(images, ["resid_pre"], layers=range(first, model.n_layers), batch_size=batch_size)
    shared = {
        "zero": 0.0,
        "mean": store.mean(),
        "token_mean": store.mean(("image", "token")),
        "shuffled": store.shuffled(0),
        "noise": store.noise(0),
    }
    found = {}
    for name, (chosen, start) in choices.items():
        streams = {layer: store["resid_pre", layer] for layer in range(start, model.n_layers)}
        tokens = torch.from_numpy(chosen)
        found[name] = shared | {
            "such_mean": {layer: x[tokens].mean(0).expand(x.shape[1:]) for layer, x in streams.items()},
            "such_shuffled": {layer: of_another(x, tokens) for layer, x in streams.items()},
        }
    return found


def of_another(stream: Tensor, tokens: Tensor) -> Tensor:
    """The stream with each image's chosen tokens replaced by those of the next image with any, repeated if needed."""
    moved = stream.clone()
    have = [image for image in range(len(stream)) if tokens[image].any()]
    for image, other in zip(have, have[1:] + have[:1], strict=True):
        rows, count = stream[other][tokens[other]], int(tokens[image].sum())
        moved[image, tokens[image]] = rows.repeat(-(-count // len(rows)), 1)[:count]
    return moved


def says(index: int) -> Callable[[Tensor], Tensor]:
    """1 if the class is predicted, otherwise 0."""
    return lambda logits: (logits.argmax(1) == index).to(logits.dtype)


if __name__ == "__main__":
    main()
