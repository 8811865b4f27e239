"""The state in which a model runs: one thread at a time, evaluation mode, the model's own format; else a sentence."""

import copy
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import caap_lab as cl
from caap_lab import HookedCNN, HookedMixer, HookedViT, InputError, Patch
from caap_lab.attribution.completeness import completeness_error
from caap_lab.models.running import held
from helpers.models import build, random_images, timm_model

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def libra(model: HookedViT) -> Any:
    with cl.libragrad(model):
        return cl.attribute(model, IMAGES[0], "input_x_gradient", 0).scores


def a_map(name: str, **options: Any) -> Callable[[HookedViT], Any]:
    return lambda model: cl.attribute(model, IMAGES[0], name, 0, **options).scores


def curves(model: HookedViT) -> Any:
    m = cl.attribute(model, IMAGES[0], "rollout", 0)
    return cl.insertion_deletion(model, IMAGES[0], m, protocol="mutex").insertion_curve


def a_sweep(model: HookedViT) -> Any:
    found = cl.sweep(
        model, IMAGES, lambda layer: Patch("resid_pre", layer), over={"layer": [1, 2]}, metric=0, progress=False
    )
    return found.values


def read_logits(model: HookedViT) -> Any:
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: 2 * x)]), torch.no_grad():
        return model(IMAGES)


def plain(model: HookedViT) -> Any:
    with torch.no_grad():
        return model(IMAGES)


RUNS: dict[str, Callable[[HookedViT], Any]] = {
    "libragrad": libra,
    "caap": a_map("caap"),
    "removal": a_map("caap", direction="remove"),
    "cached attention": a_map("caap", attention="cached"),
    "rollout": a_map("rollout"),
    "grad_cam": a_map("grad_cam"),
    "transformer_attribution": a_map("transformer_attribution"),
    "rise": a_map("rise", samples=4),
    "insertion_deletion": curves,
    "completeness_error": lambda model: completeness_error(model, IMAGES[0], 0),
    "record": lambda model: model.record(IMAGES, "resid_pre", progress=False)["resid_pre", 2],
    "run_patched": lambda model: model.run_patched(IMAGES, Patch("resid_pre", 1)).detach(),
    "sweep": a_sweep,
    "run_with_cache": lambda model: model.run_with_cache(IMAGES)[1]["blocks.2.hook_resid_pre"].detach(),
    "hooks": read_logits,
    "plain": plain,
}


def in_two_threads(model: HookedViT, first: Callable[[HookedViT], Any], second: Callable[[HookedViT], Any]) -> Any:
    """Both results, where the second began when the first was in the middle of the model."""
    inside, done = threading.Event(), threading.Event()
    found: dict[str, Any] = {}

    class Gate(TorchFunctionMode):
        """Stops the first at its first LayerNorm."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "layer_norm" in func.__name__ and not inside.is_set():
                inside.set()
                done.wait(0.1)  # as the second has to wait for the model, it is not done before this is over
            return func(*args, **(kwargs or {}))

    def run(name: str, function: Callable[[HookedViT], Any]) -> None:
        try:
            if name == "second":
                inside.wait()
            with Gate() if name == "first" else nullcontext():
                found[name] = function(model)
        except Exception as error:
            found[name] = error
        finally:
            inside.set()
            done.set() if name == "second" else None

    one = threading.Thread(target=run, args=("first", first))
    two = threading.Thread(target=run, args=("second", second))
    for thread in (one, two):
        thread.start()
    for thread in (one, two):
        thread.join()
    return found["first"], found["second"]


@pytest.mark.parametrize("name", RUNS)
def test_two_threads_on_one_model(name: str) -> None:
    model = build("vit")
    with torch.random.fork_rng():
        expected = {run: np.asarray(RUNS[run](model)) for run in (name, "libragrad", "hooks")}
        for order in ((name, "libragrad"), ("libragrad", name), ("hooks", name), (name, "hooks")):
            found = in_two_threads(model, *(RUNS[run] for run in order))
            for run, result in zip(order, found, strict=True):
                assert not isinstance(result, Exception), (order, result)
                assert np.array_equal(np.asarray(result), expected[run]), order
    assert not model.has_hooks()


def test_two_hooked_models_around_one_timm_model_share_its_lock() -> None:
    model = build("vit")
    again = HookedViT(model.vit)
    expected = np.asarray(a_map("grad_cam")(model))
    found = in_two_threads(model, libra, lambda _: a_map("grad_cam")(again))
    assert np.array_equal(np.asarray(found[1]), expected)


def test_a_copied_model_is_free() -> None:
    model = build("vit")
    with held(model):
        copied = copy.deepcopy(model)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(plain(copied)))
        thread.start()
        thread.join(60)
        assert len(found) == 1
    assert torch.equal(found[0], plain(model))


@pytest.mark.parametrize("name", RUNS)
def test_what_a_run_leaves_with_the_model_can_be_copied(name: str) -> None:
    """A tensor that belongs to a gradient's graph could not, and would keep the graph."""
    model = build("vit")
    RUNS[name](model)
    assert torch.equal(plain(copy.deepcopy(model)), plain(model))


def test_a_long_wait_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caap_lab.models.lock._SECONDS_UNTIL_WARNING", 0.01)
    model = build("vit")
    release, taken, found = threading.Event(), threading.Event(), []

    def hold() -> None:
        with held(model):
            taken.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    monkeypatch.setattr("warnings.warn", lambda text, **options: (found.append(text), release.set()))
    plain(model)
    thread.join()
    assert len(found) == 1 and "in use by another thread" in found[0] and "copy.deepcopy(model)" in found[0]


STATEFUL = {name: RUNS[name] for name in RUNS if name not in ("run_with_cache", "hooks", "plain")}


@pytest.mark.parametrize("name", STATEFUL)
def test_training_mode_is_refused_everywhere(name: str) -> None:
    model = HookedViT(timm_model("vit_base_patch16_224", proj_drop_rate=0.5))
    model.vit.blocks[1].mlp.drop1.train()  # one module is enough
    with pytest.raises(InputError, match=r"call model\.eval\(\)"):
        RUNS[name](model)


@pytest.mark.parametrize("name", STATEFUL)
def test_autocast_and_inference_mode_change_nothing(name: str) -> None:
    model = build("vit")
    expected = np.asarray(RUNS[name](model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(np.asarray(RUNS[name](model)), expected)
    with torch.inference_mode():
        found = RUNS[name](model)
    assert np.array_equal(np.asarray(found), expected)
    assert not isinstance(found, torch.Tensor) or not found.is_inference()


def test_images_made_in_inference_mode() -> None:
    model = build("vit")
    with torch.inference_mode():
        images = IMAGES.clone()
    for name in ("grad_cam", "smoothgrad", "caap", "libra_ixg_plus"):
        expected = cl.attribute(model, IMAGES, name, 0, progress=False)
        found = cl.attribute(model, images, name, 0, progress=False)
        assert all(torch.equal(a.scores, b.scores) for a, b in zip(found, expected, strict=True))


def test_a_model_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = HookedViT(timm_model("vit_base_patch16_224"))
    assert cl.caap(model, IMAGES[0], 0).fingerprint == model.fingerprint
    with pytest.raises(InputError, match=r"created under torch\.inference_mode\(\)"):
        cl.attribute(model, IMAGES[0], "grad_cam", 0)


def test_the_way_out_of_the_refusal_of_hooks_works() -> None:
    model = build("vit")
    model.add_perma_hook("blocks.0.hook_resid_pre", lambda x, hook: x)
    with pytest.raises(InputError, match=r"call model\.reset_hooks\(including_permanent=True\) first"):
        cl.caap(model, IMAGES[0], 0)
    model.reset_hooks(including_permanent=True)
    model.add_hook("hook_embed", lambda x, hook: x)
    handle = model.vit.norm.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(InputError, match=r"reset_hooks\(\) and remove the torch hook on vit\.norm with handle\.remove"):
        cl.caap(model, IMAGES[0], 0)
    model.reset_hooks()
    handle.remove()
    handle = model.hook_embed.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(
        InputError, match=r"intended; remove the torch hook on hook_embed with handle\.remove\(\) first"
    ):
        cl.caap(model, IMAGES[0], 0)
    handle.remove()
    assert cl.caap(model, IMAGES[0], 0).target == 0


def test_a_model_changed_after_it_was_wrapped() -> None:
    model = build("vit")
    model.vit.set_input_size(48)
    for run in (lambda: plain(model), lambda: model(torch.zeros(1, 3, 48, 48)), lambda: RUNS["record"](model)):
        with pytest.raises(InputError, match=r"48, 48.*Wrap it again: cl\.HookedViT\(model\.vit\)"):
            run()
    assert HookedViT(model.vit)(torch.zeros(1, 3, 48, 48)).shape == (1, 7)
    model = build("vit")
    model.vit.global_pool = "avg"
    with pytest.raises(InputError, match="pool was token and is avg"):
        cl.caap(model, IMAGES[0], 0)
    model = build("vit")
    model.vit.blocks = model.vit.blocks[:2].eval()
    with pytest.raises(InputError, match="n_layers was 4 and is 2"):
        cl.caap(model, IMAGES[0], 0)


def test_a_forward_that_would_not_run_is_refused() -> None:
    model = build("vit")
    model.vit.__class__ = type("Halved", (type(model.vit),), {"forward_head": lambda self, x, **options: x[:, 0] / 2})
    with pytest.raises(InputError, match="Halved overrides forward_head"):
        plain(model)
    model = build("vit")
    for part in (model.vit, model.vit.blocks[1], model.vit.blocks[1].attn, model.vit.blocks[1].mlp):
        part.forward = lambda x: x
        with pytest.raises(InputError, match="forward was replaced"):
            plain(model)
        del part.forward
    cnn = HookedCNN(timm.create_model("resnet18", num_classes=3))
    cnn.cnn.forward_features = lambda x: x
    with pytest.raises(InputError, match=r"model\.cnn\.forward_features was replaced"):
        cnn(torch.zeros(1, 3, 224, 224))
    mixer = HookedMixer(timm.create_model("mixer_s16_224", img_size=32, num_classes=3))
    mixer.mixer.blocks[0].forward = lambda x: x
    with pytest.raises(InputError, match=r"model\.mixer\.blocks\[0\]\.forward was replaced"):
        mixer(torch.zeros(1, 3, 32, 32))


def test_sources_of_a_patch_in_any_layout() -> None:
    model = build("vit")
    source = np.random.default_rng(0).normal(size=(1, 17, 24)).astype(np.float32)
    expected = model.run_patched(IMAGES, Patch("resid_pre", 1, source=source))
    for same in (source[:, ::-1].copy()[:, ::-1], source.astype(">f4"), source.astype(np.longdouble), source[0]):
        assert torch.equal(model.run_patched(IMAGES, Patch("resid_pre", 1, source=same)), expected)
    counts = np.arange(17 * 24).reshape(17, 24)
    of_counts = [Patch("resid_pre", 1, source=counts.astype(kind)) for kind in (np.uint16, np.int64, np.float64)]
    assert all(torch.equal(model.run_patched(IMAGES, p), model.run_patched(IMAGES, of_counts[1])) for p in of_counts)
    chosen = (np.arange(17) % 2 == 0)[::-1]
    assert model.run_patched(IMAGES, Patch("resid_pre", 1, chosen, source=source)).shape == (2, 7)
    with pytest.raises(InputError, match="must hold real numbers; this array is complex64"):
        model.run_patched(IMAGES, Patch("resid_pre", 1, source=source.astype(np.complex64)))


@pytest.mark.parametrize("dtype", ["float16", torch.float16])
def test_an_overflow_on_recording_is_refused(dtype: Any, tmp_path: Any) -> None:
    model = build("vit")
    with torch.no_grad():
        model.vit.blocks[2].mlp.fc2.weight *= 1e6
    with pytest.raises(InputError, match=r"blocks\.2\.hook_mlp_out reaches .* dtype='float16' .* dtype='float32'"):
        model.record(IMAGES, "mlp_out", dtype=dtype, progress=False)
    with pytest.raises(InputError, match="cannot hold"):
        model.record(IMAGES, "mlp_out", dtype=dtype, progress=False, out=tmp_path / "store")
    assert not (tmp_path / "store").exists()
    store = model.record(IMAGES, "mlp_out", layers=[0, 1], dtype=dtype, progress=False)
    assert store["mlp_out", 1].isfinite().all()
    assert model.record(IMAGES, "mlp_out", dtype="bfloat16", progress=False)["mlp_out", 2].isfinite().all()


def test_pixels_that_were_not_normalised_are_refused() -> None:
    model = build("vit")
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels = torch.from_numpy(photo).permute(2, 0, 1).float()
    dark = (pixels / 50).round()  # 0 to 5
    smooth = nn.functional.avg_pool2d(pixels, 3, 1, 1)
    for wrong in (pixels, dark, smooth, pixels.half(), torch.stack([IMAGES[0], pixels])):
        with pytest.raises(InputError, match="like pixels from 0 to 255"):
            model(wrong)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    normalised = (pixels / 255 - mean) / std
    assert model(normalised).shape == (1, 7)
    white, extreme = (torch.ones(3, 32, 32) - mean) / std, 1e3 * torch.randn(3, 32, 32)
    for right in (white, (white - 0.5).abs(), torch.zeros(3, 32, 32), torch.ones(3, 32, 32), extreme, 2 * white + 0.1):
        assert model(right).shape == (1, 7)


def test_random_images_are_inputs() -> None:
    model = build("vit")
    assert model(random_images(model, 2)).shape == (2, 7)
