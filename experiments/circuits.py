"""Which heads carry the planted cue, and which a digit: find them, remove them, and compare with the predictions.

    python -m experiments.circuits --scenes 64 --out docs/tables/circuits.md

Two questions on the bundled world, both as logit differences. "cue": in scenes of one digit with a cue, the cue's class
against the digit's; the cue is blanked. "digit": in scenes of two digits, the class of one against that of the other;
the first is blanked. Heads are found on some scenes by a trace, and removed on others.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.data.scenes import CUE_CLASS
from caap_lab.models.load import bundled_models
from caap_lab.models.targets import Contrast
from caap_lab.statistics import sign_flip_p

QUESTIONS = ("cue", "digit")
FOUND_ON, MEASURED_ON = 1, 2
"""Seeds of the scenes."""
SHARE = 0.05
"""A head is named if it restores at least this fraction of the score's difference, at p < 0.05 / number of heads."""
DRAWS = 20
"""Number of random sets of as many other heads."""
Head = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Question:
    """Pairs of scenes in which the object decides, and the question about them."""

    clean: Float[Tensor, "pair 3 height width"]
    blanked: Float[Tensor, "pair 3 height width"]
    """The scenes without the object."""
    classes: list[tuple[int, int]]
    """The object's class and the other class of each pair."""

    @property
    def targets(self) -> list[Contrast]:
        """Why the object's class rather than the other?"""
        return [cl.contrast(*both) for both in self.classes]


def ask(model: cl.HookedViT, question: str, n: int, seed: int) -> Question:
    """The first n scenes in which the model predicts the object, and without it the other class."""
    if question == "cue":
        scenes = [scene for scene in cl.demo_images("spurious", 2 * n, seed) if scene.label != CUE_CLASS]
        classes = [(CUE_CLASS, scene.label) for scene in scenes]
        masks = [scene.cue for scene in scenes]
    else:
        scenes = cl.demo_images("two", 4 * n, seed)
        classes = [(scene.labels[0], scene.labels[1]) for scene in scenes]
        masks = [scene.masks[scene.label] for scene in scenes]
    clean = model.preprocess([scene.image for scene in scenes])
    blanked = cl.corrupt(model, clean, "blank", masks=masks)
    with torch.no_grad():
        answers = zip(model(clean).argmax(1).tolist(), model(blanked).argmax(1).tolist(), strict=True)
    led = [row for row, (both, of) in enumerate(zip(answers, classes, strict=True)) if both == of][:n]
    if len(led) < n:
        raise SystemExit(f"{model.model_name}: the object decides in {len(led)} scenes only, not in {n}.")
    return Question(clean[led], blanked[led], [classes[row] for row in led])


@dataclass(frozen=True, eq=False)
class Found:
    """Heads that carry the object, strongest first, and the effects of all heads."""

    heads: list[Head]
    trace: cl.Trace
    expected: Float[np.ndarray, "layer head"]
    """Change of the score when a head's output becomes that of the blanked scene, on these scenes."""
    together: float
    """The same for the named heads together."""


def find(model: cl.HookedViT, asked: Question, share: float = SHARE) -> Found:
    """Heads whose output alone restores the answer, from traces in both directions."""
    given = (model, asked.clean, asked.blanked, asked.targets)
    trace = cl.trace(*given, points="z", by="head", progress=False)
    noise = cl.trace(*given, points="z", by="head", direction="noise", progress=False)
    apart = trace.data["clean"].values - trace.data["corrupted"].values
    effect = (trace.values - trace.data["corrupted"].values[:, None, None]).mean(axis=0) / apart.mean()
    named = (effect >= share) & (trace.p < 0.05 / trace.p.size)
    order = np.argsort(-effect, axis=None, kind="stable")
    places = [np.unravel_index(place, effect.shape) for place in order if named.flat[place]]
    heads = [(int(layer), int(head)) for layer, head in places]
    expected = (noise.values - noise.data["clean"].values[:, None, None]).mean(axis=0)
    source = model.record(asked.blanked, ["z"], progress=False)
    together = float(take_out(model, asked, {"found": heads}, source).mean()) if heads else 0.0
    return Found(heads, trace, expected, together)


def take_out(
    model: cl.HookedViT, asked: Question, sets: dict[str, list[Head]], source: cl.ActivationStore
) -> Float[np.ndarray, "pair set"]:
    """Change of the score in the clean scenes when the heads of a set are replaced together."""

    def patches(heads: str) -> list[cl.Patch]:
        return [cl.Patch("z", layer, heads=[head], source=source) for layer, head in sets[heads]]

    return cl.sweep(
        model, asked.clean, patches, over={"heads": list(sets)}, metric=asked.targets, progress=False
    ).effect


def direct(model: cl.HookedViT, asked: Question) -> Float[np.ndarray, "pair layer head"]:
    """Change predicted by the decomposition if a head gets its mean: mean direct contribution minus its own."""
    here = cl.logit_attribution(model, asked.clean, asked.targets, by="head", progress=False).per_image
    classes = {str(label): cl.logit(label) for label in sorted({label for both in asked.classes for label in both})}
    shares = cl.logit_attribution(model, asked.blanked, classes, by="head", progress=False)
    mean = {name: shares.mean[..., place] for place, name in enumerate(classes)}
    return np.stack([mean[str(one)] - mean[str(other)] for one, other in asked.classes]) - here


def random_sets(model: cl.HookedViT, heads: Sequence[Head], draws: int = DRAWS) -> dict[str, list[Head]]:
    """Random sets of as many other heads as were found."""
    others = [head for head in np.ndindex(model.n_layers, model.spec.n_heads) if head not in heads]
    drawn = {}
    for seed in range(draws):
        chosen = np.random.default_rng(seed).choice(len(others), len(heads), replace=False)
        drawn[str(seed)] = [(int(others[place][0]), int(others[place][1])) for place in chosen]
    return drawn


def lines_of(model: cl.HookedViT, question: str, n: int) -> tuple[list[str], list[str], list[str]]:
    """Rows of the table of heads, of their table together, and of its comparison with random sets."""
    asked = ask(model, question, n, FOUND_ON)
    found = find(model, asked)
    label = f"| {question} | {model.model_name} |"
    if not found.heads:
        return [f"{label} none | | | | | |"], [], []
    measured = ask(model, question, n, MEASURED_ON)
    store = model.record(measured.blanked, ["z"], progress=False)
    mean = store.mean()
    said = direct(model, measured)
    apart = (found.trace.data["clean"] - found.trace.data["corrupted"]).values.mean()
    singles = {name_of(head): [head] for head in found.heads}
    alone, swapped = (take_out(model, measured, singles, source) for source in (mean, store))
    heads = []
    for place, (layer, head) in enumerate(found.heads):
        back = found.trace.values[:, layer, head] - found.trace.data["corrupted"].values
        cells = (
            name_of((layer, head)),
            f"{100 * back.mean() / apart:.0f}%",
            f"{found.expected[layer, head]:+.2f}",
            with_error(swapped[:, place]),
            with_error(said[:, layer, head]),
            with_error(alone[:, place]),
        )
        heads.append(f"{label} {' | '.join(cells)} |")
    together = take_out(model, measured, {"found": found.heads}, mean)[:, 0]
    drawn = take_out(model, measured, random_sets(model, found.heads), mean)
    score = found_score(model, measured)
    p = float(sign_flip_p(together - drawn.mean(axis=1), samples=10_000, seed=0))
    lower = (drawn.mean(axis=0) <= together.mean()).sum()
    joint = (
        ", ".join(map(name_of, found.heads)),
        with_error(score),
        f"{found.together:+.2f}",
        with_error(take_out(model, measured, {"found": found.heads}, store)[:, 0]),
        with_error(np.sum([said[:, layer, head] for layer, head in found.heads], axis=0)),
        with_error(together),
    )
    compared = (
        with_error(together),
        f"{100 * np.mean(score + together < 0):.0f}%",
        with_error(drawn.mean(axis=1)),
        f"{100 * np.mean(score[:, None] + drawn < 0):.0f}%",
        f"{lower} of {drawn.shape[1]}",
        f"{p:.1g}",
    )
    return heads, [f"{label} {' | '.join(joint)} |"], [f"{label} {' | '.join(compared)} |"]


def found_score(model: cl.HookedViT, asked: Question) -> Float[np.ndarray, " pair"]:
    """The logit difference in the clean scenes."""
    with torch.no_grad():
        logits = model(asked.clean).double().numpy()
    return np.array([row[one] - row[other] for row, (one, other) in zip(logits, asked.classes, strict=True)])


def name_of(head: Head) -> str:
    """ "3.2": head 2 of layer 3."""
    return f"{head[0]}.{head[1]}"


def with_error(values: Float[np.ndarray, " pair"]) -> str:
    """Mean and standard error."""
    return f"{values.mean():+.2f} ± {values.std() / len(values) ** 0.5:.2f}"


def table(n: int) -> str:
    """All measurements as Markdown."""
    lines = [
        f"Heads were found on {n} scenes (seed {FOUND_ON}) and removed on {n} others (seed {MEASURED_ON}). In all of "
        "them the model predicts the object's class, and the other one when the object is blanked. Score: "
        "logit difference of the two classes. The table has the heads whose output alone restores at least "
        f"{SHARE:.0%} of the score's difference (p < 0.05 over the number of heads). Changes of the score: with z "
        "replaced by that of the same scene with the object blanked, predicted by the trace of the first scenes and "
        "measured in the others; with z replaced by its mean over blanked scenes, predicted by the decomposition, "
        f"which has only the direct effect, and measured. Mean ± standard error over scenes (ddof 0). {describe()}.",
        "",
        "| object | model | head | restores | blanked: predicted | blanked: measured | mean: predicted, direct | "
        "mean: measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    sets, compared = [], []
    for name in sorted(bundled_models(), key=lambda name: name != "demo-spurious"):
        model = cl.load_model(name)
        if not isinstance(model, cl.HookedViT):
            continue
        question = "cue" if name == "demo-spurious" else "digit"
        rows, together, beside = lines_of(model, question, n)
        lines += rows
        sets += together
        compared += beside
        print("\n".join([*rows, *together, *beside]), flush=True)
    lines += [
        "",
        "All named heads together:",
        "",
        "| object | model | heads | score | blanked: predicted | blanked: measured | mean: predicted, direct | "
        "mean: measured |",
        "|---|---|---|---|---|---|---|---|",
        *sets,
        "",
        f"The same heads and {DRAWS} random sets of as many other heads, z replaced by its mean: the measured change "
        "of the score, and the fraction of scenes that flip, so that the other class has the higher logit. p: paired "
        "permutation test over scenes, against the mean of the random sets.",
        "",
        "| object | model | named heads | flipped | random sets | flipped | random sets with as large an effect | p |",
        "|---|---|---|---|---|---|---|---|",
        *compared,
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.circuits", description=__doc__)
    parser.add_argument("--scenes", type=int, default=64, help="for finding, and as many for measuring")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    args = parser.parse_args()
    found = table(args.scenes)
    print(found)
    if args.out is not None:
        args.out.write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
