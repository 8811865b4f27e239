"""compile=True: the same numbers through compiled blocks, and eager ones where hooks or gradients need them.

One small model is compiled once for all tests, in float64, where rounding is far below the tolerance.
"""

import copy
import pickle
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

import caap_lab as cl
from caap_lab import HookedViT, InputError
from caap_lab.bench.identity import model_digest
from caap_lab.models import compiling
from caap_lab.models.base import HookedModel
from caap_lab.models.moved_neurons import move_neurons
from helpers.cnns import small_cnn
from helpers.mixers import small_mixer
from helpers.models import build, random_images, timm_model

TOLERANCE = 1e-12
"""As a fraction of the largest value; in float64."""

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, from its compiler


def why_not() -> str:
    """What torch.compile lacks on this machine; empty if it runs."""
    try:
        compiling.check_compiler(torch.device("cpu"))
    except InputError as error:
        return str(error)
    return ""


needs_compiler = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def eager() -> HookedViT:
    """A small random model."""
    return build("vit", torch.float64)


@pytest.fixture(scope="module")
def model(eager: Any) -> HookedModel:
    """The same timm model with compiled blocks."""
    return cl.wrap(eager.vit, compile=True)


@pytest.fixture(scope="module")
def images(eager: Any) -> Tensor:
    """Images for it."""
    return random_images(eager, 3)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many times each step ran compiled, by its name."""
    found: Counter[str] = Counter()
    compiled = compiling._compiled

    def counting(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            found[step.__name__] += 1
            return compiled(step)(*given)

        return call

    monkeypatch.setattr(compiling, "_compiled", counting)
    return found


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile that traces blocks and runs the trace without C++: as strict about what it can trace, but quick."""
    compiled = compiling._compiled
    compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    compiled.cache_clear()


def check(found: Tensor, expected: Tensor) -> None:
    apart = float((found.detach() - expected.detach()).abs().max() / expected.detach().abs().max())
    assert apart <= TOLERANCE, f"{apart:.1e} apart"


@needs_compiler
@torch.no_grad()
def test_every_block_runs_compiled(eager: Any, model: Any, images: Tensor, calls: Counter[str]) -> None:
    check(model(images), eager(images))
    assert calls == {"run_block": model.n_layers}
    assert not eager.compiled and eager.vit is model.vit  # the one beside it, of the same weights, is as before
    stream = model(images, stop_at_layer=2)
    check(model(stream, start_at_layer=2), eager(images))
    assert calls["run_block"] == 2 * model.n_layers


@needs_compiler
@torch.no_grad()
def test_other_numbers_of_images_and_rows_compile_nothing(model: Any, images: Tensor) -> None:
    for few in (images[:1], images[:2]):  # an image alone is a case of its own
        model(few), cl.caap(model, few, 1, progress=False)
    with torch.compiler.set_stance("fail_on_recompile"):
        for count in (1, 3, 5, 17):
            several = images[torch.arange(count) % len(images)]
            model(several)
            cl.caap(model, several, 1, progress=False, neighbourhood="cross1", chunk_size=7)
        cl.caap(build("vit", torch.float64).to(torch.float64), images, 1, progress=False)


@needs_compiler
@pytest.mark.parametrize("options", [{}, {"cutoff": 2, "tail": "shared"}, {"context": "free"}, {"direction": "remove"}])
def test_caap(options: dict[str, Any], eager: Any, model: Any, images: Tensor, calls: Counter[str]) -> None:
    both: Any = (cl.caap(one, images, 1, progress=False, **options) for one in (model, eager))
    for m, other in zip(*both, strict=True):
        check(m.all_scores, other.all_scores)
        assert m.fingerprint == other.fingerprint and m.settings == other.settings
    assert calls["run_block" if options.get("context") == "free" else "after_heads"] >= model.n_layers


@needs_compiler
def test_curves(eager: Any, model: Any, images: Tensor, calls: Counter[str]) -> None:
    m = cl.caap(eager, images[0], 1, progress=False)
    both: Any = (cl.insertion_deletion(one, images[0], m, progress=False) for one in (model, eager))
    found, expected = both
    check(torch.as_tensor(found.insertion_curve), torch.as_tensor(expected.insertion_curve))
    check(torch.as_tensor(found.deletion_curve), torch.as_tensor(expected.deletion_curve))
    assert calls["run_block"] >= model.n_layers


@needs_compiler
@torch.no_grad()
def test_blocks_with_hooks_run_eagerly(eager: Any, model: Any, images: Tensor, calls: Counter[str]) -> None:
    names = ["resid_pre", "q", "pattern", "post", "resid_post"]
    found, expected = (one.record(images, names, layers=[1, 3], progress=False) for one in (model, eager))
    for name in names:
        for layer in (1, 3):
            check(found[name, layer], expected[name, layer])
    assert calls == {"run_block": model.n_layers - 2}

    patch = cl.Patch("mlp_out", 2, tokens=cl.tokens.box(0, 0, 2, 2))
    calls.clear()
    check(model.run_patched(images, [patch]), eager.run_patched(images, [patch]))
    assert float((model.run_patched(images, [patch]) - eager(images)).abs().max()) > 1e-3
    assert calls["run_block"] == 2 * (model.n_layers - 1)

    calls.clear()
    handle = model.block(1).norm2.register_forward_hook(lambda module, inputs, output: 2 * output)
    twice = model(images), eager(images)
    handle.remove()
    check(*twice)
    assert float((twice[0] - model(images)).abs().max()) > 1e-3
    assert calls["run_block"] == 2 * model.n_layers - 1


@needs_compiler
@pytest.mark.parametrize("method", ["input_x_gradient", "libra_ixg_plus", "gen_att"])
def test_gradients_run_eagerly(method: str, eager: Any, model: Any, images: Tensor, calls: Counter[str]) -> None:
    both: Any = (cl.attribute(one, images, method, 1, progress=False) for one in (model, eager))
    for m, other in zip(*both, strict=True):
        assert torch.equal(m.scores, other.scores)
    model(images).sum().backward()
    assert calls == {} and all(p.grad is not None for p in model.block(0).parameters())
    model.zero_grad()


@torch.no_grad()
def test_changes_of_weights_and_modules_count(traced: None, calls: Counter[str]) -> None:
    model: Any = build("vit")
    images = random_images(model, 2)
    model.compiled = True
    before = model(images)
    for change in (
        lambda: model.block(1).mlp.fc2.weight.mul_(3),
        lambda: setattr(model.block(2).norm1, "eps", 0.5),
        lambda: setattr(model.block(0).mlp, "act", nn.ReLU()),
        lambda: setattr(model.block(3).mlp.fc1, "forward", lambda x: x.new_ones(*x.shape[:-1], 96)),
    ):
        change()
        found = model(images)
        assert torch.equal(found, HookedViT(model.vit)(images)) and float((found - before).abs().max()) > 1e-3
        before = found
    assert calls["run_block"] == 5 * model.n_layers


@needs_compiler
@torch.no_grad()
def test_counting_operations_runs_eagerly(eager: Any, model: Any, images: Tensor) -> None:
    counts = []
    for one in (model, eager):
        with FlopCounterMode(display=False) as counter:
            one(images)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
    check(model(images), eager(images))  # and it goes on compiled


@needs_compiler
def test_a_compiled_model_is_the_same_model(eager: Any, model: Any) -> None:
    assert model.fingerprint == eager.fingerprint and model_digest(model) == model_digest(eager)
    assert repr(model) == repr(eager) and list(model.state_dict()) == list(eager.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in eager.named_parameters()]


@needs_compiler
def test_copies_stay_compiled(model: Any) -> None:
    clip = cl.wrap(timm_model("vit_base_patch16_clip_quickgelu_224"), compile=True)
    assert isinstance(clip, HookedViT)
    prompts = {"a": torch.ones(7), "b": torch.arange(7.0)}
    for one in (
        *(copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.at_image_size(48), model.with_extra_tokens()),
        *(clip.with_prompts(prompts), cl.wrap(model), cl.wrap(small_mixer().mixer, compile=True)),
        *(cl.load_model("demo", compile=True), cl.load_model("demo", compile=True).to(torch.float64)),
    ):
        assert one.compiled
    assert not cl.load_model("demo").compiled and not cl.wrap(model.vit).compiled


@torch.no_grad()
def test_hooks_on_all_modules_run(traced: None, calls: Counter[str]) -> None:
    model: Any = build("vit")
    images = random_images(model, 2)
    seen: Counter[type] = Counter()
    found = []
    for model.compiled in (False, True):
        model(images)
        calls.clear(), seen.clear()
        handle = register_module_forward_hook(lambda module, inputs, output: seen.update([type(module)]))
        model(images)
        handle.remove()
        found.append(dict(seen))
    assert found[0] == found[1] and found[0][nn.Linear] > model.n_layers and not calls


@torch.no_grad()
def test_forward_derivatives_run_eagerly(traced: None, calls: Counter[str]) -> None:
    model: Any = build("vit", torch.float64)
    images = random_images(model, 1)
    found = []
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no forward derivative
        for model.compiled in (False, True):
            found.append(torch.func.jvp(model.forward, (images,), (torch.ones_like(images),))[1])
            with forward_ad.dual_level():
                dual = model(forward_ad.make_dual(images, torch.ones_like(images)))
                found.append(forward_ad.unpack_dual(dual).tangent)
    for one in found[1:]:
        check(one, found[0])
    assert float(found[0].abs().max()) > 1e-3 and not calls


@torch.no_grad()
@pytest.mark.parametrize("family", ["dinov3", "beit", "dinov2_swiglu", "mixer"])
def test_blocks_of_other_kinds(family: str, traced: None, calls: Counter[str]) -> None:
    model: Any = small_mixer() if family == "mixer" else build(family)
    images = random_images(model, 2)
    expected = model(images)
    model.compiled = True
    assert torch.equal(model(images), expected)  # without C++ the same kernels run
    assert calls.total() == model.n_layers


@torch.no_grad()
def test_moved_neurons_run_eagerly(traced: None, calls: Counter[str]) -> None:
    model: Any = build("vit").with_extra_tokens()
    move_neurons(model.vit, {1: {0: 1, 3: -1}})
    model.eval()
    images = random_images(model, 2)
    expected = model(images)
    model.compiled = True
    assert torch.equal(model(images), expected) and calls["run_block"] == model.n_layers - 1


class Branching(nn.Module):
    """A module that cannot be traced, since its steps depend on its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@torch.no_grad()
def test_a_block_that_cannot_be_compiled_is_an_error(traced: None) -> None:
    model: Any = build("vit")
    model.block(1).mlp.drop1 = Branching()
    model.eval()
    model.compiled = True
    with pytest.raises(InputError, match=r"torch\.compile failed on a block of this model: .*without compile=True"):
        model(random_images(model, 2))


def test_what_is_missing_is_said_before_work_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    body = timm_model("vit_base_patch16_224")
    with monkeypatch.context() as patch:
        patch.setenv("CXX", "no-such-compiler")
        for load in (lambda: cl.load_model("demo", compile=True), lambda: cl.wrap(body, compile=True)):
            with pytest.raises(InputError, match=r"compile=True needs a C\+\+ compiler .*CXX"):
                load()
    with monkeypatch.context() as patch:
        patch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
        with pytest.raises(InputError, match=r"Python's headers .*Python\.h"):
            compiling.check_compiler(torch.device("cpu"))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.delenv("CC", raising=False)
        patch.setattr(compiling, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"Triton .* and a C compiler \(gcc or clang"):
            compiling.check_compiler(torch.device("cuda"))


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning")
def test_models_that_are_not_compiled_are_refused(eager: Any) -> None:
    cnn = small_cnn("resnet18").cnn
    quantised = torch.ao.quantization.quantize_dynamic(timm_model("vit_base_patch16_224", depth=1).eval(), {nn.Linear})
    for load, message in (
        (lambda: cl.load_model("demo-cnn", compile=True), "a CNN: each of its blocks has sizes of its own"),
        (lambda: cl.wrap(cnn, compile=True), "a CNN"),
        (lambda: cl.wrap(nn.Sequential(cnn), grid=(4, 4), image_size=64, compile=True), "black box"),
        (lambda: cl.wrap(quantised, compile=True), "has quantised layers"),
        (lambda: cl.wrap(eager, compile=True), r"already wrapped, so compile=\.\.\. cannot be changed"),
        (lambda: cl.load_model("demo", compile="False"), "compile='False' is neither True nor False"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=message):
            load()
