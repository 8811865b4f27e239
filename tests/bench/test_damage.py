"""Damage on the disk: flipped bits, leftovers of killed processes, full disks, malformed files."""

import errno
import json
import os
import platform
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock

import caap_lab as cl
from caap_lab import ActivationStore, InputError
from caap_lab.activations.shards import Shard
from caap_lab.attribution.map import AttributionMap
from caap_lab.bench.run_folder import RunFolder
from caap_lab.files import atomic_path, has_form, recover, save_tensors
from caap_lab.models.classes import ClassNames

HOOK = "blocks.0.hook_resid_pre"


def a_map() -> AttributionMap:
    generator = torch.Generator().manual_seed(0)
    return AttributionMap(
        scores=torch.randn(4, 4, generator=generator),
        target=1,
        target_name="cat",
        method="caap",
        score="logit",
        sign="level",
        settings={"cutoff": 3},
        model_name="m",
        fingerprint="f",
        image=torch.zeros(8, 8, 3, dtype=torch.uint8),
        class_names=ClassNames(("dog", "cat")),
        versions={"torch": "2"},
    )


def a_store(value: float = 0, dtype: torch.dtype = torch.float32) -> ActivationStore:
    rows = torch.arange(12, dtype=torch.float32).view(3, 2, 2).to(dtype) + value
    return ActivationStore("m", "f", {HOOK: (2, 2)}, dtype, (Shard({HOOK: rows}, 0, 3),))


def flips(path: Path, count: int):
    """The file with one bit flipped, at `count` places in turn; at the end it is whole again."""
    whole, choice = path.read_bytes(), random.Random(0)
    for _ in range(count):
        changed, place = bytearray(whole), choice.randrange(len(whole))
        changed[place] ^= 1 << choice.randrange(8)
        path.write_bytes(changed)
        yield place
    path.write_bytes(whole)


def test_a_flipped_bit_in_a_part_is_noticed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.locked():
        run.append([{"key": "a", "image": "x", "scores": [0.1] * 49, "shares": [i / 7 for i in range(100)]}])
        (part,) = run.parts.iterdir()
        for place in flips(part, 300):
            assert run.read()[1] == [part], place
        assert run.read()[0]["key"].to_pylist() == ["a"]
        for _ in flips(part, 1):
            assert not len(run.clean())
            assert [path.name for path in (tmp_path / "damaged").iterdir()] == [part.name]


def test_parts_of_older_versions_are_read_and_guarded_by_page_checksums(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.locked():
        run.append([{"key": "a", "image": "x", "shares": [i / 7 for i in range(100)]}])
        (part,) = run.parts.iterdir()
        old = part.rename(run.parts / "copy.parquet")
        table = run.read()[0]
        footer = len(old.read_bytes()) - 8 - int.from_bytes(old.read_bytes()[-8:-4], "little")
        for place in flips(old, 300):
            found, damaged = run.read()
            assert damaged or found.equals(table) or place >= footer, place
        pq.write_table(table, run.parts / "plain.parquet")  # as before there were checksums
        assert len(run.read()[0]) == 2 and not run.read()[1]
        (run.parts / "folder.parquet").mkdir()
        (run.parts / "link.parquet").symlink_to("nowhere")
        assert {path.name for path in run.read()[1]} == {"folder.parquet", "link.parquet"}
        assert len(run.clean()) == 1 and not run.read()[1]  # both are set aside


def test_a_part_that_cannot_be_opened_is_not_taken_for_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    with run.locked():
        run.append([{"key": "a", "image": "x"}])
        (part,) = run.parts.iterdir()
        with monkeypatch.context() as full:
            full.setattr(Path, "read_bytes", _too_many_open_files)
            for reads in (run.clean, run.finished):
                with pytest.raises(OSError, match=r"cannot be opened \(Too many open files\) and may be intact"):
                    reads()
        assert part.exists() and run.finished() == {"a"}


def test_a_folder_that_cannot_be_written_says_how_to_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileLock, "acquire", _too_many_open_files)
    with pytest.raises(OSError, match=r"cannot be written \(Too many open files\)\. To read .* compute=False"):
        RunFolder(tmp_path).locked().__enter__()


def _too_many_open_files(*_: object) -> bytes:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_flipped_bit_in_a_store_is_noticed(tmp_path: Path, dtype: torch.dtype) -> None:
    path = a_store(dtype=dtype).save(tmp_path / "store")
    for file in path.iterdir():
        for place in flips(file, 100):
            with pytest.raises(InputError):
                found = ActivationStore.open(path)
                found["resid_pre", 0]
                pytest.fail(f"byte {place} of {file.name}")
    assert torch.equal(ActivationStore.open(path)["resid_pre", 0], a_store(dtype=dtype)["resid_pre", 0])


def test_only_what_is_read_of_a_store_is_checked(tmp_path: Path) -> None:
    path = a_store().save(tmp_path / "store")
    (shard,) = path.glob("*.safetensors")
    whole = shard.read_bytes()
    last = whole.rindex(np.float32(11).tobytes())
    shard.write_bytes(whole[:last] + b"\xff" + whole[last + 1 :])
    opened = ActivationStore.open(path)
    assert torch.equal(opened[:2]["resid_pre", 0], a_store()[:2]["resid_pre", 0])
    with pytest.raises(InputError, match="is damaged: its values have changed"):
        opened[2]["resid_pre", 0]


def test_stores_of_older_versions_are_read(tmp_path: Path) -> None:
    path = a_store().save(tmp_path / "store")
    (shard,) = path.glob("*.safetensors")
    save_tensors({HOOK: a_store()["resid_pre", 0]}, shard)
    index = json.loads((path / "store.json").read_text())
    del index["digest"]
    (path / "store.json").write_text(json.dumps(index))
    assert torch.equal(ActivationStore.open(path)["resid_pre", 0], a_store()["resid_pre", 0])


def test_a_flipped_bit_in_a_map_is_noticed(tmp_path: Path) -> None:
    path = a_map().save(tmp_path / "map.safetensors")
    for place in flips(path, 200):
        with pytest.raises(InputError):
            AttributionMap.load(path)
            pytest.fail(f"byte {place}")
    assert torch.equal(AttributionMap.load(path).scores, a_map().scores)


def test_maps_without_a_checksum_are_read_and_malformed_ones_refused(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = a_map().save(tmp_path / "map.safetensors")
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["caap_lab"])
    tensors = {"scores": a_map().scores, "image": a_map().image}
    written = ("format", "target", "target_name", "method", "settings", "seconds", "versions", "class_names", "sign")

    def loaded(text: str, **changed: torch.Tensor) -> AttributionMap:
        save_tensors(tensors | changed, path, {"caap_lab": text})
        return AttributionMap.load(path)

    assert loaded(json.dumps(about)).target_name == "cat"
    for text in (
        *("", "{", "[]", "5", "null", "[" * 100_000),
        *(json.dumps({name: value for name, value in about.items() if name != key}) for key in written),
        *(json.dumps({**about, key: [[1]]}) for key in ("target", "settings", "versions", "seconds", "format", "sign")),
        *(json.dumps({**about, "class_names": bad}) for bad in ("ab", [["a"]], [[1], []], {}, [["a"], ["b"], []])),
    ):
        with pytest.raises(InputError):
            loaded(text)
            pytest.fail(text[:300])
    with pytest.raises(InputError, match="content has changed"):
        loaded(json.dumps(about), scores=torch.zeros(3))


def test_malformed_store_indexes_are_refused(tmp_path: Path) -> None:
    path = a_store().save(tmp_path / "store")
    index = json.loads((path / "store.json").read_text())
    del index["digest"]
    shard = index["shards"][0][0]
    bad: list[object] = [
        *([], 5, None, "x", {}),
        *({name: value for name, value in index.items() if name != key} for key in index),
        *({**index, key: value} for key in index for value in (None, 5, "x", [1], {"a": 1}, [["a"]]) if key != "model"),
        *({**index, "shards": [[shard, rows]]} for rows in (0, -1, "3", True, None, [3])),
        {**index, "shards": [[shard]]},
        {**index, "extra": 1},
    ]
    for content in bad:
        (path / "store.json").write_text(json.dumps(content))
        if content != {**index, "fingerprint": "x"}:
            with pytest.raises(InputError):
                ActivationStore.open(path)
                pytest.fail(str(content))
    for text in ("", "{", "[" * 100_000, "\xff", '{"format": 1'):
        (path / "store.json").write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=r"store\.json is damaged"):
            ActivationStore.open(path)


def test_shards_outside_a_stores_folder_are_refused(tmp_path: Path) -> None:
    path = a_store().save(tmp_path / "store")
    other = a_store(7).save(tmp_path / "other")
    (shard,) = other.glob("*.safetensors")
    index = json.loads((path / "store.json").read_text())
    del index["digest"]
    for name in (f"../other/{shard.name}", str(shard), "..", f"..\\other\\{shard.name}", f"./{shard.name}"):
        (path / "store.json").write_text(json.dumps({**index, "shards": [[name, 3]]}))
        with pytest.raises(InputError, match="is outside the store's folder"):
            ActivationStore.open(path)


@pytest.fixture(scope="module")
def dead_process() -> int:
    """The number of a process that is over."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def leftover(path: Path, kind: str, process: int) -> Path:
    """The temporary path that a process of this machine would have used."""
    with atomic_path(path.with_name("probe")) as part:
        part.touch()
    path.with_name("probe").unlink()
    host = part.name.split("-")[1]
    assert part.name.endswith(f"-{host}-{os.getpid()}.part")
    return path.with_name(f".{path.name}.0123abcd-{host}-{process}.{kind}")


def test_a_store_that_a_killed_save_had_moved_aside_comes_back(tmp_path: Path, dead_process: int) -> None:
    path = a_store(1).save(tmp_path / "store")
    half = leftover(path, "part", dead_process)
    half.mkdir()
    aside = path.rename(leftover(path, "old", dead_process))
    assert ActivationStore.open(path)["resid_pre", 0][0, 0, 0] == 1
    assert [found.name for found in tmp_path.iterdir()] == ["store"]

    shutil.copytree(path, aside)  # killed after the new store had come, before the old one was gone
    a_store(2).save(path)
    assert ActivationStore.open(path)["resid_pre", 0][0, 0, 0] == 2
    assert [found.name for found in tmp_path.iterdir()] == ["store"]


def test_leftovers_are_removed_unless_their_process_is_at_work(tmp_path: Path, dead_process: int) -> None:
    path = tmp_path / "a.csv"
    gone = [leftover(path, "part", dead_process), tmp_path / ".a.csv.0123abcd.part"]  # the latter of older versions
    kept = [leftover(path, "part", os.getpid()), leftover(tmp_path / "b.csv", "part", dead_process)]
    kept.append(tmp_path / f".a.csv.0123abcd-00000000-{dead_process}.part")  # of another machine
    for found in (*gone, *kept):
        found.write_text("half")
    recover(path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)

    run = RunFolder(tmp_path / "run")
    with run.locked():
        for folder in (run.folder, run.parts):
            (folder / ".plan.json.0123abcd-00000000-1.part").write_text("half")  # the lock says that nobody writes
        run.clean()
        assert not [found for found in run.folder.rglob("*.part")]


def test_a_full_disk_is_told_with_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_text("before")
    with (
        pytest.raises(OSError, match=r"figure\.png could not be written \(No space left on device\)") as caught,
        atomic_path(path) as part,
    ):
        part.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "before" and [found.name for found in tmp_path.iterdir()] == ["figure.png"]
    with pytest.raises(FileNotFoundError, match=r"photo\.jpg"), atomic_path(path):
        (tmp_path / "photo.jpg").read_bytes()  # what is not about writing stays as it is


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_every_kind_of_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Path.write_bytes

    def full(path: Path, *content: object, **options: object) -> int:
        with Path("/dev/full").open("wb", buffering=0) as device:
            return device.write(b"x")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", full)
    run, result = RunFolder(tmp_path / "run"), cl.open_images("demo:single")[:1]
    with pytest.raises(OSError, match="owner could not be written"), run.locked():
        pass
    with pytest.raises(OSError, match=r"parquet could not be written .*No space.* make room and run the same"):
        run.append([{"key": "a"}])
    with pytest.raises(OSError, match=r"list\.txt could not be written"):
        result.save_list(tmp_path / "list.txt")
    with pytest.raises(OSError, match="store could not be written"):
        a_store().save(tmp_path / "store")
    monkeypatch.setattr(Path, "write_bytes", plain)
    assert not [found for found in tmp_path.rglob(".*")]


def test_a_run_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with (
        pytest.raises(InputError, match=r"taken cannot be a run's folder"),
        RunFolder(tmp_path / "taken").locked(),
    ):
        pass


def test_a_lock_tells_who_holds_it_and_goes_with_a_killed_process(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.locked():
        assert (tmp_path / "owner").read_text() == f"process {os.getpid()} on {platform.node()}"
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on"), RunFolder(tmp_path).locked():
            pass
    assert not (tmp_path / "owner").exists()
    (tmp_path / "owner").write_text("process 1 on nowhere")  # a killed process leaves this, and no lock
    with run.locked():
        assert str(os.getpid()) in (tmp_path / "owner").read_text()


def test_nothing_belongs_to_posix_alone() -> None:
    alone = ("import fcntl", "import resource", "import pwd", "os.uname", "os.fork", "SIGKILL", "os.mkfifo", '"/proc')
    for path in Path(cl.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [word for word in alone if word in text], path


def test_forms_of_json() -> None:
    form = {"a": int, "b": (float, None), "c": [str], "d": {str: [int]}, "e": True}
    good = {"a": 1, "b": 2, "c": ["x"], "d": {"k": [1, 2]}, "e": None}
    assert has_form(good, form) and has_form({**good, "b": None, "c": [], "d": {}, "more": 1}, form)
    for change in ({"a": True}, {"a": 1.5}, {"b": "2"}, {"c": "x"}, {"c": [1]}, {"d": {"k": 1}}, {"d": []}):
        assert not has_form({**good, **change}, form)
    assert not has_form({"a": 1}, form) and not has_form([], form)
