"""Models and methods as text come back as they were written."""

import pytest

from caap_lab import InputError
from caap_lab.variant import Variant, parse_variant


@pytest.mark.parametrize(
    "value",
    ["a,b.pth", "runs/lr=0,1/a,b.pth", "a,std=b.pth", 'say "a", b', "[a,b].pth", "C:\\a, b", "1", "a,", "", ", x"],
)
def test_commas_in_file_names_stay_in_them(value: str) -> None:
    spec = Variant("vit", {"checkpoint": value, "mean": [0.5, 0.25, 0.125]})
    assert parse_variant(spec.text).options == spec.options


NAMES: list[tuple[str, str, str, dict[str, object]]] = [
    ("hf-hub:someone/vit", "hf-hub:someone/vit", "hf-hub:someone/vit", {}),
    ("A=hf-hub:someone/vit@v2:image_size=64", "A", "hf-hub:someone/vit@v2", {"image_size": 64}),
    ("A = hf-hub:someone/vit", "A", "hf-hub:someone/vit", {}),
    ("/runs/lr=0.1/last", "/runs/lr=0.1/last", "/runs/lr=0.1/last", {}),
    ("ViT-B/16=../lr=0.1/last:mean=[0.5,0.5,0.5]", "ViT-B/16", "../lr=0.1/last", {"mean": [0.5, 0.5, 0.5]}),
    ("A=~/mine:dtype=float16", "A", "~/mine", {"dtype": "float16"}),
    ("runs/mine", "runs/mine", "runs/mine", {}),
    ("A=C:\\mine:image_size=64", "A", "C:\\mine", {"image_size": 64}),
    ("ViT-B/16=vit:checkpoint=/lr=1/a.pth", "ViT-B/16", "vit", {"checkpoint": "/lr=1/a.pth"}),
    ("A=B=vit", "A=B", "vit", {}),
]


@pytest.mark.parametrize(("text", "label", "name", "options"), NAMES)
def test_repositories_and_paths_are_names(text: str, label: str, name: str, options: dict[str, object]) -> None:
    spec = parse_variant(text)
    assert (spec.label, spec.name, spec.options) == (label, name, options)
    again = parse_variant(spec.text)
    assert (again.name, again.options) == (name, options)


def test_commas_end_a_value_before_another_key() -> None:
    assert parse_variant("vit:checkpoint=a,b.pth,image_size=224").options == {
        "checkpoint": "a,b.pth",
        "image_size": 224,
    }
    assert parse_variant('vit:checkpoint="a,std=b.pth"').options == {"checkpoint": "a,std=b.pth"}
    for bad in ("caap:a=1,", "caap:,a=1"):
        with pytest.raises(InputError, match="write NAME:key=value"):
            parse_variant(bad)
