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


def test_commas_end_a_value_before_another_key() -> None:
    assert parse_variant("vit:checkpoint=a,b.pth,image_size=224").options == {
        "checkpoint": "a,b.pth",
        "image_size": 224,
    }
    assert parse_variant('vit:checkpoint="a,std=b.pth"').options == {"checkpoint": "a,std=b.pth"}
    for bad in ("caap:a=1,", "caap:,a=1"):
        with pytest.raises(InputError, match="write NAME:key=value"):
            parse_variant(bad)
