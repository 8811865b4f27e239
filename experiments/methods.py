"""All attribution methods on the bundled scenes: do they point at the object, and at the right one of two?

    python -m experiments.methods --model demo --scenes 40 --out docs/tables/methods_demo.md

Prints Markdown. A map hits an object when its highest patch holds at least one pixel of it. Options are the defaults.
Errors are standard errors over maps (ddof = 0). Methods with more than a second per map get a quarter of the scenes.
"""

import argparse
import time
from pathlib import Path

import torch
from tqdm import tqdm

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from experiments.demo_world import SEED, answers, hit, percent


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.methods", description=__doc__)
    parser.add_argument("--model", default="demo", help="a bundled model; default %(default)s")
    parser.add_argument("--scenes", type=int, default=40, help="scenes per kind; default %(default)s")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    model = cl.load_model(args.model)
    single = cl.demo_images("single", args.scenes, SEED)
    right = [scene for scene, guess in zip(single, answers(model, single), strict=True) if guess == scene.label]
    two = cl.demo_images("two", args.scenes, SEED)
    lines = [
        f"{args.model}; {len(right)} correctly classified single scenes of {args.scenes}; {args.scenes} two-object "
        f"scenes, each class asked in turn; seed {SEED}; in percent.",
        f"Seconds: one map, {torch.get_num_threads()} CPU thread(s), fp32.",
        f"torch {torch.__version__.split('+')[0]}, caap_lab {cl.__version__}.",
        "",
        "| method | scenes | single | two: asked | two: other | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, method in tqdm(METHODS.items()):
        if model.kind not in method.models:
            continue
        cl.attribute(model, right[0].image, name, right[0].label)  # first-time loading is not part of the method's time
        began = time.perf_counter()
        cl.attribute(model, right[0].image, name, right[0].label)
        share = 4 if time.perf_counter() - began > 1 else 1
        few, pairs = right[: len(right) // share], two[: len(two) // share]
        hits, asked, other = [], [], []
        began = time.perf_counter()
        for scene in few:
            m = cl.attribute(model, scene.image, name, scene.label)
            assert isinstance(m, cl.AttributionMap)
            hits.append(float(hit(m, scene.masks[scene.label], model)))
        seconds = (time.perf_counter() - began) / len(few)
        for scene in pairs if method.class_specific else []:
            for a, b in (scene.labels, scene.labels[::-1]):
                m = cl.attribute(model, scene.image, name, a)
                assert isinstance(m, cl.AttributionMap)
                asked.append(float(hit(m, scene.masks[a], model)))
                other.append(float(hit(m, scene.masks[b], model)))
        cells = (name, str(len(few)), percent(hits), percent(asked), percent(other), f"{seconds:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines)
    print(table)
    if args.out is not None:
        args.out.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
