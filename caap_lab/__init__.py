"""caap_lab: looking inside Vision Transformers, with CAAP at the centre.

Importing this package is quick: torch, timm and everything else heavy load when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from caap_lab import _torchvision

_torchvision.install()

__version__ = "0.1.0"

_NAMES = {
    "ActivationStore": "caap_lab.activations.store",
    "AttentionRegions": "caap_lab.diagnostics.attention_regions",
    "AttributionMap": "caap_lab.attribution.map",
    "BenchmarkResult": "caap_lab.bench.result",
    "CaapSweep": "caap_lab.sweeps.result",
    "CheckpointError": "caap_lab.errors",
    "CurveProtocol": "caap_lab.metrics.protocol",
    "HookedCNN": "caap_lab.models.cnn",
    "HookedMixer": "caap_lab.models.mixer",
    "HookedViT": "caap_lab.models.vit",
    "ImageSet": "caap_lab.data.image_set",
    "InputError": "caap_lab.errors",
    "Patch": "caap_lab.activations.patch",
    "Preprocessing": "caap_lab.models.preprocess",
    "SweepResult": "caap_lab.activations.sweep",
    "ViTSpec": "caap_lab.models.spec",
    "attention_regions": "caap_lab.diagnostics.attention_regions",
    "attribute": "caap_lab.attribution.registry",
    "benchmark": "caap_lab.bench.benchmark",
    "caap": "caap_lab.attribution.caap",
    "completeness_error": "caap_lab.attribution.completeness",
    "demo_images": "caap_lab.data.scenes",
    "insertion_deletion": "caap_lab.metrics.perturbation",
    "list_models": "caap_lab.models.load",
    "libragrad": "caap_lab.attribution.libragrad",
    "load_image": "caap_lab.models.images",
    "load_model": "caap_lab.models.load",
    "localisation": "caap_lab.metrics.localisation",
    "methods": "caap_lab.attribution.registry",
    "open_images": "caap_lab.data.open",
    "register": "caap_lab.attribution.registry",
    "run_patched": "caap_lab.activations.run_patched",
    "save_zero_shot_head": "caap_lab.models.heads",
    "sweep": "caap_lab.activations.sweep",
    "sweep_blanks": "caap_lab.sweeps.sweeps",
    "sweep_contexts": "caap_lab.sweeps.sweeps",
    "sweep_cutoffs": "caap_lab.sweeps.sweeps",
    "sweep_neighbourhoods": "caap_lab.sweeps.sweeps",
    "sweep_ranges": "caap_lab.sweeps.sweeps",
    "sweep_scores": "caap_lab.sweeps.sweeps",
}
_MODULES = {
    "blanks": "caap_lab.engine.blanks",
    "tokens": "caap_lab.models.tokens",
    "widgets": "caap_lab.widgets",
}
__all__ = ["__version__", *sorted([*_NAMES, *_MODULES])]

if TYPE_CHECKING:
    from caap_lab import widgets as widgets
    from caap_lab.activations.patch import Patch as Patch
    from caap_lab.activations.run_patched import run_patched as run_patched
    from caap_lab.activations.store import ActivationStore as ActivationStore
    from caap_lab.activations.sweep import SweepResult as SweepResult
    from caap_lab.activations.sweep import sweep as sweep
    from caap_lab.attribution.caap import caap as caap
    from caap_lab.attribution.completeness import completeness_error as completeness_error
    from caap_lab.attribution.libragrad import libragrad as libragrad
    from caap_lab.attribution.map import AttributionMap as AttributionMap
    from caap_lab.attribution.registry import attribute as attribute
    from caap_lab.attribution.registry import methods as methods
    from caap_lab.attribution.registry import register as register
    from caap_lab.bench.benchmark import benchmark as benchmark
    from caap_lab.bench.result import BenchmarkResult as BenchmarkResult
    from caap_lab.data.image_set import ImageSet as ImageSet
    from caap_lab.data.open import open_images as open_images
    from caap_lab.data.scenes import demo_images as demo_images
    from caap_lab.diagnostics.attention_regions import AttentionRegions as AttentionRegions
    from caap_lab.diagnostics.attention_regions import attention_regions as attention_regions
    from caap_lab.engine import blanks as blanks
    from caap_lab.errors import CheckpointError as CheckpointError
    from caap_lab.errors import InputError as InputError
    from caap_lab.metrics.localisation import localisation as localisation
    from caap_lab.metrics.perturbation import insertion_deletion as insertion_deletion
    from caap_lab.metrics.protocol import CurveProtocol as CurveProtocol
    from caap_lab.models import tokens as tokens
    from caap_lab.models.cnn import HookedCNN as HookedCNN
    from caap_lab.models.heads import save_zero_shot_head as save_zero_shot_head
    from caap_lab.models.images import load_image as load_image
    from caap_lab.models.load import list_models as list_models
    from caap_lab.models.load import load_model as load_model
    from caap_lab.models.mixer import HookedMixer as HookedMixer
    from caap_lab.models.preprocess import Preprocessing as Preprocessing
    from caap_lab.models.spec import ViTSpec as ViTSpec
    from caap_lab.models.vit import HookedViT as HookedViT
    from caap_lab.sweeps.result import CaapSweep as CaapSweep
    from caap_lab.sweeps.sweeps import sweep_blanks as sweep_blanks
    from caap_lab.sweeps.sweeps import sweep_contexts as sweep_contexts
    from caap_lab.sweeps.sweeps import sweep_cutoffs as sweep_cutoffs
    from caap_lab.sweeps.sweeps import sweep_neighbourhoods as sweep_neighbourhoods
    from caap_lab.sweeps.sweeps import sweep_ranges as sweep_ranges
    from caap_lab.sweeps.sweeps import sweep_scores as sweep_scores


def __getattr__(name: str) -> Any:
    # A submodule may carry the name of what it defines (caap_lab.engine); the public name wins.
    if name in _MODULES:
        value = import_module(_MODULES[name])
    elif name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    else:
        raise AttributeError(f"module 'caap_lab' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
