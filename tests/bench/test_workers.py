"""Workers: what is refused before the run, own methods on workers that live long, and scripts without a guard."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import caap_lab as cl
from caap_lab.attribution.registry import METHODS, registered
from caap_lab.bench import cluster, own_code
from caap_lab.bench.cluster import Cluster, refuse_import
from caap_lab.bench.run_folder import RunFolder

QUICK = {"progress": False, "protocol": "xplique", "data": "demo:single", "images": 1}


def brightness(sign: int):
    return lambda model, images, targets: sign * images.mean(1).unfold(1, 8, 8).unfold(2, 8, 8).mean((-1, -2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "workers must be a whole number of at least 1, not 0"),
        ({"workers": -1}, "workers must be a whole number of at least 1, not -1"),
        ({"workers": 1.5}, "workers must be a whole number"),
        ({"workers": 2, "device": "cuda:77"}, "Device 'cuda:77' is not available"),
        ({"device": "cuda:77"}, "Device 'cuda:77' is not available"),
        ({"device": "gpu"}, "'gpu' is not a device"),
        ({"device": "xpu:99"}, "Device 'xpu:99' is not available"),
        (
            {"models": ["demo", "vit_tiny_patch16_225"]},
            "There is no model named 'vit_tiny_patch16_225'.*Nearest: vit_tiny",
        ),
        ({"models": "demo:checkpiont=a.pth"}, "no option 'checkpiont'.*Nearest: checkpoint"),
        ({"models": "demo:dtype=int8"}, "dtype='int8' is not one of float32"),
        ({"models": "demo:device=gpu"}, "'gpu' is not a device"),
        ({"models": "swin_tiny_patch4_window7_224:checkpoint=a.pth"}, "swin_tiny_patch4_window7_224 is not supported"),
        ({"models": "vit_tiny_patch16_224:checkpoint=nowhere.pth"}, r"nowhere\.pth cannot be read"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "No scheduler answers at 'tcp://127.0.0.1:1'"),
        ({"scheduler": "nonsense"}, "No scheduler answers at 'nonsense'"),
        ({"scheduler": ""}, "must be an address"),
    ],
)
def test_what_cannot_run_is_refused_before_the_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict, message: str
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)
    with pytest.raises(cl.InputError, match=message):
        cl.benchmark(**{"models": "demo", "methods": "rollout", "out": tmp_path / "run", **QUICK, **change})
    assert not (tmp_path / "run").exists()


def test_the_command_line_refuses_no_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from caap_lab.cli import main

    words = ["bench", "--models", "demo", "--methods", "rollout", "--data", "demo:single", "--workers", "0"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "workers must be a whole number of at least 1, not 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_models_as_objects_do_not_go_to_workers(tmp_path: Path) -> None:
    with pytest.raises(cl.InputError, match="use names instead of hooked models"):
        cl.benchmark(cl.load_model("demo"), "rollout", out=tmp_path / "run", workers=2, **QUICK)
    assert not (tmp_path / "run").exists()


def test_living_workers_never_use_an_older_method(tmp_path: Path) -> None:
    from dask.distributed import LocalCluster

    found = []
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
    ) as up:
        for number, sign in enumerate((1, -1, 1)):
            cl.register("own", brightness(sign))
            result = cl.benchmark("demo", "own", out=tmp_path / str(number), scheduler=up.scheduler_address, **QUICK)
            assert not len(result.failed), result.failed["error"].tolist()
            found.append(torch.tensor(result.to_dataframe()["scores"][0]))
    assert torch.equal(found[0], -found[1]) and torch.equal(found[0], found[2]) and found[0].abs().sum() > 0


def test_the_code_of_a_method_replaces_what_a_worker_has() -> None:
    images = torch.ones(1, 3, 16, 16)
    sent = []
    for sign in (1, -1):
        cl.register("own", brightness(sign), family="mine")
        sent.append(own_code.packed(["own", "caap"])["method", "own"])
    for content, sign in ((sent[0], 1), (sent[1], -1), (sent[0], 1)):
        own_code.install({("method", "own"): content})
        compute, facts = registered("own")
        assert compute(None, images, None).unique().tolist() == [sign] and facts == {"family": "mine"}
        before = METHODS["own"]
        own_code.install({("method", "own"): content})
        assert METHODS["own"] is before  # the same code is not read again
    cl.register("own", brightness(5))  # by somebody else in this process
    own_code.install({("method", "own"): sent[0]})
    assert registered("own")[0](None, images, None).unique().tolist() == [1]


def test_modules_of_the_users_own_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helper_of_mine.py").write_text("def scale(x):\n    return 3 * x\n")
    (tmp_path / "method_of_mine.py").write_text(
        "import helper_of_mine\n\ndef score(model, images, targets):\n    return helper_of_mine.scale(images[:, 0])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import method_of_mine

    cl.register("own", method_of_mine.score)
    content = own_code.packed(["own"])
    for name in ("helper_of_mine", "method_of_mine"):  # the worker has others of these names
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    own_code.install(content)
    assert registered("own")[0](None, torch.ones(1, 3, 2, 2), None).unique().tolist() == [3]


def test_a_method_that_cannot_be_sent_is_refused_before_the_run(tmp_path: Path) -> None:
    class Unsendable:
        def __init__(self) -> None:
            self.name = "held"

        def __reduce__(self) -> str:
            raise TypeError("cannot pickle it")

    held = Unsendable()
    cl.register("own", lambda model, images, targets: images[:, 0] if held.name else images[:, 1])
    with pytest.raises(cl.InputError, match=r"The method 'own' cannot be sent to workers .*cannot pickle it"):
        cl.benchmark("demo", "own", out=tmp_path / "run", workers=2, **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_scheduler_that_dies_stops_the_run_in_words() -> None:
    class Gone:
        """A client whose scheduler is gone: all that it was given is cancelled."""

        def ncores(self) -> dict[str, int]:
            return {"one": 1}

        def submit(self, *arguments: object, **options: object) -> SimpleNamespace:
            return Future()

    class Future:
        status = "cancelled"

    class Done(list):
        add = list.append

        def __iter__(self):
            while self:
                yield self.pop()

    trials = [SimpleNamespace(key=str(n), method=SimpleNamespace(name="caap"), metric_names=()) for n in range(5)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dask.distributed.as_completed", Done)
        with pytest.raises(OSError, match=r"The scheduler at tcp://a:1 is gone. What was finished is kept"):
            list(Cluster(Gone(), "tcp://a:1", {}).rows(trials, "cpu", 1, lambda: False))


def test_workers_that_cannot_start_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**options: object) -> None:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("dask.distributed.LocalCluster", fails)
    for script, told in (
        ("/a/study.py", 'imports study.py first.*below `if __name__ == "__main__":`'),
        (None, "start"),
    ):
        monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
        if script is not None:
            sys.modules["__main__"].__file__ = script
        with pytest.raises(cl.InputError, match=told), cluster.started(1, None, "cpu", ["caap"]):
            pass


@pytest.mark.slow
def test_workers_keep_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from dask.distributed import Client

    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    with cluster._local(1) as workers, Client(workers) as client:
        assert set(client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values()) == {None}


def test_a_script_without_a_guard_ends_with_one_sentence(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(
        "import caap_lab as cl\n"
        f"cl.benchmark('demo', 'rollout', 'demo:single', images=1, out={str(tmp_path / 'run')!r}, workers=1)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, env=os.environ)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("caap_lab.errors.InputError: The workers could not start") and "study.py" in last
    assert 'below `if __name__ == "__main__":`' in last and "in use" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_script_that_a_new_process_imports_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    refuse_import("cl.benchmark")  # not in an ordinary process
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit, match=r"cl\.benchmark was called while a worker process imported the script"):
        refuse_import("cl.benchmark")


def test_parts_of_different_weights_are_not_averaged(tmp_path: Path) -> None:
    result = cl.benchmark("demo", ["rollout", "grad_cam"], out=tmp_path, **QUICK)
    run = RunFolder(tmp_path)
    rows = [{**row, "protocol": None, "settings": None, "versions": None} for row in run.read()[0].to_pylist()]
    rows[0] |= {"fingerprint": "0123456789abcdef", "machine": "elsewhere"}  # as from an older run, under the same key
    for part in run.parts.iterdir():
        part.unlink()
    with run.locked():
        run.append(rows)
    mixed = type(result).open(tmp_path)
    assert "2 of 2" in mixed.progress
    for ask in (mixed.to_dataframe, mixed.summary):
        with pytest.raises(
            cl.InputError, match=r"holds trials of demo that were made with different weights: 2 trials, 1 of"
        ):
            ask()
