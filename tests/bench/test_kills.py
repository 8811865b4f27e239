"""Processes killed at every point of a write, one after the other: nothing is lost, and nothing is left over."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

EVERY_POINT = """
    import json, os, signal, sys
    from pathlib import Path
    import torch
    import caap_lab as cl
    from caap_lab import ActivationStore
    from caap_lab.bench import run_folder as parts
    from caap_lab.bench.run_folder import RunFolder
    from caap_lab.activations.shards import Shard

    parts._FEW = 2
    left = 0

    def point():
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(function):
        def call(*arguments, **options):
            found = function(*arguments, **options)
            point()
            return found
        return call

    def write_bytes(path, content):
        point()
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            point()
            file.write(content[len(content) // 2 :])
        point()

    def killed_everywhere(work, check):
        # At its first point, at its second one and so on, until it comes through; gives how many kills that took.
        global left
        for number in range(1, 1000):
            pid = os.fork()
            if pid == 0:
                left = number
                Path.write_bytes = write_bytes
                for name in ("replace", "rename", "unlink", "write_text"):
                    setattr(Path, name, counted(getattr(Path, name)))
                work(number)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            check(number)
            if code == 0:
                return number - 1
            assert code == -signal.SIGKILL, code

    folder = Path(sys.argv[1])
    run = RunFolder(folder / "run")
    seen = set()

    def append(number):
        with run.locked():
            rows = run.clean()
            assert set(rows["key"]) >= seen
            run.compact()  # what earlier attempts left
            for row in range(2):
                run.append([{"key": f"{number}-{row}", "image": "x"}])
            run.compact()

    def whole(number):
        rows, damaged = run.contents()
        assert not damaged and set(rows["key"]) >= seen, number
        seen.update(rows["key"])

    kills = killed_everywhere(append, whole)
    with run.locked():
        run.clean()
    left_over = [path.name for path in [*run.folder.iterdir(), *run.parts.iterdir()] if path.name.startswith(".")]

    def store(value):
        rows = torch.full((3, 2), float(value))
        name = "blocks.0.hook_resid_pre"
        return ActivationStore("m", "f", {name: (2,)}, torch.float32, (Shard({name: rows}, 0, 3),))

    path = folder / "store"
    store(0).save(path)
    kept = [0.0]

    def opened(number):
        found = ActivationStore.open(path)["blocks.0.hook_resid_pre"]
        assert found.shape == (3, 2) and found.unique().numel() == 1
        assert found[0, 0] in (kept[-1], number), (number, found)
        kept.append(float(found[0, 0]))

    saves = killed_everywhere(lambda number: store(number).save(path), opened)
    store(5).save(path)
    left_over += [found.name for found in folder.iterdir() if found.name.startswith(".")]
    print(json.dumps({"kills": kills, "saves": saves, "values": kept, "left over": left_over}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills by signal")
def test_killed_at_every_point_of_a_write(tmp_path: Path) -> None:
    script = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(EVERY_POINT), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] > 12 and found["saves"] >= 3  # it was killed at all these points
    assert len(set(found["values"])) > 2  # some saves came through before they were killed
    assert found["left over"] == []
