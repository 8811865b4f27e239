"""Sources that stand in for activations: means, other images' activations, noise, and what patches make of them."""

from pathlib import Path

import pytest
import torch

import caap_lab as cl
from caap_lab import InputError, Patch
from caap_lab.activations import record as record_module
from caap_lab.activations.replacements import drawn
from helpers.models import HookedViT, build, random_images

NAMES = ["resid_pre", "pattern", "z", "logits"]


@pytest.fixture(scope="module")
def model() -> HookedViT:
    return build("dinov2_registers")


@pytest.fixture(scope="module")
def store(model: HookedViT) -> cl.ActivationStore:
    return model.record(random_images(model, 6), NAMES, layers=[0, 2], progress=False)


def test_means_are_plain_means_in_float64_also_of_halves_read_shard_by_shard(
    model: HookedViT, store: cl.ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean = store.mean()
    assert len(mean) == 1 and mean.replacement == "mean over 6 images" and "mean over 6 images" in repr(mean)
    for key in (("resid_pre", 2), ("pattern", 0), "logits"):
        assert torch.allclose(mean[key][0], store[key].double().mean(0).float(), rtol=0, atol=1e-7)
    recorded = model.record(random_images(model, 6), ["z", "pattern"], layers=2, progress=False)
    inside = recorded.mean(("image", "token"))
    z, pattern = recorded["z", 2], recorded["pattern", 2]  # of the same run: another rounds otherwise
    assert inside["z", 2].shape == (1, *z.shape[1:]) and inside.replacement == "mean over 6 images and all their tokens"
    one = model.record(random_images(model, 1), ["z"], progress=False).mean(("image", "token"))
    assert one.replacement == "mean over 1 image and all its tokens"
    assert torch.allclose(inside["z", 2][0, 3], z.double().mean((0, 1)).float(), rtol=0, atol=1e-7)
    assert torch.allclose(inside["pattern", 2][0, :, 3], pattern.double().mean((0, 2)).float(), rtol=0, atol=1e-7)

    monkeypatch.setattr(record_module, "SHARD_BYTES", 3 * store.nbytes // 7)
    images, folder = random_images(model, 6), tmp_path / "halves"
    halves = model.record(images, NAMES, layers=[0, 2], dtype="float16", out=folder, progress=False)
    assert len(halves.shards) > 1 and halves.mean().dtype == torch.float16
    assert torch.equal(halves.mean()["resid_pre", 2], halves["resid_pre", 2].double().mean(0, keepdim=True).half())


def test_shuffled_gives_each_image_another_ones_activations(store: cl.ActivationStore, tmp_path: Path) -> None:
    for seed in range(4):
        other = store.shuffled(seed)
        distances = torch.cdist(other["resid_pre", 2].flatten(1), store["resid_pre", 2].flatten(1))
        assert sorted(distances.argmin(1).tolist()) == list(range(6)) and distances.min(1).values.max() == 0
        assert all(own != image for own, image in enumerate(distances.argmin(1).tolist()))
        assert torch.equal(store.shuffled(seed)["z", 0], other["z", 0])
    assert not torch.equal(store.shuffled(0)["z", 0], store.shuffled(1)["z", 0])
    saved = cl.ActivationStore.open(other.save(tmp_path / "shuffled"))
    assert torch.equal(saved["pattern", 0], other["pattern", 0]) and saved.replacement == other.replacement
    assert len(saved.shards) == 1 and torch.equal(saved[2:4]["z", 2], other["z", 2][2:4])
    many = drawn(store, [[]] * 15, seed=1)["logits"]
    assert len(many) == 15 and len(many[:6].unique(dim=0)) == 6
    with pytest.raises(InputError, match="swaps activations between images"):
        store[0].shuffled()


def test_noise_has_each_channels_mean_and_spread_whatever_is_read_of_it(model: HookedViT) -> None:
    store = model.record(random_images(model, 40), ["resid_pre", "z"], layers=1, progress=False)
    found = store.noise(3)
    rows, noise = store["resid_pre", 1].double(), found["resid_pre", 1].double()
    assert noise.shape == rows.shape and torch.equal(store.noise(3)["z", 1], found["z", 1])
    n = rows[..., 0].numel()
    mean, spread = rows.mean((0, 1)), rows.std((0, 1), correction=0)
    assert (((noise.mean((0, 1)) - mean) / spread).abs() < 5 / n**0.5).all()
    assert ((noise.std((0, 1)) / spread - 1).abs() < 5 / (2 * n) ** 0.5).all()
    assert torch.equal(found[7:9]["resid_pre", 1], found["resid_pre", 1][7:9])
    heads = found["z", 1].std((0, 1)) / store["z", 1].std((0, 1))
    assert (heads - 1).abs().max() < 0.15 and not torch.equal(store.noise(4)["z", 1], found["z", 1])


def test_class_means(store: cl.ActivationStore) -> None:
    labels = ["cat", "dog", "cat", "dog", "dog", "cat"]
    found, z = store.class_mean(labels), store["z", 2]
    assert torch.allclose(found["z", 2][[0, 1]], torch.stack([z[[0, 2, 5]].mean(0), z[[1, 3, 4]].mean(0)]), atol=1e-6)
    assert torch.equal(found["z", 2][5], found["z", 2][0]) and "2 classes" in found.replacement
    cat = store.class_mean(labels, "cat")
    assert len(cat) == 1 and cat.replacement == "mean over the 3 images of class cat"
    assert torch.equal(cat["z", 2][0], found["z", 2][2])
    assert store.class_mean(["cat"] + ["dog"] * 5, "cat").replacement == "mean over the 1 image of class cat"
    assert store.class_mean(["cat"] * 6).replacement == "mean over a class (6 images, 1 class)"
    others = store.class_mean(torch.tensor([0, 1, 0, 1, 1, 0]), of=[1, 0])
    assert torch.equal(others["z", 2], found["z", 2][[1, 0]])
    with pytest.raises(InputError, match="6 images"):
        store.class_mean(["cat"])
    with pytest.raises(InputError, match="emu"):
        store.class_mean(labels, "emu")


def test_replacements_are_sources_of_patches_of_their_own_model() -> None:
    model = build("siglip", torch.float64)
    images = random_images(model, 4)
    store = model.record(images, ["z"], progress=False)
    sources = [
        store.mean(),
        store.mean(("image", "token")),
        store.shuffled(),
        store.noise(),
        store.class_mean([0, 1] * 2),
    ]
    logits = [model.run_patched(images, Patch("z", 1, heads=[1], source=source)) for source in sources]
    for source, found in zip(sources, logits, strict=True):

        def by_hand(z: torch.Tensor, hook: object, rows: torch.Tensor = source["z", 1]) -> torch.Tensor:
            return torch.cat([z[:, :, :1], rows.expand_as(z)[:, :, 1:2], z[:, :, 2:]], dim=2)

        expected = model.run_with_hooks(images, fwd_hooks=[("blocks.1.attn.hook_z", by_hand)])
        assert (found - expected).abs().max() < 1e-10
    assert all((a - b).abs().max() > 1e-6 for i, a in enumerate(logits) for b in logits[:i])
    with pytest.raises(InputError, match="Record the images again"):
        build("vit").run_patched(images, Patch("z", 1, source=store.mean()))


def test_wrong_replacements_are_refused(store: cl.ActivationStore) -> None:
    with pytest.raises(InputError, match="over='head'"):
        store.mean("head")
    with pytest.raises(InputError, match="logits has no tokens"):
        store.mean(("image", "token"))
    with pytest.raises(InputError, match="seed"):
        store.noise(-1)
    with pytest.raises(InputError, match="over=3"):
        store.mean(3)  # type: ignore[arg-type]
    for labels in (None, "ab"):
        with pytest.raises(InputError, match="must be a sequence"):
            store.class_mean(labels)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Labels must be names or numbers"):
        store.class_mean([[1]] * len(store))  # type: ignore[list-item]
