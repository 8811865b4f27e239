"""What a name means, which files of a repository are read, and words where nothing is there."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch

import caap_lab as cl
from caap_lab.errors import CheckpointError, InputError
from caap_lab.models.hugging_face.folder import is_here, names_folder, open_folder
from caap_lab.models.load import check_name
from helpers.checkpoints import change_json, put_in_cache, save_transformers

pytestmark = pytest.mark.xdist_group("transformers")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of transformers with its image processor."""
    folder = tmp_path_factory.mktemp("saved") / "mine"
    save_transformers(folder)
    return folder


@pytest.fixture(scope="module")
def timm_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """timm's smallest ViT with 3 named classes, on images that are not square."""
    folder = tmp_path_factory.mktemp("saved") / "of_timm"
    torch.manual_seed(0)
    body = timm.create_model("test_vit", num_classes=3, img_size=(32, 48))
    names = {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "cat, tabby", "n2": "dog"}}
    timm.models.save_for_hf(body, folder, safe_serialization=True, model_config=names)
    return folder


def test_a_folder_that_timm_saved(timm_saved: Path, tmp_path: Path) -> None:
    model = cl.load_model(str(timm_saved))
    plain = timm.create_model(f"local-dir:{timm_saved}", pretrained=True).eval()
    images = torch.randn(2, 3, 32, 48)
    assert torch.equal(model(images), plain(images)) and model.model_name == "of_timm"
    assert model.class_names.names == ("cat, tabby", "dog", "n3") and model.target("n2") == 1
    assert model.preprocessing.image_size == (32, 48) and model.preprocessing.crop_pct == 0.95
    assert cl.load_model(timm_saved, image_size=(48, 32), class_names=["a", "b", "c"]).spec.grid == (3, 2)
    shutil.copytree(timm_saved, tmp_path / "older")
    state = cl.load_model(timm_saved).vit.state_dict()
    (tmp_path / "older" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "older" / "pytorch_model.bin")
    (tmp_path / "older" / "config.json").write_text(
        json.dumps({"architecture": "test_vit", "num_classes": 3, "mean": [0.1] * 3, "labels": ["a", "b", "c"]})
    )
    older = cl.load_model(tmp_path / "older", image_size=(32, 48))
    assert torch.equal(older(images), plain(images)) and older.preprocessing.mean == (0.1, 0.1, 0.1)
    assert older.class_names.names == ("a", "b", "c")


def test_a_wrapped_timm_model_of_transformers(tmp_path: Path) -> None:
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    torch.manual_seed(0)
    for settings in (None, {"mean": [0.2] * 3, "std": [0.3] * 3, "input_size": [3, 160, 160], "num_classes": 5}):
        config = TimmWrapperConfig(architecture="test_vit", num_labels=5, pretrained_cfg=settings)
        wrapped = TimmWrapperForImageClassification(config).eval()
        wrapped.save_pretrained(tmp_path)
        model = cl.load_model(tmp_path)
        images = torch.randn(1, 3, 160, 160)
        assert torch.equal(model(images), wrapped(images).logits) and model.class_names.name(0) == "class 0"
        assert model.preprocessing.mean == ((0.5,) * 3 if settings is None else (0.2,) * 3)


def test_a_cnn_and_what_timm_cannot_build(timm_saved: Path, tmp_path: Path) -> None:
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=4), tmp_path / "cnn", safe_serialization=True)
    model = cl.load_model(tmp_path / "cnn")
    assert model.kind == "cnn" and model.n_classes == 4
    shutil.copytree(timm_saved, tmp_path / "changed")
    first = (timm_saved / "config.json").read_text()
    for change, message in (
        ({"architecture": "vit_tiny_patch16_225"}, r"'vit_tiny_patch16_225', which timm does not have\. Nearest: "),
        ({"architecture": "swin_tiny_patch4_window7_224"}, r"changed: swin_.* its attention stays within windows"),
        ({"model_args": {"depth": 2}}, r"does not fit"),
        ({"model_args": {"checkpoint_path": "other.pth"}}, r"model_args in .* has unknown arguments: checkpoint_path"),
        ({"model_args": {"nonsense": 2}}, r"config\.json of .* cannot be used: TypeError.*nonsense"),
        ({"pretrained_cfg": {"label_offset": 1, "input_size": [3, 160, 160]}}, "label_offset"),
    ):
        (tmp_path / "changed" / "config.json").write_text(first)
        change_json(tmp_path / "changed" / "config.json", **change)
        with pytest.raises(InputError, match=message):
            cl.load_model(tmp_path / "changed")


def test_what_a_name_means(timm_saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(timm_saved, "test_vit")
    shutil.copytree(timm_saved, "models/a=b")
    shutil.copytree(timm_saved, "plain")
    shutil.copytree(timm_saved, "demo")
    assert not names_folder("test_vit") and not names_folder("demo") and not names_folder("")
    for name in ("./test_vit", "models/a=b", "plain", str(tmp_path / "plain"), "hf-hub:timm/test_vit", "gone/folder"):
        assert names_folder(name)
    assert cl.load_model("./test_vit").n_classes == cl.load_model("plain").n_classes == 3
    assert cl.load_model("models/a=b").model_name == "a=b"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cl.load_model("~/plain").model_name == "plain"
    monkeypatch.chdir("plain")
    assert cl.load_model(".").model_name == "plain"


BAD_NAMES: list[tuple[str, str]] = [
    (
        "google/vit",
        r"no folder google/vit\. If you mean the repository on the .* hub, write hf-hub:google/vit",
    ),
    ("timm/vit@main", r"write hf-hub:timm/vit@main"),
    ("/gone/folder", r"There is no folder /gone/folder\.$"),
    ("hf_hub:timm/vit", r"Write 'hf-hub:timm/vit' instead"),
    ("https://huggingface.co/timm/vit", r"Write 'hf-hub:timm/vit' instead"),
    ("local-dir:models/mine", r"Write 'models/mine' instead"),
    ("hf-hub:", "is not a repository of the Hugging Face hub; write hf-hub:OWNER/NAME"),
    ("hf-hub:a/b/c", "is not a repository"),
    ("hf-hub:../secrets", "is not a repository"),
    ("vit_tiny_patch16_225", "Nearest: .*vit_tiny_patch16_224"),
]


@pytest.mark.parametrize(("name", "message"), BAD_NAMES)
def test_names_that_mean_nothing_are_told_without_the_network(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *args, **kwargs: pytest.fail("network"))
    for ask in (check_name, cl.load_model):
        with pytest.raises(InputError, match=message):
            ask(name)


def test_folders_without_a_model_are_told(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json, .* found nothing\. Save the model with its config"):
        cl.load_model(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"found weights\.safetensors\. .* checkpoint="):
        cl.load_model(tmp_path)
    with pytest.raises(InputError, match=r"model\.safetensors is a file\. Give its folder"):
        cl.load_model(str(saved / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"is a folder; .* Or give the folder alone, load_model\(FOLDER\)"):
        cl.load_model("vit_tiny_patch16_224", checkpoint=saved)


# -- the hub -----------------------------------------------------------------------------------------------


def test_a_repository_in_the_cache_needs_no_network(
    saved: Path, timm_saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_cache(monkeypatch, tmp_path, "someone/vit", saved, "abc")
    put_in_cache(monkeypatch, tmp_path, "timm/test_vit", timm_saved, "abc")
    model = cl.load_model("hf-hub:someone/vit")
    assert model.model_name == "someone/vit" and model.preprocessing.mean == (0.1, 0.2, 0.3)
    assert cl.load_model("hf-hub:timm/test_vit").n_classes == 3
    assert is_here("hf-hub:someone/vit") and not is_here("hf-hub:someone/else")


def test_a_revision_is_kept_to(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = put_in_cache(monkeypatch, tmp_path / "cache", "someone/vit", saved, "abc")
    save_transformers(tmp_path / "other", num_labels=7)
    second = put_in_cache(monkeypatch, tmp_path / "cache", "someone/vit", tmp_path / "other", "def")
    assert cl.load_model("hf-hub:someone/vit").n_classes == 7
    assert cl.load_model("hf-hub:someone/vit@abc").n_classes == 5
    assert open_folder("hf-hub:someone/vit@abc").path == first and open_folder("hf-hub:someone/vit").path == second
    assert cl.load_model("hf-hub:someone/vit@abc").model_name == "someone/vit@abc"


class Hub:
    """Stands for the hub: a folder of files, and what was asked of it."""

    def __init__(self, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.asked, self.fetched, self.broken = folder, [], [], False
        self.snapshot = cache / "snapshots" / "abc"
        self.marks: set[str] = set()
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", self.look_up)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def look_up(self, repository: str, name: str, revision: str | None = None) -> Any:
        assert repository == "someone/vit" and revision in (None, "v2", "abc")
        path = self.snapshot / name
        return str(path) if path.exists() else object() if name in self.marks else None

    def metadata(self, url: str, **options: Any) -> None:
        name = url.rsplit("/", 1)[-1]
        self.asked.append(f"{url.split('/')[-2]}/{name}")
        if self.broken:
            raise ConnectionError("no route")
        if not (self.folder / name).exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such file")

    def download(self, repository: str, name: str, revision: str | None = None) -> str:
        if not (self.folder / name).exists():
            self.marks.add(name)
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such file")
        self.fetched.append(name)
        self.snapshot.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(self.folder / name, self.snapshot / name))


def test_only_what_is_read_is_downloaded_and_only_once(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(saved, tmp_path / "repository")
    for name in ("README.md", "pytorch_model.bin", "training_args.bin", "tf_model.h5"):
        (tmp_path / "repository" / name).write_text("not needed")
    hub = Hub(tmp_path / "repository", tmp_path / "cache", monkeypatch)
    assert cl.load_model("hf-hub:someone/vit@v2").n_classes == 5
    assert hub.fetched == ["config.json", "model.safetensors", "preprocessor_config.json"]
    # the first file by the revision that was asked for, the others by the commit that it belongs to
    assert hub.asked == ["v2/config.json", "abc/model.safetensors", "abc/preprocessor_config.json"]
    hub.broken = True
    assert cl.load_model("hf-hub:someone/vit@v2").n_classes == 5
    (tmp_path / "repository" / "preprocessor_config.json").unlink()
    (hub.snapshot / "preprocessor_config.json").unlink()
    with pytest.raises(
        InputError,
        match=r"cannot be reached for preprocessor_config\.json of someone/vit: no route.* give its folder: ",
    ):
        cl.load_model("hf-hub:someone/vit@v2")
    hub.broken = False
    assert cl.load_model("hf-hub:someone/vit@v2").preprocessing.mean == (0.5, 0.5, 0.5)
    hub.broken = True  # that there is none is known by now
    assert cl.load_model("hf-hub:someone/vit@v2").preprocessing.mean == (0.5, 0.5, 0.5)


def test_a_repository_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path, tmp_path / "cache", monkeypatch)
    with pytest.raises(InputError, match=r"hf-hub:someone/vit has neither config\.json nor adapter_config\.json"):
        cl.load_model("hf-hub:someone/vit")
    hub.marks.clear()
    (tmp_path / "config.json").write_text('{"architecture": "test_vit"}')
    with pytest.raises(CheckpointError, match=r"config\.json but no weights"):
        cl.load_model("hf-hub:someone/vit")
    shutil.rmtree(tmp_path / "cache")
    hub.marks.clear()
    response: Any = type("Response", (), {"headers": {}, "request": None})()
    errors = huggingface_hub.errors
    for error, message in (
        (
            ConnectionError("no route"),
            r"cannot be reached for config\.json of someone/vit: no route\. Give a local ",
        ),
        (errors.OfflineModeIsEnabled("off"), r"config\.json of someone/vit is not in the cache, and HF_HUB_OFFLINE"),
        (errors.GatedRepoError("closed", response=response), "accepted its terms"),
        (errors.RepositoryNotFoundError("gone", response=response), r"no repository someone/vit, or shows it only"),
        (errors.RevisionNotFoundError("gone", response=response), "has no revision 'v2'"),
    ):

        def fail(*args: Any, error: Exception = error, **kwargs: Any) -> None:
            raise error

        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
        with pytest.raises(InputError, match=message):
            cl.load_model("hf-hub:someone/vit@v2")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
