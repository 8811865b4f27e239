"""Hashes that files hold stay as they were: of bundled models, of tensors, and of what names of caap_lab stand for."""

import functools
from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab.attribution.registry import fingerprint_of
from caap_lab.digests.code import code_digest
from caap_lab.digests.hashing import hex_digest, pieces_digest
from caap_lab.digests.python_code import lies_in_library, recorded_module
from caap_lab.digests.tensors import named_tensors_digest, raw_bytes, tensor_digest

FINGERPRINTS = {
    "demo": "4eeb078b42ff856c-ec158326",
    "demo-clip": "6f129b955683e190-a0aff6c3",
    "demo-cnn": "85fbcde046209593-8c8e04d7",
    "demo-deit3": "60a7d515de40b323-a2838565",
    "demo-dinov2": "9849cd8885b9434d-b20a02cf",
    "demo-spurious": "5d6fd79b05c06cd8-ec158326",
}
FIRST_MODULES = {
    "ActivationStore": "store.store",
    "AttentionRegions": "diagnostics.attention_regions",
    "AttributionMap": "attribution.map",
    "BenchmarkResult": "bench.result",
    "CaapSweep": "sweeps.result",
    "CheckpointError": "errors",
    "CurveProtocol": "metrics.protocol",
    "HookedCNN": "hooked.cnn",
    "HookedMixer": "hooked.mixer",
    "HookedViT": "hooked.model",
    "ImageSet": "data.image_set",
    "InputError": "errors",
    "Patch": "patching.patch",
    "Preprocessing": "hooked.preprocess",
    "SweepResult": "patching.sweep",
    "ViTSpec": "hooked.spec",
    "attention_regions": "diagnostics.attention_regions",
    "attribute": "attribution.registry",
    "benchmark": "bench.run",
    "blanks": "context.blanks",
    "caap": "attribution.caap",
    "completeness_error": "attribution.completeness",
    "demo_images": "data.scenes",
    "insertion_deletion": "metrics.perturbation",
    "libragrad": "attribution.libragrad",
    "list_models": "hooked.load",
    "load_image": "hooked.images",
    "load_model": "hooked.load",
    "localisation": "metrics.localisation",
    "methods": "attribution.registry",
    "open_images": "data.open",
    "register": "attribution.registry",
    "run_patched": "patching.run",
    "save_zero_shot_head": "hooked.heads",
    "sweep": "patching.sweep",
    "sweep_blanks": "sweeps.sweeps",
    "sweep_contexts": "sweeps.sweeps",
    "sweep_cutoffs": "sweeps.sweeps",
    "sweep_neighbourhoods": "sweeps.sweeps",
    "sweep_ranges": "sweeps.sweeps",
    "sweep_scores": "sweeps.sweeps",
    "tokens": "hooked.tokens",
}
"""Where public names stood when hashes of code first named them."""


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprints_of_bundled_models_stay(name: str) -> None:
    assert cl.load_model(name).fingerprint == FINGERPRINTS[name]


@pytest.mark.parametrize("name", FIRST_MODULES)
def test_public_names_count_by_where_they_first_stood(name: str) -> None:
    thing = getattr(cl, name)
    module = thing.__module__ if hasattr(thing, "__module__") else thing.__name__
    assert recorded_module(module) == f"caap_lab.{FIRST_MODULES[name]}"


def test_a_methods_hash_stays() -> None:
    """Without a function of its own, whose bytecode changes with Python's version."""
    kept = {"weights": torch.arange(6.0).reshape(2, 3), "none": torch.empty(0, 3), "order": np.arange(4, dtype="int64")}
    compute = functools.partial(cl.load_image, kept, [1, 2.5, None, "text"], {b"b", 3}, cl.HookedViT)
    assert code_digest(compute, "It") == "279833032120437865552050"
    model = functools.partial(cl.attribute, cl.load_model("demo"))
    assert code_digest(model, "It", identity=fingerprint_of) == "f8e434e97ff0c2132a967f9d"


def test_decorated_functions_of_caap_lab_count_by_name() -> None:
    digests = {code_digest(functools.partial(function), "It") for function in (cl.load_model, cl.caap, cl.run_patched)}
    assert len(digests) == 3

    @functools.wraps(cl.load_model)
    def own(*args: Any) -> Any:
        return changed(*args)

    changed = abs
    first = code_digest(own, "It")
    changed = max
    assert code_digest(own, "It") != first


def test_hashes_of_bytes_and_tensors_stay() -> None:
    assert hex_digest("a", b"b", size=4) == hex_digest("ab", size=4) == "3ae897a7"
    assert pieces_digest(["a", b"b"]) == "37a6c24dff3292b242236318" != pieces_digest(["ab"])
    values = torch.arange(6.0).reshape(2, 3)
    assert (
        tensor_digest(values) == tensor_digest(values.T.contiguous().T) == "e8e22c0ba64bc33e" != tensor_digest(values.T)
    )
    assert named_tensors_digest("about", {"b": values, "a": torch.empty(0)}) == "3d13dc91b5c3efe6baa2b74f0069f663"
    complex_values = torch.complex(values, -values)
    assert raw_bytes(complex_values).tobytes() == complex_values.numpy().tobytes()
    assert raw_bytes(values.bfloat16()).nbytes == 12 and raw_bytes(torch.empty(0, 3)).nbytes == 0


def test_installed_packages_are_known_wherever_their_environment_lies() -> None:
    assert lies_in_library(torch.__file__) and lies_in_library(functools.__file__) and lies_in_library(cl.__file__)
    assert lies_in_library("/home/me/.local/lib/python3.11/site-packages/own/blur.py")
    assert lies_in_library("/usr/lib/python3/dist-packages/scipy/__init__.py")
    assert not lies_in_library(__file__)
