"""One object against another: does a CLIP model's map for a prompt lie on that prompt's object?

    python -m experiments.prompts --model "CLIP=vit_base_patch16_clip_quickgelu_224.openai:checkpoint=PATH,head=PATH" \
        --pairs PATH --run runs/prompts --out docs/tables/prompts.md --figures docs/images

The head is a file of text embeddings, see `cl.save_zero_shot_head`. The folder holds images/PHOTO.jpg and a mask
masks/PHOTO__CLASS.png for every object, CLASS as the head names it, with "_" for spaces. Of each photo with two such
objects or more, the two whose prompts the model scores highest are asked in turn. Prints Markdown and draws a figure.
Every map is saved in the run folder, so the same command resumes a stopped run; `--report` only makes the tables from
saved maps.
"""

import argparse
from pathlib import Path

import caap_lab as cl
from caap_lab.variant import parse_variant
from experiments.prompts_figure import draw
from experiments.prompts_maps import measure, pairs_of
from experiments.prompts_tables import report

METHODS = (
    "caap",
    "E-CAAP=caap:attention=cached",
    "grad_cam",
    "libra_ixg_plus",
    "libra_ixg_plus:start_layer=8",
    "legrad",
    "gen_att",
    "attn_lrp",
    "ixg_plus",
    "attcat",
    "grad_sam",
    "input_x_gradient",
    "mutex",
    "transformer_attribution",
    "grad_cam_plus_plus",
    "full_grad_plus",
    "tam",
)
"""Class-specific methods of up to 50 forward passes, quick ones first; not rollout, which ignores the prompt."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m experiments.prompts", description=__doc__)
    parser.add_argument("--model", required=True, metavar="LABEL=NAME:key=value")
    parser.add_argument("--pairs", type=Path, required=True, help="folder with images and masks")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="caap and others; default %(default)s")
    parser.add_argument("--run", type=Path, default=Path("runs/prompts"), help="folder where maps are saved")
    parser.add_argument(
        "--report", action="store_true", help="make no maps; report the methods whose maps are complete"
    )
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--figures", type=Path, help="also draw the figure into this folder")
    args = parser.parse_args()
    if "caap" not in args.methods:
        parser.error("--methods must have caap, with which the tables compare all others")
    spec = parse_variant(args.model)
    model = cl.load_model(spec.name, **spec.options)
    assert isinstance(model, cl.HookedViT), "attention is read, too"
    methods = [parse_variant(method) for method in args.methods]
    measured = measure(model, pairs_of(model, args.pairs), methods, args.run, only_kept=args.report)
    text = "\n".join(report(measured, spec.label)) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.figures is not None:
        args.figures.mkdir(parents=True, exist_ok=True)
        draw(measured, args.figures / "prompts")


if __name__ == "__main__":
    main()
