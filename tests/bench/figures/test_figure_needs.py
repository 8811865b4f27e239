"""What figures read, and plans that ask for no more."""

import pytest

import caap_lab as cl
from caap_lab.bench.figures.needs import Need, check_tables, narrowed, paper_figure_plan
from caap_lab.bench.figures.scripts import SHEETS, figure_sweeps, needs_of
from caap_lab.bench.paper.profiles import demo_plan
from caap_lab.bench.paper.settings import PaperSettings
from helpers.published_layouts import class_folders


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> PaperSettings:
    """Only ImageNet-1K is here, and none of DINOv2's heads."""
    source = class_folders(tmp_path_factory.mktemp("imagenet"))
    return PaperSettings(data={"ImageNet-1K": source}, images={"faithfulness": 2})


def needs(*names: str) -> list[Need]:
    return [need for some in needs_of(names).values() for need in some or ()]


def test_a_figure_asks_for_its_own_models_and_data_alone(imagenet: PaperSettings) -> None:
    plan = paper_figure_plan(imagenet, needs("fig01"))
    assert [(study.table, [model.label for model in study.models]) for study in plan.studies] == [(1, ["ViT-L/16"])]
    assert not any("ViT" in note for note in plan.notes)  # nobody left it out
    without = PaperSettings(data=imagenet.data, images=imagenet.images, without=("ViT-L/16",))
    assert [model.label for model in paper_figure_plan(without, needs("fig01")).studies[0].models] == ["CLIP-L/14"]


def test_all_that_a_figure_lacks_is_named_at_once(imagenet: PaperSettings) -> None:
    with pytest.raises(cl.InputError) as refused:
        paper_figure_plan(imagenet, needs("fig07"))
    assert "imagenet-s:PATH" in str(refused.value) and "DINOv2-L/14" in str(refused.value)
    assert "Food-101" not in str(refused.value) and "DINOv2-G/14" not in str(refused.value)


def test_chosen_tables_are_all_that_a_figure_is_drawn_from(imagenet: PaperSettings) -> None:
    settings = PaperSettings(
        data=imagenet.data, images=imagenet.images, tables=(1,), without=("DINOv2-L/14",), methods=("Rollout",)
    )
    plan = paper_figure_plan(settings, needs("fig07"))
    assert [study.table for study in plan.studies] == [1]
    with pytest.raises(cl.InputError, match=r"fig06 reads table 2, which the run does not have \(it has table 1\)"):
        check_tables(needs_of(["fig07", "fig06"]), [1], "")


def test_a_plan_has_the_models_of_all_figures(imagenet: PaperSettings) -> None:
    both = narrowed(demo_plan(1), [Need(1, "maps", n_models=1), Need(2, "maps", models=("CLIP-L/14",))])
    assert [[model.label for model in study.models] for study in both.studies] == [["demo"], ["demo-clip"]]
    three = narrowed(demo_plan(1), [Need(2, "maps", models=("CLIP-L/14",)), Need(2, "maps", n_models=1)])
    assert [model.label for model in three.studies[0].models] == ["demo", "demo-clip"]


def test_sweeps_are_those_of_three_figures() -> None:
    assert [(name, need.table, need.axis, len(need.values)) for name, need in figure_sweeps()] == [
        ("fig04", 1, "blank", 5),
        ("fig04", 2, "blank", 5),
        ("fig05", 1, "neighbourhood", 4),
        ("fig05", 2, "neighbourhood", 4),
        ("fig07", 1, "cutoff", 0),
        ("fig07", 2, "cutoff", 0),
    ]


def test_every_figure_says_what_it_reads() -> None:
    assert all(needs_of(["all", *SHEETS]).values())
    assert needs_of(["fig12"])["fig12"] == needs_of(["gallery"])["gallery"]
