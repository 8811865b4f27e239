"""torch's default number format and device, which users set for their own code, change nothing here."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import caap_lab as cl
from caap_lab.attribution.registry import METHODS
from caap_lab.attribution.transformer_attribution import transformer_attribution
from caap_lab.bench.run_cost import architecture
from caap_lab.models import float64
from caap_lab.models.device_dtype import check_format, exact, has_float64, placed
from caap_lab.variant import parse_variant
from helpers.methods import QUICK
from helpers.models import build, random_images
from helpers.targets import of_classes

MAKERS = {
    *("arange", "as_tensor", "empty", "eye", "full", "Generator", "linspace", "logspace", "normal", "ones", "rand"),
    *("randint", "randn", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros"),
}
WHOLE_NUMBERS = {"arange", "Generator", "randint", "randperm", "tril_indices", "triu_indices"}


@pytest.fixture
def restored() -> Iterator[None]:
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def test_every_new_tensor_names_its_format_and_device() -> None:
    package = Path(cl.__file__).parent
    missing = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner, name = node.func.value, node.func.attr
            if isinstance(owner, ast.Name) and owner.id == "torch" and name in MAKERS:
                needed = {"device"} if name in WHOLE_NUMBERS else {"device", "dtype"}
                if needed - {keyword.arg for keyword in node.keywords}:
                    missing.append(f"{path.relative_to(package)}:{node.lineno} torch.{name}")
    assert not missing


def all_maps(model: cl.HookedViT, images: torch.Tensor) -> dict[str, torch.Tensor]:
    options = {"target": 1, "progress": False}
    maps = {name: cl.attribute(model, images, name, **options, **QUICK[name]) for name in METHODS}
    maps["caap, noise"] = cl.caap(model, images, **options, blank="blurred_noise", seed=3)
    maps["caap, interpolated"] = cl.caap(model, images, **options, tail="interpolated")
    return {name: found.scores for name, found in maps.items()}


def test_the_defaults_change_no_map(restored: None) -> None:
    model = build("vit")
    images = random_images(model, 1)[0].clamp(-1, 1)
    expected = all_maps(model, images)
    for dtype, device in ((torch.float64, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "meta")):
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        for name, scores in all_maps(model, images).items():
            assert torch.equal(scores, expected[name]), f"{name} under {dtype} on {device}"


def everything_else(folder: Path) -> dict[str, object]:
    """Results of what is no map, in plain values."""
    scene = cl.demo_images("single", n=1, seed=0)[0]
    found: dict[str, object] = {}
    for name in ("demo", "demo-cnn", "demo-dinov2"):
        found[name] = cl.load_model(name).fingerprint
    model = cl.load_model("demo")
    found["photo"] = model.preprocess(scene.image).tolist()
    found["mask"] = model.preprocessing.mask(scene.masks[scene.label]).tolist()
    store = model.record(scene.image, "pattern", layers=1, progress=False)
    found["record"] = store["pattern", 1].tolist()

    def patch(layer: int) -> cl.Patch:
        return cl.Patch("resid_pre", layer, source=1.0, tokens=[2])

    found["patched"] = model.run_patched(scene.image, patch(2)).tolist()
    swept = cl.sweep(model, scene.image, patch, over={"layer": [0, 5]}, metric=1, progress=False)
    found["sweep"] = swept.values.tolist()
    mean = cl.blanks.mean_activations([scene.image])
    of_mean = cl.caap(model, scene.image, target=1, blank=mean, progress=False)
    found["blank"] = of_mean.scores.tolist()
    of_mean.save(folder / "map")
    found["saved"] = cl.AttributionMap.load(folder / "map").scores.tolist()
    curve = cl.insertion_deletion(model, scene.image, of_mean, progress=False)
    found["curve"] = str(curve)
    found["localisation"] = str(cl.localisation(of_mean, scene.masks[scene.label]))
    body, _ = architecture(parse_variant("vit_tiny_patch16_224"))
    found["architecture"] = str(next(body.parameters()).dtype)
    return found


@pytest.mark.parametrize(("dtype", "device"), [("float64", "cpu"), ("bfloat16", "cpu"), ("float32", "meta")])
def test_the_defaults_change_nothing_else(restored: None, dtype: str, device: str, tmp_path: Path) -> None:
    expected = everything_else(tmp_path)
    torch.set_default_dtype(getattr(torch, dtype))
    torch.set_default_device(device)
    found = everything_else(tmp_path)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert torch.get_default_dtype() == getattr(torch, dtype) and torch.get_default_device().type == device


def test_nothing_is_in_float64_on_a_device_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mps, cpu = torch.device("mps"), torch.device("cpu")
    assert has_float64(cpu) and not has_float64(mps)
    with pytest.raises(cl.InputError, match=r"Device 'mps' has no float64. Use dtype='float32'"):
        check_format(mps, torch.float64)
    check_format(cpu, torch.float64)
    weights = torch.rand(3, dtype=torch.float64)
    assert placed(weights, cpu).dtype == torch.float64 and exact(weights.float()).dtype == torch.float64
    monkeypatch.setattr("caap_lab.models.device_dtype.has_float64", lambda device: False)
    assert placed(weights, cpu).dtype == torch.float32 and exact(weights).device == cpu
    # Relevance, which needs float64, is computed on the CPU then.
    model = build("vit")
    images, target = random_images(model, 1), of_classes([1])
    expected = transformer_attribution(model, images, target)
    monkeypatch.setattr(float64, "has_float64", lambda device: False)
    assert torch.equal(transformer_attribution(model, images, target), expected)


def test_torchvision_and_timm_may_be_imported_first() -> None:
    done = subprocess.run([sys.executable, "-c", "import torchvision, timm, caap_lab"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
