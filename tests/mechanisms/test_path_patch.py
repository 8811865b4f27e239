"""Path patching: equal to its four runs in full, a known circuit found, sums of direct paths, screens, tables."""

from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl
from helpers.models import build, by_trait, random_images
from helpers.plain_paths import FourRuns

SENDERS = {"0.1": ("head", 0, 1), "mlp 1": ("mlp", 1), "attn 1": ("attn", 1), "embed": ("embed",)}
RECEIVERS: list[tuple[Any, list[tuple]]] = [
    ("3.1.k", [("head", 3, 1, "k")]),
    ("2.2", [("head", 2, 2, part) for part in "qkv"]),
    ("mlp 3", [("mlp", 3)]),
    ("attn 2", [("attn", 2)]),
    ("logits", [("logits",)]),
    (["1.2.v", "mlp 1", "3.0.q"], [("head", 1, 2, "v"), ("mlp", 1), ("head", 3, 0, "q")]),
]


def separate_biases(model: cl.HookedViT) -> None:
    """Let timm's BEiT call its layer qkv, on which the plain definition has its hooks."""
    for module in model.vit.modules():
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True


@pytest.mark.parametrize("family", by_trait())
def test_paths_equal_the_four_runs_in_full(family: str) -> None:
    model = build(family, torch.float64)
    separate_biases(model)
    clean, corrupted = random_images(model, 2), random_images(model, 2, seed=1)
    shared = family == "shared_keys"  # whose layers make keys and values of all heads at once
    receivers = [(one, plain) for one, plain in RECEIVERS if not shared or all(kind != "head" for kind, *_ in plain)]
    for direction, tokens, senders in (("noise", None, ["0.1", "mlp 1"]), ("denoise", [0, 3], ["attn 1", "embed"])):
        found = cl.path_patch(
            model, clean, corrupted, senders, [one for one, _ in receivers], 3,
            direction=direction, tokens=tokens, batch_size=8, progress=False,
        )  # fmt: skip
        base, other = (clean, corrupted) if direction == "noise" else (corrupted, clean)
        plain = FourRuns(model, base, other, tokens)
        for row, sender in enumerate(senders):
            for column, (_, nodes) in enumerate(receivers):
                expected = (plain.logits(SENDERS[sender], nodes) - plain.base_logits)[:, 3]
                np.testing.assert_allclose(
                    found.per_image[:, row, column], expected.numpy(), atol=1e-10, err_msg=f"{sender} {nodes}"
                )
