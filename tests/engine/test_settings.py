"""CAAP's settings: every field has a default that `cl.caap` shares, a check, a JSON form and a flag."""

import argparse
import inspect
import json
from typing import Any

import numpy as np
import pytest
import torch

import caap_lab as cl
from caap_lab.commands.caap_flags import add_caap_flags, given_caap_options
from caap_lab.engine.blanks import BLANKS
from caap_lab.engine.plan import CaapPlan, joined, plan_of, written_settings
from caap_lab.engine.scores import SCORES
from caap_lab.engine.settings import DEFAULTS, SETTINGS, CaapOptions, CaapSettings
from caap_lab.models.neighbourhoods import NEIGHBOURHOODS
from helpers.models import build, random_images

OTHER: dict[str, tuple[str, Any]] = {
    "cutoff": ("0.5", 0.5),
    "start": ("1", 1),
    "neighbourhood": ("cross1", "cross1"),
    "blank": ("black", "black"),
    "direction": ("remove", "remove"),
    "context": ("clamped", "clamped"),
    "attention": ("cached", "cached"),
    "tail": ("interpolated", "interpolated"),
    "score": ("logsigmoid", "logsigmoid"),
    "seed": ("7", 7),
    "chunk_size": ("5", 5),
    "max_memory": ("0.5", 0.5),
}
"""For every setting, what a person types and what it is."""
WRONG: dict[str, list[Any]] = {
    "cutoff": ["half", True, 1.5, float("nan"), [2]],
    "start": [-1, 1.0, "1", True, None],
    "neighbourhood": ["box9", None, ["box1"]],
    "blank": ["purple", [torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)]],
    "direction": ["out", None, ["insert"]],
    "context": ["open", 1],
    "attention": ["flash", None],
    "tail": ["long", None],
    "score": ["loss", None],
    "seed": [-1, 0.5, 2**63],
    "chunk_size": [0, 2.5, True],
    "max_memory": [0, -1.0, "1 GiB", True, float("nan")],
}


def flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_caap_flags(parser)
    return parser


def test_caap_takes_the_settings_with_their_defaults() -> None:
    parameters = inspect.signature(cl.caap).parameters.values()
    given = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert list(given.items()) == [*DEFAULTS.items(), ("batch_size", 8), ("progress", True)]
    assert list(CaapOptions.__annotations__) == list(SETTINGS) == list(OTHER) == list(WRONG)


def test_the_call_passes_every_setting_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    seen: dict[str, Any] = {}
    monkeypatch.setattr("caap_lab.attribution.method.run_maps", lambda model, *a, **k: a[2](model, 8))
    monkeypatch.setattr("caap_lab.attribution.caap_maps.CaapSettings", lambda **k: seen.update(k) or CaapSettings(**k))
    with pytest.raises(TypeError):  # no maps come back
        cl.caap(model, random_images(model, 1), 0, **{name: value for name, (_, value) in OTHER.items()})
    assert seen == {name: value for name, (_, value) in OTHER.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_checked(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(cl.InputError, match=name if name != "blank" else "blank|image"):
            CaapSettings(**{name: value})


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_json_form(name: str) -> None:
    settings = CaapSettings(**{name: OTHER[name][1]})
    written = json.loads(json.dumps(settings.to_dict()))
    assert list(written) == list(SETTINGS) and written[name] == OTHER[name][1] != DEFAULTS[name]
    assert CaapSettings(**written) == settings


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_flag(name: str) -> None:
    text, value = OTHER[name]
    assert given_caap_options(flags().parse_args([f"--{name.replace('_', '-')}", text])) == {name: value}
    assert given_caap_options(flags().parse_args([])) == {}


def test_flags_name_all_that_can_be_chosen() -> None:
    shown = " ".join(flags().format_help().split())
    for name in (*SCORES, *NEIGHBOURHOODS, *BLANKS, "dropped", "cached_all", "interpolated"):
        assert name in shown


def test_numpy_numbers_become_pythons() -> None:
    settings = CaapSettings(
        cutoff=np.float32(0.5), start=np.int64(1), seed=np.int32(3), chunk_size=np.int64(4), max_memory=np.float64(2)
    )
    assert json.loads(json.dumps(settings.to_dict())) == settings.to_dict()
    assert type(CaapSettings(cutoff=np.int64(2)).cutoff) is int


def test_a_blank_without_a_name_is_written_by_its_label() -> None:
    settings = CaapSettings(blank=torch.zeros(3, 8, 8))
    with pytest.raises(cl.InputError, match="save the image to a file"):
        settings.to_dict()
    assert settings.to_dict("image 0a1b")["blank"] == "image 0a1b"


def test_what_is_written_is_what_decides_with_the_models_own_values() -> None:
    model = build("vit")
    settings = CaapSettings(max_memory=0.5, chunk_size=3, seed=2)
    assert written_settings(model, settings, plan_of(model, settings), "white") == {
        "cutoff": 3,
        "start": 0,
        "neighbourhood": "box1",
        "blank": "white",
        "context": "clamped",
        "attention": "exact",
        "tail": "exact",
        "score": "logit",
        "seed": 2,
    }
    removed = CaapSettings(direction="remove")
    assert written_settings(model, removed, plan_of(model, removed), "white")["direction"] == "remove"
    cnn = cl.load_model("demo-cnn")
    written = written_settings(cnn, CaapSettings(), plan_of(cnn, CaapSettings()), "white")
    assert written["context"] == "free" and not {"attention", "tail", "max_memory"} & set(written)


def test_maps_keep_the_order_of_their_settings() -> None:
    model = build("vit")
    found = cl.caap(model, random_images(model, 1), 0, seed=3)
    assert list(found.settings.items()) == [
        ("cutoff", 3),
        ("start", 0),
        ("neighbourhood", "box1"),
        ("seed", 3),
        ("context", "clamped"),
        ("attention", "exact"),
        ("tail", "exact"),
        ("blank", "white"),
    ]


def test_plans_with_one_start_are_joined() -> None:
    model = build("vit")
    pairs = [(0, 3), (1, 4), (0, 1), (0, 3), (1, 2)]
    plans = joined(plan_of(model, CaapSettings(start=start, cutoff=cutoff)) for start, cutoff in pairs)
    box1 = NEIGHBOURHOODS["box1"]
    assert plans == [
        CaapPlan(0, (1, 3), box1, "clamped", "exact", "exact"),
        CaapPlan(1, (2, 4), box1, "clamped", "exact", "exact"),
    ]
