"""The activation store: what is recorded, how it is found, and that nothing is lost on disk."""

import json
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import caap_lab as cl
from benchmarks.counting import peak_bytes
from caap_lab import ActivationStore, InputError
from caap_lab.activations import record as record_module
from helpers.models import build, random_images


def test_recorded_activations_equal_the_cache(family: str) -> None:
    model = build(family)
    images = random_images(model, 5)
    names = ["full_embed", "resid_pre", "pattern", "mlp.post", "ln_final.normalized", "logits"]
    store = model.record(images, names, batch_size=2, progress=False)
    with torch.no_grad():
        _, cache = model.run_with_cache(images, names_filter=list(store.shapes))
    assert len(store) == 5
    for hook in cache:
        assert torch.allclose(store[hook], cache[hook], atol=1e-5), hook
    assert store["resid_pre", 2].shape == (5, *model.activation_shape("resid_pre"))
    assert store["logits"].shape == (5, 7)


def test_only_what_was_asked_for_is_kept_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    ran = []
    run_block = type(model).run_block
    monkeypatch.setattr(type(model), "run_block", lambda self, layer, x: ran.append(layer) or run_block(self, layer, x))
    store = model.record(random_images(model, 2), ["resid_pre", "q"], layers=range(2), progress=False)
    assert store.names == [("resid_pre", 0), ("attn.q", 0), ("resid_pre", 1), ("attn.q", 1)]
    assert ran == [0, 1]
    assert store.nbytes == 2 * (2 * 17 * 24 + 2 * 17 * 24) * 4
    own = sum(store[name].untyped_storage().nbytes() for name in store.shapes)
    assert own == store.nbytes, "no view keeps a larger tensor alive"
    assert not model.has_hooks()


def test_format_and_indexing_by_image() -> None:
    model = build("vit")
    images = random_images(model, 4)
    store = model.record(images, "resid_post", dtype="float16", progress=False)
    assert store.dtype == torch.float16 == store["resid_post", 1].dtype
    assert torch.equal(store[2]["resid_post", 1], store["resid_post", 1][2:3])
    assert torch.equal(store[-1]["resid_post", 1], store["resid_post", 1][3:])
    assert len(store[1:3]) == 2 and torch.equal(store[1:3]["resid_post", 0], store["resid_post", 0][1:3])
    assert ("resid_post", 1) in store and ("resid_pre", 1) not in store
    assert repr(store).splitlines() == [
        "ActivationStore: 4 images of vit_base_patch16_224, 12.8 KiB, float16",
        "  resid_post  0-3     [4, 17, 24]  12.8 KiB",
    ]
    assert "<td" in store._repr_html_() and "[4, 17, 24]" in store._repr_html_()


def test_saved_store_reads_back_whole_and_in_parts(tmp_path: Path) -> None:
    model = build("dinov2_registers")
    store = model.record(random_images(model, 3), ["resid_pre", "pattern"], layers=[1, 2], progress=False)
    path = store.save(tmp_path / "runs" / "store")
    opened = ActivationStore.open(path, model)
    assert opened.shapes == store.shapes and len(opened) == 3
    for hook in store.shapes:
        assert torch.equal(opened[hook], store[hook])
    assert torch.equal(opened[1]["pattern", 2], store["pattern", 2][1:2])
    store.save(path)  # an older store there is replaced
    assert not list(path.parent.glob(".*")), "no leftovers"
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}


def test_recording_to_disk_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    images = random_images(model, 7)
    memory = model.record(images, ["resid_pre"], progress=False)
    monkeypatch.setattr(record_module, "SHARD_BYTES", 3 * memory.nbytes // 7)
    disk = model.record(images, ["resid_pre"], out=tmp_path / "store", batch_size=2, progress=False)
    assert [shard.stop for shard in disk.shards] == [3, 3, 1]
    assert torch.allclose(disk["resid_pre", 3], memory["resid_pre", 3], atol=1e-6)
    assert torch.equal(disk[2:5]["resid_pre", 3], disk["resid_pre", 3][2:5])


def test_a_batch_may_fill_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    images = random_images(model, 5)
    memory = model.record(images, ["resid_pre", "logits"], batch_size=4, progress=False)
    monkeypatch.setattr(record_module, "SHARD_BYTES", memory.nbytes // 5)
    disk = model.record(images, ["resid_pre", "logits"], out=tmp_path / "store", batch_size=4, progress=False)
    assert [shard.stop for shard in disk.shards] == [1] * 5 and list(disk.shapes) == list(memory.shapes)
    assert all(torch.equal(disk[hook], memory[hook]) for hook in memory.shapes)


def test_recording_holds_activations_once() -> None:
    model = build("vit")
    images = random_images(model, 16)
    with torch.no_grad():
        forward = peak_bytes(lambda: model(images))
    names = ["resid_pre", "resid_mid", "resid_post", "q", "k", "v", "z", "attn_out", "mlp_out"]
    found: list[cl.ActivationStore] = []
    held = peak_bytes(lambda: found.append(model.record(images, names, progress=False)))
    assert held <= found[0].nbytes + 1.2 * forward < 1.5 * found[0].nbytes


def test_a_store_belongs_to_its_model(tmp_path: Path) -> None:
    model, other = build("vit"), build("deit3")
    image = random_images(model, 1)
    store = model.record(image, "resid_pre", progress=False)
    path = store.save(tmp_path / "store")
    with pytest.raises(InputError, match="recorded with vit_base_patch16_224"):
        ActivationStore.open(path, other)
    with pytest.raises(InputError, match="cannot be used with"):
        other.run_patched(image, cl.Patch("resid_pre", [0], source=store))


def test_what_is_not_there_is_named() -> None:
    model = build("vit")
    store = model.record(random_images(model, 2), ["resid_pre", "ln1.normalized", "ln2.normalized"], progress=False)
    for key, message in [
        (("resid_post", 1), r"holds resid_pre \(layers 0-3\), ln1.normalized"),
        (("resid_pre", 4), "not in this store"),
        ("resid_pre", r"of every layer; give the layer, as in \['resid_pre', 0\]"),
        (("normalized", 1), "could be any of"),
        (2, "Image 2 is not in this store of 2"),
        (slice(0, 2, 2), "steps of one"),
    ]:
        with pytest.raises(InputError, match=message):
            store[key]


def test_bad_requests_are_refused_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = build("vit")
    images = random_images(model, 2)
    (tmp_path / "thesis.tex").write_text("")
    monkeypatch.setattr(type(model), "run_block", lambda *a: pytest.fail("the model ran"))
    for arguments, message in [
        ({"names": "resid_per"}, "Nearest"),
        ({"names": []}, "No names"),
        ({"names": "resid_pre", "layers": [9]}, "layers 0 to 3"),
        ({"names": "resid_pre", "dtype": "int8"}, "not one of float32"),
        ({"names": "resid_pre", "batch_size": 0}, "batch_size"),
        ({"names": "resid_pre", "out": tmp_path}, "not just an activation store"),
    ]:
        with pytest.raises(InputError, match=message):
            model.record(images, progress=False, **arguments)
    with pytest.raises(InputError, match="No images"):
        model.record([], "resid_pre", progress=False)


def test_size_is_checked_against_memory_and_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = build("vit")
    images = random_images(model, 2)
    store = model.record(images, "resid_pre", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(record_module.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})())
        with pytest.raises(InputError, match="use dtype='float16', or record to disk"):
            model.record(images, "resid_pre", progress=False)
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match=r"has 0\.0 MiB free"):
        store.save(tmp_path / "store")
    with pytest.raises(InputError, match=r"has 0\.0 MiB free"):
        model.record(images, "resid_pre", out=tmp_path / "store", progress=False)
    assert not list(tmp_path.iterdir())


def test_negative_layers_count_from_the_last_of_the_model(tmp_path: Path) -> None:
    model = build("vit")
    store = model.record(random_images(model, 2), "resid_pre", layers=[1, 3], progress=False)
    assert torch.equal(store["resid_pre", -1], store["resid_pre", 3]) and ("resid_pre", -2) not in store
    opened = ActivationStore.open(store.save(tmp_path / "store"))
    assert torch.equal(opened["resid_pre", -1], store["resid_pre", 3])
    with pytest.raises(InputError, match="of layer 2 is not in this store, which has it for layers 1, 3"):
        store["resid_pre", -2]
    with pytest.raises(InputError, match="Layer -5 does not exist: this model has 4 layers"):
        store["resid_pre", -5]
    with pytest.raises(InputError, match="does not know the number of layers"):
        replace(store, n_layers=None)["resid_pre", -1]


def test_damaged_stores_are_refused(tmp_path: Path) -> None:
    model = build("vit")
    path = model.record(random_images(model, 2), "resid_pre", progress=False).save(tmp_path / "store")
    shard = next(path.glob("*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        ActivationStore.open(path)["resid_pre", 0]
    shard.unlink()
    with pytest.raises(InputError, match="lacks shard"):
        ActivationStore.open(path)
    index = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps({**index, "format": 99}))
    with pytest.raises(InputError, match="format 99"):
        ActivationStore.open(path)
    (path / "store.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        ActivationStore.open(path)
    with pytest.raises(InputError, match="not an activation store"):
        ActivationStore.open(tmp_path)


def test_a_failed_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    images = random_images(model, 2)
    path = model.record(images, "resid_pre", progress=False).save(tmp_path / "store")
    before = {p.name: p.read_bytes() for p in path.iterdir()}

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model), "run_block", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.record(images, "resid_pre", out=path, progress=False)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    assert not model.has_hooks()


FULL_DISK = """
import resource, signal, sys, torch
sys.path.insert(0, "tests")
from helpers.models import build, random_images
import caap_lab as cl
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = build("vit")
store = model.record(random_images(model, 40), ["resid_pre", "pattern"], progress=False)
found = cl.caap(model, random_images(model, 1), 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # as a disk that is full after 2,000 bytes
for save in (lambda: store.save(sys.argv[1]), lambda: found.save(sys.argv[2])):
    try:
        save()
    except OSError as error:
        print("refused:", type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_full_disk_harms_nothing_that_was_there(tmp_path: Path) -> None:
    model = build("vit")
    store = model.record(random_images(model, 1), "resid_pre", progress=False).save(tmp_path / "store")
    saved = cl.caap(model, random_images(model, 1), 0).save(tmp_path / "map.safetensors")
    before = {p: p.read_bytes() for p in [*store.iterdir(), saved]}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(store), str(saved)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.count("refused:") == 2, done.stdout + done.stderr
    assert {p: p.read_bytes() for p in before} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.safetensors", "store"]
    assert ActivationStore.open(store, model)["resid_pre", 0].shape == (1, 17, 24)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2000 and signal.SIGXFSZ
