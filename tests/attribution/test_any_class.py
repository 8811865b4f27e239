"""Maps that are the same for all targets say "any class" wherever they are shown, and name no class."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest

import caap_lab as cl
from caap_lab import AttributionMap, MapList
from caap_lab.attribution.gallery import row_target
from caap_lab.attribution.registry import METHODS
from caap_lab.cli import main
from helpers.methods import QUICK
from helpers.models import build, random_images

AGNOSTIC = [name for name, method in METHODS.items() if not method.class_specific]


@pytest.fixture(scope="module", params=AGNOSTIC)
def m(request: pytest.FixtureRequest) -> AttributionMap:
    model = build("vit")
    return cl.attribute(model, random_images(model, 1), request.param, 3, **QUICK[request.param])


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_there_are_such_methods() -> None:
    assert "rollout" in AGNOSTIC


def test_no_picture_names_a_class(m: AttributionMap) -> None:
    figures = {
        "plot": m.plot(),
        "gallery": cl.gallery([[m, m]]),
        "list": MapList([m, m.ranks()]).plot(),
        "difference": (m.ranks() - m.ranks()).plot(),
    }
    for name, figure in figures.items():
        said = texts(figure)
        assert any("any class" in text for text in said), name
        assert not any("class 3" in text for text in said), name


def test_no_text_or_table_names_a_class(m: AttributionMap) -> None:
    assert m.caption == "any class" and m.unit.endswith("of any class")
    for text in (repr(m), repr(MapList([m])), repr(m.ranks()), MapList([m]).to_dataframe().to_csv()):
        assert "any class" in text and "class 3" not in text


def test_a_row_of_a_gallery_says_what_its_maps_explain(m: AttributionMap) -> None:
    specific = replace(m, class_specific=True)
    assert row_target([m, specific]) == "'class 3'" and row_target([m, m]) == "any class"


@pytest.mark.parametrize("method", AGNOSTIC)
def test_the_command_line_names_no_class(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "--demo", "--method", method, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["target"], result["target_name"], result["explains"]) == (None, "any class", "any class")
