"""Adapters of PEFT inside a model of transformers: the twin has them merged, as they compute now."""

from typing import Any

import peft
import pytest
import torch

from caap_lab import InputError
from caap_lab.models.twins import timm_twin
from helpers.originals import build_original

pytestmark = [
    pytest.mark.xdist_group("transformers"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # PEFT asks for it
]


@pytest.mark.parametrize("dora", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_live_adapters_are_merged_as_they_are_now(dora: bool) -> None:
    original = build_original("vit")
    images = torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    plain = original(images).logits.detach()
    config = peft.LoraConfig(
        r=3, target_modules=["q_proj", "v_proj", "fc1"], modules_to_save=["classifier"], init_lora_weights=False
    )
    config.use_dora = dora
    adapted: Any = peft.get_peft_model(original, config).eval()
    with torch.no_grad():
        adapted.base_model.model.classifier.modules_to_save["default"].weight.mul_(2)

    def check(tolerance: float = 1e-5) -> torch.Tensor:
        twin = timm_twin(adapted.base_model.model)
        assert twin is not None
        with torch.no_grad():
            expected = adapted(images).logits
            torch.testing.assert_close(
                twin.model(images), expected, atol=tolerance * float(expected.abs().max()), rtol=0
            )
        return expected

    live = check()
    assert (live - plain).abs().max() > 0.1 * plain.abs().max()
    with adapted.disable_adapter():
        torch.testing.assert_close(check(), plain)
    adapted.merge_adapter()
    check()
    adapted.unmerge_adapter()
    assert torch.allclose(check(), live, rtol=1e-4, atol=1e-5)  # the adapters themselves are still there
    for name, parameter in adapted.named_parameters():  # as PEFT keeps adapters of a model in half: in float32
        if "lora" not in name:
            parameter.data = parameter.data.bfloat16()
    images = images.bfloat16()
    twin = timm_twin(adapted.base_model.model)
    assert twin is not None and next(twin.model.parameters()).dtype == torch.bfloat16


def test_an_adapter_that_the_model_passes_by_is_noticed() -> None:
    original = build_original("torchvision")  # whose attention reads out_proj.weight, and not what out_proj gives
    config = peft.LoraConfig(r=3, target_modules=["out_proj"], init_lora_weights=False)
    adapted: Any = peft.get_peft_model(original, config).eval()
    with pytest.raises(InputError, match="what leaves block 0"):
        timm_twin(adapted.base_model.model)
