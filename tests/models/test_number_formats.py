"""Half precision and TF32."""

from threading import Barrier, Thread

import pytest
import torch

import caap_lab as cl
from caap_lab import InputError
from caap_lab.attribution import grad_cam_plus_plus as module
from caap_lab.attribution.registry import METHODS
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
