"""A method and its options as one text, wherever a method is named."""

from pathlib import Path

import pytest
import torch

import caap_lab as cl
from caap_lab.attribution.registry import check_variant
from caap_lab.variant import parse_variant


def test_options_in_the_text_are_those_of_the_call() -> None:
    model, image = cl.load_model("demo"), cl.demo_images("two", 1, seed=3)[0].image
    text = cl.attribute(model, image, "caap:cutoff=3,attention=cached", 2)
    call = cl.caap(model, image, 2, cutoff=3, attention="cached")
    assert torch.equal(text.scores, call.scores) and text.settings == call.settings and text.method == "caap"
    other = cl.attribute(model, image, "grad_cam:version=attention", 2)
    assert torch.equal(other.scores, cl.attribute(model, image, "grad_cam", 2, version="attention").scores)


def test_an_option_is_given_once_and_exists() -> None:
    model, image = cl.load_model("demo"), cl.demo_images("two", 1, seed=3)[0].image
    with pytest.raises(cl.InputError, match=r"cutoff is given both in method='caap:cutoff=3' and as an argument"):
        cl.attribute(model, image, "caap:cutoff=3", 2, cutoff=4)
    with pytest.raises(cl.InputError, match=r"caap has no option 'cutof'\. Nearest: cutoff"):
        cl.attribute(model, image, "caap:cutof=3", 2)
    with pytest.raises(cl.InputError, match=r"no method 'cap'\. Nearest: caap"):
        cl.attribute(model, image, "cap:cutoff=3", 2)


def test_a_name_with_a_colon_of_ones_own_stays_a_name() -> None:
    from caap_lab.attribution.registry import METHODS

    cl.register("mine:a=1", lambda model, images, targets: images[:, 0])
    try:
        model, image = cl.load_model("demo"), cl.demo_images("two", 1, seed=3)[0].image
        assert cl.attribute(model, image, "mine:a=1", 2).method == "mine:a=1"
    finally:
        del METHODS["mine:a=1"]


@pytest.mark.parametrize("text", ["caap:batch_size=2,cutoff=3", "grad_cam:version=attention", "rollout", "mda"])
def test_variants_with_options_that_there_are(text: str) -> None:
    assert check_variant(parse_variant(text)).name == text.partition(":")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("caap:cutof=3", "caap has no option 'cutof'. Nearest: cutoff"),
        ("rollout:head=1", "rollout has no option 'head'. .*Its options are start_layer"),
        ("score_cam:version=token", "score_cam has no option 'version'"),
        ("rolout", "no method 'rolout'. Nearest: rollout"),
    ],
)
def test_a_benchmark_refuses_what_no_method_has_before_its_folder_is_written(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(cl.InputError, match=message):
        cl.benchmark("demo", ["simple_insertion", text], "demo:single", out=tmp_path / "run", images=1, progress=False)
    assert not (tmp_path / "run").exists()
