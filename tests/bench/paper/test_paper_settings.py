"""Settings of the paper profile: names, files of settings, and what the command line puts over them."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import caap_lab as cl
from caap_lab.bench.paper.settings import PaperSettings, given_settings
from caap_lab.bench.paper.settings_file import Missing, read_settings, write_settings
from caap_lab.commands.bench_options import WHAT, add_bench_arguments, given_options, paper_settings, profile_plan
from caap_lab.data.folders import read_lines
from caap_lab.data.image_set import read_list
from caap_lab.variant import Variant

ODD = ["a b", 'a "b"', "a=b", "a#b", "a\\b", "a\tb", "Größe 图 😀", "a,b=c", "[a]", "a\x7fb", "a'b"]
"""What a path may have in it."""


# --- files ---


@pytest.mark.parametrize("odd", ODD, ids=[f"path{number}" for number in range(len(ODD))])
def test_a_file_of_settings_is_read_as_it_was_written(odd: str, tmp_path: Path) -> None:
    place = f"/data/{odd}"
    settings = PaperSettings(
        data={"ImageNet-1K": f"imagenet:{place}", "ImageNet-S": f"imagenet-s:{place}?images={place}"},
        image_lists={"ImageNet-S": place},
        models={
            "ViT-B/16": Variant("vit_base_patch16_224", {"checkpoint": place, "mean": [0.5, 0.5, 0.5]}, "ViT-B/16"),
            "Food-101/ViT-B/16": Variant(place, {"dtype": "bfloat16"}, "Food-101/ViT-B/16"),
        },
        heads={"DINOv2-L/14": place},
        tables=(3, 1),
        methods=("CAAP", "Libra IxG+"),
        without=("MDA", "Oxford-IIIT-Pet"),
        images={"faithfulness": 20, "table 8": 10},
        seed=4,
        protocol="rise-28",
        precision="bfloat16",
    )
    missing = [Missing("data", "Food-101", f"nothing at\n{place}", "food101:PATH")]
    write_settings(settings, tmp_path / "paper.toml", missing)
    assert read_settings(tmp_path / "paper.toml") == settings


def test_what_is_missing_is_a_line_to_fill_in(tmp_path: Path) -> None:
    missing = [
        Missing("data", "Food-101", "it comes from a place", "food101:PATH"),
        Missing("data", "ImageNet-1K", "There is no folder gone", "imagenet:PATH"),
    ]
    path = tmp_path / "paper.toml"
    write_settings(given_settings(data=["imagenet:/gone"]), path, missing)
    assert (
        '# missing: There is no folder gone\n"ImageNet-1K" = "imagenet:/gone"\n'
        '# missing: it comes from a place\n# "Food-101" = "food101:PATH"\n'
    ) in path.read_text()
    path.write_text(path.read_text().replace('# "Food-101" = "food101:PATH"', '"Food-101" = "food101:/here"'))
    assert read_settings(path).data == {"ImageNet-1K": "imagenet:/gone", "Food-101": "food101:/here"}


def test_relative_paths_count_from_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "elsewhere").mkdir()
    text = """
        [data]
        ImageNet-S = "imagenet-s:../masks?images=photos"
        Food-101 = "food101:~/food"
        [image_lists]
        ImageNet-S = "names.txt"
        [models]
        "ViT-B/16" = "./runs/vit=2:image_size=32"
        "ViT-L/16" = "vit_large_patch16_224:checkpoint=large.pth"
        "ViT-S/16" = "hf-hub:timm/vit_small"
        [heads]
        "DINOv2-L/14" = "/heads/large.pth"
    """
    path = tmp_path / "made" / "paper.toml"
    path.write_text(text)
    monkeypatch.chdir(tmp_path / "elsewhere")
    read, made = read_settings("../made/paper.toml"), Path("../made").absolute()
    assert read.data["ImageNet-S"] == f"imagenet-s:{made}/../masks?images={made}/photos"
    assert read.data["Food-101"] == "food101:~/food" and read.heads["DINOv2-L/14"] == "/heads/large.pth"
    assert read.image_lists["ImageNet-S"] == f"{made}/names.txt"
    assert read.models["ViT-B/16"] == Variant(f"{made}/runs/vit=2", {"image_size": 32}, "ViT-B/16")
    assert read.models["ViT-L/16"].options["checkpoint"] == f"{made}/large.pth"
    assert read.models["ViT-S/16"].name == "hf-hub:timm/vit_small"
    write_settings(given_settings(data=["pet:pets"]), tmp_path / "made" / "other.toml")  # from where one stands
    assert read_settings(tmp_path / "made" / "other.toml").data["Oxford-IIIT-Pet"] == f"pet:{Path.cwd()}/pets"


@pytest.mark.parametrize(
    "text, message",
    [
        ("tables = [1", "cannot be read as a TOML file of settings"),
        ("table = [1]", r"there is no setting 'table'. Nearest: tables.* The settings are tables, methods"),
        ("tables = 1", "tables is 1; it has to be a list of numbers"),
        ("tables = [true]", "tables: entry 1 is True; tables is a list of numbers"),
        ("tables = [16]", "The paper has no table 16"),
        ("seed = true", "seed is True; it has to be a whole number"),
        ("seed = -1", "seed is -1"),
        (
            "[data]\nImageNet-1k = 'imagenet:x'",
            "data: 'ImageNet-1k' is not one of .* names. Nearest: ImageNet-1K",
        ),
        ("[data]\nImageNet-1K = 'pet:x'", "data: ImageNet-1K is 'pet:x'; it has to be imagenet:PATH"),
        ("[data]\nImageNet-1K = ''", "data: ImageNet-1K is ''; data is a table of texts"),
        (
            "[models]\n'ViT-B/16' = 'runs/a=b'",
            r"models: ViT-B/16 is 'runs/a=b', in which the text before '=' is .*'\./'",
        ),
        ("[models]\n'ViT-B/16' = 3", "models: ViT-B/16 is 3; models is a table of texts"),
        ("[models]\n'ViT-B16' = 'x'", "models: 'ViT-B16' is not one of the paper's names. Nearest: ViT-B/16"),
        ("[models]\n'Pets/ViT-B/16' = 'x'", "'Pets' in 'Pets/ViT-B/16' is not one of the paper's data sets"),
        ("[models]\n'Food-101/ViT-B' = 'x'", "models: 'ViT-B' is not one of the paper's names. Nearest: ViT-B/16"),
        ("[models]\n'Food-101/ViT-S/16' = 'x'", "the paper does not use ViT-S/16 on Food-101; it uses ViT-B/16"),
        ("[images]\n'tables 8' = 3", "images: 'tables 8' is not a part of the paper. Nearest: table 8"),
        ("[images]\ntable16 = 3", "The paper has no table 16"),
        ("[images]\nfaithfulnes = 3", "Nearest: faithfulness"),
        ("[images]\ntable8 = 3\n'table 8' = 4", "images: table 8 is given twice"),
        ("[images]\nfaithfulness = 0", "faithfulness is 0; it has to be a number of images"),
        ("precision = 'bf16'", "precision is 'bf16'; it can be float32, tf32, bfloat16, float16"),
        ("protocol = 'raise'", "no protocol 'raise'"),
        ("without = ['CAP']", "without: 'CAP' is not one of the paper's names. Nearest: CAAP"),
    ],
    ids=range(24),
)
def test_errors_name_the_file_the_entry_and_what_is_expected(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "paper.toml"
    path.write_text(text)
    with pytest.raises(cl.InputError, match=message) as raised:
        read_settings(path)
    assert str(raised.value).startswith(str(path))


def test_what_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "paper.toml"
    with pytest.raises(cl.InputError, match="characters that are not text"):
        write_settings(given_settings(data=["imagenet:/a\udcff"]), path)
    with pytest.raises(cl.InputError, match="a path must not contain ':'"):
        write_settings(PaperSettings(models={"ViT-B/16": Variant("/a:b", {}, "ViT-B/16")}), path)
    assert not path.exists()


# --- the command line ---


def test_options_go_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "paper.toml"
    own = given_settings(
        data=["imagenet:/a", "pet:/b"],
        models=["ViT-B/16=vit_base_patch16_224", "Oxford-IIIT-Pet/ViT-B/16=/pets"],
        heads={"DINOv2-L/14": "/h"},
        images={"faithfulness": 20, "table 8": 10},
        without=["MDA"],
        seed=3,
    )
    write_settings(own, path)
    assert paper_settings(str(path), {}) == own
    over = {
        "data": ["pet:/c"],
        "models": ["Oxford-IIIT-Pet/ViT-B/16=/other"],
        "images": ["table8=5", "localisation=6"],
        "without": ["tam"],  # our name for it
        "head": ["DINOv2-S/14=/s"],
        "tables": [3],
    }
    read = paper_settings(str(path), over)
    assert read.data == {"ImageNet-1K": "imagenet:/a", "Oxford-IIIT-Pet": "pet:/c"}
    assert read.models["Oxford-IIIT-Pet/ViT-B/16"].name == "/other" and "ViT-B/16" in read.models
    assert read.images == {"faithfulness": 20, "table 8": 5, "localisation": 6}
    assert read.without == ("TAM",) and read.seed == 3 and read.tables == (3,)
    assert read.heads == {"DINOv2-L/14": "/h", "DINOv2-S/14": "/s"}
    everywhere = paper_settings(str(path), {"images": ["7"]})
    assert {everywhere.count(table, "ImageNet-1K") for table in (1, 4, 8, 14)} == {7}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data": ["imagenet:a", "imagenet:b"]}, "imagenet:PATH is given twice"),
        ({"data": ["imagnet:a"]}, "not one of the paper's data sets.* Nearest: imagenet"),
        ({"models": ["ViT-B/16=a", "ViT-B/16=b"]}, "models: ViT-B/16 is given 2 times"),
        ({"models": ["vit_base_patch16_224"]}, "models: 'vit_base_patch16_224' is not one of the paper's names"),
        ({"head": ["DINOv2-L/14=a", "DINOv2-L/14=b"]}, "--head: DINOv2-L/14 is given twice"),
        ({"head": ["DINOv2-X/14=a"]}, "heads: 'DINOv2-X/14' is not one of the paper's names. Nearest: DINOv2-"),
        ({"head": ["=a"]}, "--head =a has to be NAME=PATH"),
        ({"image_list": ["imagenet=a"]}, "image_lists: 'imagenet' is not one of the paper's names. Nearest: ImageNet"),
        ({"methods": ["MDAA"]}, "methods: 'MDAA' is not one of the paper's names. Nearest: MDA"),
        ({"images": ["tables 8=3"]}, "images: 'tables 8' is not a part of the paper. Nearest: table 8"),
        ({"images": ["table8=3", "table 8=3"]}, "images: table 8 is given twice"),
        ({"images": ["many"]}, "--images many has to be a number"),
    ],
    ids=range(12),
)
def test_names_on_the_command_line_are_checked(options: dict[str, list[str]], message: str) -> None:
    with pytest.raises(cl.InputError, match=message):
        paper_settings("paper", options)


def test_options_of_several_values_may_be_given_several_times() -> None:
    parser = argparse.ArgumentParser()
    add_bench_arguments(parser)
    texts = [
        "--data",
        "imagenet:/a",
        "--data",
        "pet:/b",
        "--without",
        "MDA",
        "--without",
        "TAM",
        "MUTEX",
        "--tables",
        "1",
    ]
    options = given_options(
        parser.parse_args([*texts, "--tables", "3", "--images", "table3=2", "--images", "table1=4"]), WHAT
    )
    settings = paper_settings("paper", options)
    assert settings.data == {"ImageNet-1K": "imagenet:/a", "Oxford-IIIT-Pet": "pet:/b"}
    assert settings.without == ("MDA", "TAM", "MUTEX") and settings.tables == (1, 3)
    assert settings.images == {"table 3": 2, "table 1": 4}


@pytest.mark.parametrize("read", [read_settings, read_list, read_lines], ids=["settings", "names", "lines"])
def test_files_in_another_encoding_than_utf8_are_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("tables = [1]", encoding="utf-16")  # as PowerShell writes
    with pytest.raises(cl.InputError, match=r"file cannot be read .*utf-8.*Save it .*in UTF-8"):
        read(tmp_path / "file")


def test_a_profile_that_is_not_there() -> None:
    for profile in ("papr", "gone/paper.toml"):
        with pytest.raises(cl.InputError, match=r"There is no profile .*Profiles are demo and paper, or a file of"):
            profile_plan(profile, {})


# --- models ---


def test_a_model_for_one_data_set_alone() -> None:
    settings = given_settings(
        models=["Oxford-IIIT-Pet/ViT-B/16=/pets", "ImageNet-Hard/ViT-B/16=hard", "ViT-B/16=all:image_size=32"],
        heads={"ViT-B/16": "/head"},
        precision="bfloat16",
    )
    pet = settings.model("Oxford-IIIT-Pet", "ViT-B/16")
    assert pet == Variant("/pets", {"dtype": "bfloat16"}, "ViT-B/16")  # the head is another model's
    assert settings.model("ImageNet-Hard", "ViT-B/16").name == "hard"
    usual = settings.model("ImageNet-1K", "ViT-B/16")
    assert usual == Variant("all", {"image_size": 32, "head": "/head", "dtype": "bfloat16"}, "ViT-B/16")
    assert settings.model("Food-101", "ViT-B/16") is None  # ImageNet's classes are not Food-101's
    assert replace(settings, precision="float32").model("ImageNet-Hard", "ViT-B/16").options == {}
