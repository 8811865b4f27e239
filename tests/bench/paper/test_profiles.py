"""Plans of the two profiles: what they are made of, what is left out of them, and what is missing for them."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import caap_lab as cl
from caap_lab import cli
from caap_lab.bench.paper.parts import DATASETS, MODELS
from caap_lab.bench.paper.profiles import demo_plan, left_out, paper_plan
from caap_lab.bench.paper.published import METHODS
from caap_lab.bench.paper.settings import PaperSettings, given_settings
from caap_lab.bench.paper.settings_file import read_settings
from caap_lab.bench.plan import BenchmarkPlan
from caap_lab.variant import parse_variant
from helpers import published_layouts
from helpers.paper_models import vit_folder

HEADS = {f"DINOv2-{size}/14": "head.pth" for size in "SBLG"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return published_layouts.all_five(tmp_path_factory.mktemp("data"))


def plan_of(sources: dict[str, str], *names: str, **options: object) -> BenchmarkPlan:
    return paper_plan(given_settings(**{"data": [sources[name] for name in names], "images": 2, **options}))


# --- the paper profile ---


def test_a_plan_of_some_tables(sources: dict[str, str]) -> None:
    models = ["ResNet-18=demo-cnn", "ViT-B/16=vit_base_patch16_224"]
    plan = plan_of(sources, "ImageNet-1K", tables=[14, 10], heads={"DINOv2-L/14": "head.pth"}, models=models)
    assert [study.table for study in plan.studies] == [10, 14]
    found = {spec.label: spec.text for study in plan.studies for spec in study.models}
    assert found["DINOv2-L/14"] == "vit_large_patch14_dinov2.lvd142m:image_size=224,crop_pct=0.875,head=head.pth"
    assert found["ResNet-18"] == "demo-cnn" and found["VGG-16"] == MODELS["VGG-16"]
    assert len(plan.trials) == 2 * 2 * 4 + 2 * 3 * 4
    assert all(study.target == "prediction" for study in plan.studies)


def test_a_table_is_made_from_the_data_that_are_there(sources: dict[str, str]) -> None:
    pets = {"models": ["Oxford-IIIT-Pet/ViT-B/16=/pets"], "heads": HEADS}
    plan = plan_of(sources, "ImageNet-1K", "ImageNet-S", "Oxford-IIIT-Pet", **pets)
    assert sorted({study.table for study in plan.studies}) == list(range(1, 16))
    third = {study.data.label: study.models[0] for study in plan.studies if study.table == 3}
    assert list(third) == ["Oxford-IIIT-Pet"] and third["Oxford-IIIT-Pet"].text == "/pets"
    (study,) = (study for study in plan.studies if study.table == 2)
    assert study.target == "label" and study.models
    notes = "Table 3 is left out in part: there is no copy of ImageNet-Hard and Food-101."
    assert plan.notes[-1] == notes
    settings = given_settings(data=[sources["ImageNet-1K"]], without=["MDA", "Food-101", "VGG-16"])
    *_, third_table, asked = left_out(settings)
    assert third_table == "Table 3 is left out: there is no copy of Oxford-IIIT-Pet and ImageNet-Hard."
    assert asked == "Left out on request: Food-101, VGG-16, MDA."
    some = left_out(given_settings(data=[sources["ImageNet-1K"]], tables=[1, 2, 5]))
    assert some == ["Tables 2 and 5 are left out: there is no copy of ImageNet-S."]


def test_all_that_is_missing_is_named_at_once(sources: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("gone.jpg\n")
    options = {
        "data": [sources["ImageNet-1K"], sources["Oxford-IIIT-Pet"], "imagenet-hard:/gone"],
        "tables": [1, 3, 2, 10],
        "image_lists": {"ImageNet-1K": tmp_path / "names.txt"},
    }
    with pytest.raises(cl.InputError) as raised:
        paper_plan(given_settings(**options))
    first, *told = str(raised.value).split("\n  - ")
    assert first == "6 things are missing or cannot be used:" and len(told) == 6
    assert told[0].startswith(
        "For table 2 there is no ImageNet-S (--data imagenet-s:PATH). Without it: --tables 1 3 10"
    )
    assert told[1].startswith("ImageNet-1K: ") and "gone.jpg" in told[1]
    assert told[3].startswith("ImageNet-Hard: There is no folder /gone")
    assert told[2] == "Oxford-IIIT-Pet has 2 images, and 500 are due: --images 2 if that is meant."
    assert told[4].startswith("DINOv2-L/14 needs DINOv2's linear head") and "--without DINOv2-L/14" in told[4]
    train = f"`caap-lab train {MODELS['ViT-B/16']} --data {sources['Oxford-IIIT-Pet']} --out FOLDER` trains one"
    assert '--models "Oxford-IIIT-Pet/ViT-B/16=FOLDER"' in told[5] and train in told[5]
    assert "--without Oxford-IIIT-Pet omits the data set" in told[5]


def test_what_is_missing_is_named_alone_if_it_is_all(sources: dict[str, str]) -> None:
    with pytest.raises(cl.InputError, match=r"^For table 2 there is no ImageNet-S .*--tables 14"):
        plan_of(sources, "ImageNet-1K", tables=[2, 14])
    with pytest.raises(cl.InputError, match=r"^DINOv2-L/14 needs DINOv2's linear head.*--head DINOv2-L/14=PATH"):
        plan_of(sources, "ImageNet-1K", tables=[1])
    with pytest.raises(cl.InputError, match=r"^For tables 1, 2, .* there is no ImageNet-1K \(--data imagenet:PATH\)"):
        paper_plan(PaperSettings())
    with pytest.raises(cl.InputError, match="all data sets, models or methods of the chosen tables are omitted"):
        plan_of(sources, "ImageNet-1K", tables=[14], methods=["MDA"])
    with pytest.raises(cl.InputError, match="For table 14 all data sets are omitted"):
        plan_of(sources, "ImageNet-1K", tables=[14], without=["ImageNet-1K"])


def test_fewer_images_than_the_papers_have_to_be_meant(sources: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(cl.InputError, match=r"^ImageNet-1K has 4 images, and 500 are due: --images 4"):
        plan_of(sources, "ImageNet-1K", tables=[14], images=None)
    assert len(plan_of(sources, "ImageNet-1K", tables=[14], images={"faithfulness": 4}).studies[0].data.names) == 4
    images = cl.open_images(sources["ImageNet-1K"])
    images[:3].save_list(tmp_path / "names.txt")
    listed = plan_of(
        sources, "ImageNet-1K", tables=[14], images=None, image_lists={"ImageNet-1K": tmp_path / "names.txt"}
    )
    assert listed.studies[0].data.names == tuple(sample.name for sample in images[:3])


def test_what_is_left_out_needs_nothing(sources: dict[str, str]) -> None:
    without = ["DINOv2-L/14", "CLIP-L/14", "MDA"]
    plan = plan_of(sources, "ImageNet-1K", tables=[1], without=without)
    (study,) = plan.studies
    assert [model.label for model in study.models] == ["ViT-L/16", "DeiT3-L/16"]
    assert "MDA" not in [method.label for method in study.methods] and len(study.methods) == 9
    (some,) = plan_of(sources, "ImageNet-1K", tables=[1], without=without, methods=["caap", "TAM"]).studies
    assert [method.label for method in some.methods] == ["TAM", "CAAP"]  # in the paper's order


def test_settings_change_no_key_of_what_ran_before(sources: dict[str, str]) -> None:
    """A default that is written out, a table's own number, and a number format that is the usual one."""
    plain = plan_of(sources, "ImageNet-1K", tables=[14])
    models = [f"ResNet-50={MODELS['ResNet-50']}"]
    written = plan_of(sources, "ImageNet-1K", tables=[14], models=models, precision="float32", images={"table 14": 2})
    assert [trial.key for trial in written.trials] == [trial.key for trial in plain.trials]
    other = plan_of(sources, "ImageNet-1K", tables=[14], precision="bfloat16")
    assert not {trial.key for trial in other.trials} & {trial.key for trial in plain.trials}


# --- the demo profile ---


def test_the_demo_profile_leaves_out_by_the_papers_names() -> None:
    plan = demo_plan(2, [1, 14], methods=["CAAP", "rollout"], without=["CLIP-L/14"])
    first, *_ = plan.studies
    assert [model.label for model in first.models] == ["demo", "demo-dinov2", "demo-deit3"]
    assert [method.label for method in first.methods] == ["Rollout", "CAAP"]
    assert plan.notes[-1].startswith("Left out on request: CLIP-L/14, Grad-CAM")
    usual = demo_plan(2, [1, 14])
    assert {trial.key for trial in plan.trials} < {trial.key for trial in usual.trials}
    assert not any("Left out" in note for note in usual.notes)
    with pytest.raises(cl.InputError, match=r"methods: 'CAPA' is not one of the paper's names\. Nearest: CAAP"):
        demo_plan(2, methods=["CAPA"])
    with pytest.raises(cl.InputError, match="Nothing is left to compute"):
        demo_plan(2, [14], methods=["MDA"])


# --- the command ---


def test_bench_says_what_is_left_out_and_keeps_its_settings(
    sources: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = vit_folder(tmp_path / "vit"), tmp_path / "run"
    given = [
        "--data",
        sources["ImageNet-1K"],
        "--models",
        f"ViT-L/16={folder}",
        "--methods",
        "Rollout",
        "--images",
        "1",
    ]
    given += ["--without", "CLIP-L/14", "DINOv2-L/14", "DeiT3-L/16", "--tables", "1", "--protocol", "patches"]
    assert cli.main(["doctor", "--no-timing", *given, "--write", str(tmp_path / "paper.toml")]) == 0
    capsys.readouterr()
    assert cli.main(["bench", "--profile", str(tmp_path / "paper.toml"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Left out on request: CLIP-L/14, DINOv2-L/14, DeiT3-L/16, Grad-CAM, " in printed
    assert "1 of 1 trials are computed." in printed
    assert read_settings(out / "paper.toml") == read_settings(tmp_path / "paper.toml")
    assert json.loads((out / "plan.json").read_text())["notes"][-1].startswith("Left out on request")
    assert cli.main(["bench", "--out", str(out)]) == 0  # goes on without settings
    (out / "paper.toml").write_text(f"# mine\n{(out / 'paper.toml').read_text()}")
    assert cli.main(["bench", "--profile", str(out / "paper.toml"), "--out", str(out)]) == 0
    assert (out / "paper.toml").read_text().startswith("# mine\n")
    assert cli.main(["bench", "--profile", "paper", *given[:-4], "--tables", "99", "--out", str(out)]) == 2
    assert tomllib.loads((out / "paper.toml").read_text())["tables"] == [1]  # a refused run changes nothing
    assert "The paper has no table 99" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given, message",
    [
        (["--profile", "papr"], "There is no profile or file 'papr'. Nearest: paper."),
        (["--profile", "demo", "--seed", "1"], "--seed cannot be used with --profile demo."),
        (["--profile", "demo", "--models", "demo"], "--models cannot be used with --profile demo."),
        (["--profile", "paper", "--metrics", "saco"], "--metrics cannot be used with --profile paper."),
    ],
    ids=["unknown", "seed", "models", "metrics"],
)
def test_what_does_not_go_with_a_profile(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *given, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_names_of_the_paper_are_the_published_ones() -> None:
    settings = PaperSettings()
    for table in settings.wanted:
        for dataset in settings.datasets(table):
            assert dataset in DATASETS
            assert set(settings.model_names(table, dataset)) <= set(MODELS)
            assert set(settings.method_names(table, dataset)) <= set(METHODS)
    assert all(replace(parse_variant(text), label="").text == text for text in MODELS.values())
