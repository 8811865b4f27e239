"""The hash of a registered method's code: it changes with all that the method computes with, and with nothing else."""

import functools
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import caap_lab as cl
from caap_lab.attribution.registry import fingerprint_of
from caap_lab.digests.code import code_digest

SHIFT = 1.0


def digest(function: Callable[..., Any]) -> str:
    return code_digest(function, "The method", identity=fingerprint_of)


def scaled(factor: Any) -> Callable[..., Any]:
    return lambda model, images, targets: factor * images


def compiled(source: str, **names: Any) -> Callable[..., Any]:
    exec(source, names)
    return names["compute"]


def test_what_a_function_closes_over_counts() -> None:
    assert digest(scaled(1)) == digest(scaled(1)) != digest(scaled(-1))
    assert digest(scaled(1)) != digest(scaled(1.0))
    assert digest(scaled([1, 2])) == digest(scaled([1, 2])) != digest(scaled([2, 1]))
    assert digest(scaled({"a", "b", "c"})) == digest(scaled({"c", "b", "a"}))
    assert digest(scaled(np.arange(3))) == digest(scaled(np.arange(3))) != digest(scaled(np.arange(3)[::-1]))
    assert digest(scaled(torch.ones(2))) != digest(scaled(torch.tensor([1.0, 2.0])))


def test_code_defaults_and_partial_arguments_count_and_the_line_does_not() -> None:
    text = "def compute(model, images, targets, *, steps={}):\n    return images * {}"
    first = compiled(text.format(1, 2))
    assert digest(first) == digest(compiled("\n\n# moved\n" + text.format(1, 2)))
    assert digest(first) != digest(compiled(text.format(1, 3)))
    assert digest(first) != digest(compiled(text.format(2, 2)))
    assert digest(functools.partial(first, steps=3)) != digest(functools.partial(first, steps=4))


def test_globals_and_functions_that_it_calls_count(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def compute(model, images, targets):\n    return helper(images)"
    one, two = compiled("def compute(x):\n    return x + 1"), compiled("def compute(x):\n    return x + 2")
    assert digest(compiled(text, helper=one)) != digest(compiled(text, helper=two))
    inner = "def compute(model, images, targets):\n    return [SHIFT + x for x in images]"
    assert digest(compiled(inner, SHIFT=1)) != digest(compiled(inner, SHIFT=2))
    assert digest(compiled(text, helper=torch.relu)) != digest(compiled(text, helper=torch.exp))
    assert digest(compiled(text, helper=np.sin)) != digest(compiled(text, helper=np.cos))

    def shifted(model: Any, images: Any, targets: Any) -> Any:
        return images + SHIFT

    before = digest(shifted)
    monkeypatch.setattr(sys.modules[__name__], "SHIFT", 2.0)
    assert digest(shifted) != before


def test_a_module_of_the_users_own_counts_by_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = []
    for number in (1, 2):
        (tmp_path / "own_blur.py").write_text(f"def blur(x):\n    return x * {number}\n")
        sys.modules.pop("own_blur", None)
        importlib.invalidate_caches()
        module = importlib.import_module("own_blur")
        found.append(digest(compiled("def compute(model, images, targets):\n    return m.blur(images)", m=module)))
    assert found[0] != found[1]


def test_what_a_function_reads_from_the_users_own_modules_counts_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "settings.py").write_text("sign = 1\nother = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings = importlib.import_module("own_package.settings")
    package = sys.modules["own_package"]
    near = compiled("def compute(model, images, targets):\n    return settings.sign * images", settings=settings)
    far = compiled("def compute(model, images, targets):\n    return [own.settings.sign for _ in images]", own=package)
    before = digest(near), digest(far)
    monkeypatch.setattr(settings, "other", 2)
    assert (digest(near), digest(far)) == before
    monkeypatch.setattr(settings, "sign", -1)
    assert digest(near) != before[0] and digest(far) != before[1]


def test_objects_count_by_their_class_and_content() -> None:
    class Weighted:
        def __init__(self, weight: float) -> None:
            self.weight = weight

        def __call__(self, model: Any, images: Any, targets: Any) -> Any:
            return self.weight * images

        def by_name(self, model: Any, images: Any, targets: Any) -> Any:
            return self.weight * images

    assert digest(Weighted(1.0)) == digest(Weighted(1.0)) != digest(Weighted(2.0))
    assert digest(Weighted(1.0).by_name) != digest(Weighted(2.0).by_name)
    layer = nn.Linear(2, 2)
    before = digest(scaled(layer))
    with torch.no_grad():
        layer.weight[0, 0] += 1
    assert digest(scaled(layer)) != before
    model = cl.load_model("demo")
    before = digest(scaled(model))
    cl.caap(model, cl.demo_images("single", n=1, seed=0)[0].image, 0)
    assert digest(scaled(model)) == before


def test_a_function_that_calls_itself_ends() -> None:
    text = "def compute(model, images, targets):\n    return compute(model, images, targets) * {}"
    assert digest(compiled(text.format(1))) != digest(compiled(text.format(2)))


def test_another_process_gives_the_same_hash() -> None:
    """It orders sets by another seed than this one."""
    code = (
        "from caap_lab.digests.code import code_digest\n"
        "names = {'kinds': {'a', 'b', 'c'}}\n"
        "exec('def compute(model, images, *, steps=(1, None)):\\n    return images in {1, 2, 3} or kinds', names)\n"
        "found = code_digest(names['compute'], 'It')\n"
    )
    here: dict[str, Any] = {}
    exec(code, here)
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    there = subprocess.run(
        [sys.executable, "-c", f"{code}print(found)"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": seed},
    )
    assert there.stdout == f"{here['found']}\n"


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(cl.InputError, match=r"The method depends on a lock.*make what it needs an option"):
        digest(scaled(threading.Lock()))
