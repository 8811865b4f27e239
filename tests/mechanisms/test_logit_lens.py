"""The lens: every token through timm's own norm and head, and the model's logits after the last block."""

from pathlib import Path

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab import HookedViT, InputError
from helpers.models import build, random_images
from helpers.plain_parts import PlainParts


def plain_lens(model: HookedViT, resid: torch.Tensor) -> torch.Tensor:
    """Logits of each token as if all tokens were it, by timm's own pooling and head."""
    vit, head, n = model.vit, model.head, model.spec.n_tokens
    rows = vit.norm(resid).flatten(0, 1)[:, None].expand(-1, n, -1)
    if model.spec.pool == "cls+mean":
        logits = head.linear(rows[:, 0].repeat(1, model.class_layers + 1))
    elif "dist" in model.spec.prefix:
        logits = (vit.head(rows[:, 0]) + vit.head_dist(rows[:, 1])) / 2
    elif hasattr(vit, "pool"):
        logits = vit.head(vit.fc_norm(vit.pool(rows)))
    else:
        logits = vit.head(vit.fc_norm(rows[:, 0]))
    return logits.unflatten(0, resid.shape[:2])


def lens_of(model: HookedViT, images: torch.Tensor, **options: object) -> cl.LogitLens:
    return cl.logit_lens(model, images, progress=False, **options)  # type: ignore[arg-type]


def test_every_token_is_read_by_timms_own_norm_and_head(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2)
    lens = lens_of(model, images)
    plain = PlainParts(model, images)
    assert list(lens.axes) == ["layer", "token", "class"]
    with torch.no_grad():
        for layer in range(model.n_layers):
            assert np.abs(lens.per_image[:, layer] - plain_lens(model, plain.resid[layer]).numpy()).max() < 1e-10
        logits = model(images).numpy()
    last = lens.per_image[:, -1][:, list(model.spec.read_tokens)]
    if model.spec.pool == "token" and "dist" not in model.spec.prefix:
        assert np.abs(last[:, 0] - logits).max() < 1e-10
    elif model.spec.pool == "avg" and isinstance(model.vit.fc_norm, torch.nn.Identity):
        assert np.abs(last.mean(1) - logits).max() < 1e-10
    assert not model.has_hooks()


def test_prompts_of_clip_are_read_as_cosines() -> None:
    generator = torch.Generator().manual_seed(3)
    prompts = {name: torch.randn(7, generator=generator) for name in ("a cat", "a dog")}
    model = build("clip", torch.float64).with_prompts(prompts, logit_scale=10.0)
    images = random_images(model, 2)
    lens = lens_of(model, images)
    assert lens.axes["class"] == ["a cat", "a dog"] and np.abs(lens.per_image).max() <= 10
    with torch.no_grad():
        assert np.abs(lens.per_image[:, -1, 0] - model(images).numpy()).max() < 1e-10


def test_targets_ranks_and_top_classes_come_from_all_logits() -> None:
    model = build("dinov2_registers", torch.float64)
    images = random_images(model, 3)
    full = lens_of(model, images).per_image
    targets = {"one": 1, "difference": cl.contrast(1, 4), "sum": lambda rows: rows[:, 0] + rows[:, 3]}
    several = lens_of(model, images, target=targets, batch_size=2)
    assert list(several.axes) == ["layer", "token", "target"]
    expected = np.stack([full[..., 1], full[..., 1] - full[..., 4], full[..., 0] + full[..., 3]], axis=-1)
    assert np.abs(several.per_image - expected).max() < 1e-10
    ranks = (full > full[..., 1:2]).sum(-1) + 1
    assert (several.rank("one").per_image == ranks).all() and (lens_of(model, images).rank(1).per_image == ranks).all()
    with pytest.raises(InputError, match="sum is not a class"):
        several.rank("sum")
    each = lens_of(model, images, target=[0, 1, 2])
    assert np.abs(each.per_image - np.stack([full[i, ..., i] for i in range(3)])).max() < 1e-10
    assert (each.rank().per_image[1] == ranks[1]).all()
    top = each.top(2, layer=3, token=0)
    assert len(top) == 3 * 2 and top["class"][0] == f"class {full[0, 3, 0].argmax()}"
    assert top["logit"][1] == pytest.approx(np.sort(full[0, 3, 0])[-2])
    assert len(each.top(7)) == full[..., :7].size
    few = lens_of(model, images, classes=[4, 1], layers=[2, 0], tokens=[0, 6])
    assert few.axes == {"layer": [0, 2], "token": [0, 6], "class": ["class 4", "class 1"]}
    assert np.abs(few.per_image - full[:, [0, 2]][:, :, [0, 6]][..., [4, 1]]).max() < 1e-10


def test_maps_correlations_and_pictures() -> None:
    model = build("dinov2_registers")
    images = random_images(model, 2)
    lens = lens_of(model, images)
    assert np.abs(lens.map(2, 3).reshape(2, -1) - lens.per_image[:, 2, 5:, 3]).max() == 0
    itself = lens.correlation(list(lens.map(1, 3)), target=3)
    assert itself.per_image[:, 1] == pytest.approx([1, 1]) and (np.abs(itself.per_image) <= 1 + 1e-9).all()
    scores = cl.caap(model, images[:1], target=3)
    from scipy.stats import spearmanr

    of_map = lens_of(model, images[:1]).correlation(scores)
    expected = spearmanr(lens.map(2, 3)[0].ravel(), scores.scores.numpy().ravel()).statistic
    assert of_map.per_image[0, 2] == pytest.approx(expected, abs=1e-6)
    constant = lens_of(model, images[:1], target=3).correlation(torch.zeros(4, 4))
    assert np.isnan(constant.per_image).all()
    for shown in (lens, lens_of(model, images[:1], target=3, tokens=0)):
        assert set(shown._repr_mimebundle_()) == {"text/plain", "image/png"}
    assert "class 3" in lens.plot(target=3, image=1).get_title().replace("\n", " ")
    predicted = [f"lens on {model.class_names.name(int(k))}" for k in model(images).argmax(-1)]
    assert [lens.plot(image=i).get_title().replace("\n", " ").endswith(said) for i, said in enumerate(predicted)] == [
        True
    ] * len(images)
    with pytest.raises(cl.InputError, match="no image 9"):
        lens.plot(image=9)
    against = cl.logit_lens(model, images, target=cl.contrast(3, 1), progress=False)
    low, high = against.plot().images[0].get_clim()
    assert low == -high  # the two classes have a colour each
    own = lens_of(model, images, target=[3, cl.contrast(0, 2)])
    assert own.plot(image=1).get_title().replace("\n", " ").endswith("lens on class 0 rather than class 2")
    assert lens.plot(target=3, token=0).get_xlabel() == "layer (block)"


def test_the_class_token_of_a_trained_model_becomes_readable_and_patches_of_deit_do_not(
    deit_tiny: HookedViT, photos: list[Path]
) -> None:
    logits = lens_of(deit_tiny, photos[:20:10], layers=[0, 11]).per_image
    predicted = logits[:, -1, 0].argmax(-1)
    own = np.stack([of_image[..., [label]] for of_image, label in zip(logits, predicted, strict=True)])
    ranks = (logits > own).sum(-1) + 1
    assert np.median(ranks[:, 0, 0]) > 100  # the first block's class token
    assert np.median(ranks[:, -1, 1:]) > 100  # the head was never trained to read patches


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    images = random_images(model, 2)
    with pytest.raises(InputError, match="not both"):
        lens_of(model, images, target=1, classes=[1])
    for classes in ([], 3, "cat"):
        with pytest.raises(InputError, match="must be a list of classes"):
            lens_of(model, images, classes=classes)
    few = lens_of(model, images, classes=[1, 2], tokens=[0])
    for call, message in (
        (lambda: few.map(0, 1), "Not all patches"),
        (lambda: few.map(0, 3), "not among the stored classes"),
        (lambda: few.rank(1), "Not all classes"),
        (lambda: few.top(8), "from 1 to 7"),
        (lambda: few.correlation(torch.zeros(4, 4)), "1 maps were given for 2 images"),
        (lambda: few.plot(target=1, image=2), "no image 2"),
        (lambda: lens_of(model, images).correlation([torch.zeros(2, 2)] * 2, target=1), "grid"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    from caap_lab.mechanisms import lens as module

    class Full:
        available = 10

    monkeypatch.setattr(module.psutil, "virtual_memory", Full)
    with pytest.raises(InputError, match=r"need .* GiB .* Give target"):
        lens_of(model, images)
