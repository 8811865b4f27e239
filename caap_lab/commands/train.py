"""`caap-lab train`: train a classifier from a Vision Transformer and photos with classes."""

import argparse
from pathlib import Path

HELP = "train a classifier from a ViT and photos with classes; run it again to continue where it stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a timm name, a bundled model or a folder, with options as NAME:key=value,key=value, such as "
        "vit_base_patch16_224:checkpoint=FILE",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="KIND:PATH",
        help="photos with classes, such as folder:PATH; pet:PATH and food101:PATH train on their training photos and "
        "test on their test photos",
    )
    parser.add_argument("--out", type=Path, required=True, help="the classifier's folder")
    parser.add_argument(
        "--mode",
        choices=("linear", "full"),
        default="linear",
        help="a linear classifier on the model's features (default), or all weights, starting from such a classifier",
    )
    parser.add_argument("--epochs", type=int, help="epochs of --mode full; 10 by default")
    parser.add_argument("--learning-rate", type=float, help="highest learning rate of --mode full; 3e-5 by default")
    parser.add_argument("--batch-size", type=int, help="photos that run at once; 64 by default")
    parser.add_argument("--device", help="such as cuda")
    parser.add_argument(
        "--workers", type=int, help="processes that read photos; with a GPU by default one per core, at most 16"
    )
    parser.add_argument("--seed", type=int, help="seed of held-out photos, order and crops; 0 by default")


def run(parsed: argparse.Namespace) -> int:
    """Train, and print the classifier's accuracy and how to open it."""
    from caap_lab.training.classifier import train_classifier

    names = ("mode", "epochs", "learning_rate", "batch_size", "device", "workers", "seed")
    given = {name: value for name in names if (value := getattr(parsed, name)) is not None}
    print(train_classifier(parsed.model, parsed.data, parsed.out, **given))
    return 0
