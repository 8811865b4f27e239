"""Half precision and TF32."""

from threading import Barrier, Event, Thread

import pytest
import torch

import caap_lab as cl
from caap_lab import InputError
from caap_lab.attribution import grad_cam_plus_plus as module
from caap_lab.attribution.registry import METHODS
from caap_lab.models import load, products
from caap_lab.models.device_dtype import all_finite
from caap_lab.models.running import running
from helpers.models import build, random_images

CONVOLUTIONS = torch.backends.cudnn.conv


def test_convolutions_run_in_the_models_own_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 is the default of torch; the user's setting is there again when all threads are done."""
    monkeypatch.setattr(CONVOLUTIONS, "fp32_precision", "tf32")
    both = Barrier(2, timeout=60)
    seen = []

    def compute(model: cl.HookedViT, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        both.wait()
        seen.append(CONVOLUTIONS.fp32_precision)
        return torch.zeros(len(images), *model.grid)

    monkeypatch.setitem(METHODS, "mine", None)
    cl.register("mine", compute)
    models = [build("vit"), build("vit")]
    image = random_images(models[0], 1)
    threads = [Thread(target=cl.attribute, args=(model, image, "mine", 0)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["ieee", "ieee"]
    assert CONVOLUTIONS.fp32_precision == "tf32"
    with pytest.raises(InputError):
        cl.attribute(models[0], image, "grad_cam", 0, version="none such")
    assert CONVOLUTIONS.fp32_precision == "tf32"


def test_powers_of_small_gradients_do_not_vanish_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grad-CAM++ takes third powers: those of a trained model's gradients, some 1e-4, are 0 in float16."""
    a = torch.tensor([[[[1.0, 2.0], [0.5, 1.5]], [[2.0, 1.0], [1.0, 0.5]]]])
    g = torch.tensor([[[[3e-4, 1e-4], [2e-4, -1e-4]], [[-2e-4, 1e-4], [5e-5, 3e-4]]]])
    images, targets = torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.long)

    def found(dtype: torch.dtype) -> torch.Tensor:
        monkeypatch.setattr(module, "cam_maps", lambda *_: (a.to(dtype), g.to(dtype)))
        return module.grad_cam_plus_plus(None, images, targets).double()  # type: ignore[arg-type]

    exact = found(torch.float64)
    assert (found(torch.float16) - exact).abs().max() < 5e-3 * exact.max()


# --- TF32, on a machine without it ---

PRODUCTS = torch.backends.cuda.matmul


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> cl.HookedViT:
    """A model in TF32, as if the CPU had it."""
    monkeypatch.setattr(products, "check_tf32", lambda device: None)
    monkeypatch.setattr(load, "check_tf32", lambda device: None)
    return cl.load_model("demo", dtype="tf32")


def settings() -> tuple[str, str]:
    return PRODUCTS.fp32_precision, CONVOLUTIONS.fp32_precision


def test_tf32_holds_while_the_model_runs_and_no_longer(tf32: cl.HookedViT) -> None:
    plain, before = cl.load_model("demo"), settings()
    assert (tf32.dtype, tf32.number_format, plain.number_format) == (torch.float32, "tf32", "float32")
    assert tf32.fingerprint != plain.fingerprint and tf32.at_image_size(128).number_format == "tf32"
    seen: dict[str, tuple[str, str]] = {}

    def look(name: str):
        return lambda x, hook: seen.update({name: settings()})

    image = random_images(plain, 1)
    for model, name in ((tf32, "tf32"), (plain, "float32")):
        with model.hooks([("hook_logits", look(f"{name} forward"))], [("blocks.0.hook_resid_pre", look(name))]):
            cl.attribute(model, image, "input_x_gradient", 3)
        model.run_with_hooks(image, fwd_hooks=[("hook_logits", look(f"{name} called"))])
    assert seen["tf32 forward"] == seen["tf32"] == seen["tf32 called"] == ("tf32", "tf32")  # "tf32": backward
    assert seen["float32 forward"] == seen["float32"] == (before[0], "ieee") and seen["float32 called"] == before
    with pytest.raises(InputError):
        cl.attribute(tf32, image, "grad_cam", 0, version="none such")
    assert settings() == before


def test_runs_in_different_formats_wait_for_each_other(tf32: cl.HookedViT) -> None:
    plain, before = cl.load_model("demo"), settings()
    began, order = Event(), []

    def other() -> None:
        began.set()
        with running(plain):
            order.append(("float32", settings()))

    with running(tf32):
        with running(plain):  # the same thread may
            assert settings() == (before[0], "ieee")
        thread = Thread(target=other)
        thread.start()
        assert began.wait(60)
        order.append(("tf32", settings()))
    thread.join(60)
    assert order == [("tf32", ("tf32", "tf32")), ("float32", (before[0], "ieee"))] and settings() == before


def test_tf32_is_refused_where_it_is_not() -> None:
    with pytest.raises(InputError, match="TF32 needs an NVIDIA GPU"):
        cl.load_model("demo", dtype="tf32")
    moved = cl.load_model("demo")
    products.mark_tf32(moved.vit)
    with pytest.raises(InputError, match="'cpu' is not one"):
        cl.attribute(moved, random_images(moved, 1), "grad_cam", 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_single_value_that_is_not_finite_is_found(dtype: torch.dtype, bad: float) -> None:
    """Wherever it stands: torch compares many values at once, and the last ones one by one."""
    values = torch.linspace(-3, 3, 2 * 67).view(2, 67).to(dtype)
    assert all_finite(values)
    for place in (0, 8, 66, 67, 130, 133):
        changed = values.clone()
        changed.view(-1)[place] = bad
        assert not all_finite(changed)
        assert not all_finite(changed.T)


def test_numbers_that_are_not_floating_point_are_finite() -> None:
    for dtype in (torch.int64, torch.uint16, torch.bool):
        assert all_finite(torch.ones(3, dtype=dtype))
    assert all_finite(torch.zeros(0))
    assert not all_finite(torch.tensor([complex(1, float("inf"))]))
