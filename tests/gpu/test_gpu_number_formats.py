"""TF32 on a CUDA device, and what `doctor` measures there."""

import pytest
import torch
from scipy.stats import spearmanr

import caap_lab as cl
from caap_lab.bench.run_cost import architecture, measured
from caap_lab.variant import parse_variant
from helpers.on_gpu import needs_gpu

pytestmark = needs_gpu


def settings() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


@pytest.mark.parametrize("method", ["caap", "libra_ixg_plus"])
def test_tf32_is_near_float32_and_not_the_same(method: str) -> None:
    before, image = settings(), cl.demo_images("single", 1)[0].image
    maps = {}
    for dtype in ("float32", "tf32", "float32"):  # the last one, to see that nothing stays
        model = cl.load_model("demo", device="cuda", dtype=dtype)
        m = cl.attribute(model, image, method, 3, progress=False)
        scores = m.scores.cpu().flatten()
        assert dtype not in maps or torch.allclose(scores, maps[dtype], atol=1e-5 * float(scores.abs().max()))
        maps[dtype] = scores
        assert settings() == before
    assert spearmanr(maps["tf32"], maps["float32"]).statistic > 0.99
    assert not torch.equal(maps["tf32"], maps["float32"])


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
def test_time_and_memory_of_a_pass(precision: str) -> None:
    body, size = architecture(parse_variant("vit_tiny_patch16_224"))
    before = torch.cuda.memory_allocated()
    found = measured(body, size.image_size, "cuda", precision)
    assert found is not None and found.seconds > 0 and found.bytes_per_image is not None
    assert 2**18 < found.bytes_per_image < 2**28 and torch.cuda.memory_allocated() == before
