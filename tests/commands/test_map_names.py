"""File names of `caap-lab map`."""

import argparse

import pytest

from caap_lab.commands import map as map_command
from caap_lab.commands.map_names import method_name
from caap_lab.variant import parse_variant

DEFAULTS = {"direction": "insert", "cutoff": None, "blank": "white", "seed": 0}


def name_of(*flags: str) -> str:
    parser = argparse.ArgumentParser()
    map_command.add_arguments(parser)
    parsed = parser.parse_args(["--demo", *flags])
    variant = parse_variant(parsed.method)
    return method_name(variant, map_command._options(variant, parsed), DEFAULTS, parsed)


@pytest.mark.parametrize(
    "flags, name",
    [
        ((), "caap"),
        (("--direction", "insert", "--chunk-size", "8", "--max-memory", "2", "--device", "cuda"), "caap"),
        (("--direction", "remove"), "caap_direction-remove"),
        (("--method", "caap:cutoff=0.5", "--target", "tabby cat"), "caap_cutoff-0.5_target-tabby_cat"),
        (("--method", "mine=caap:cutoff=0.5", "--seed", "3", "--logit"), "mine_seed-3_logit"),
        (("--mean", "0.5", "0.5", "1", "--dtype", "float64"), "caap_mean-0.5_0.5_1.0_dtype-float64"),
        (("--checkpoint", "runs/a/best.pth"), "caap_checkpoint-runs_a_best.pth"),
    ],
)
def test_what_changes_a_map_is_in_its_file_name(flags: tuple[str, ...], name: str) -> None:
    assert name_of(*flags) == name


def test_every_flag_is_in_the_name_or_changes_no_map() -> None:
    parser = argparse.ArgumentParser()
    map_command.add_arguments(parser)
    same = {"help", "images", "demo", "method", "device", "out", "json", "chunk_size", "max_memory"}
    for action in parser._actions:
        if action.dest not in same:
            values = [] if action.nargs == 0 else ["1"] * (action.nargs or 1)
            assert action.dest in name_of(action.option_strings[0], *values), action.dest


def test_long_names_stay_short_and_differ() -> None:
    long, other = (name_of("--checkpoint", "\u00fc" * 300 + end) for end in "ab")
    assert long != other and len(long.encode()) <= 150


def test_a_long_path_is_its_last_part_and_a_digest() -> None:
    first, second = (name_of("--checkpoint", f"/data/{'runs' * 10}/{run}/model.safetensors") for run in "ab")
    assert first.startswith("caap_checkpoint-model.safetensors-") and len(first) < 45
    assert first != second
