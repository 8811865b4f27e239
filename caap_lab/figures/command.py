"""The command `caap-lab figures`."""

import argparse

from caap_lab.commands.bench import options_of, profile_plan
from caap_lab.figures.make import check_names, make
from caap_lab.figures.world import World

SWEEP_IMAGES = {"demo": 8, "paper": None}
"""Images of each data set in the sweeps of figures 4, 5 and 7; None is all of the tables' images."""


def figures(parsed: argparse.Namespace) -> int:
    """Draw figures and tables of a profile, computing what is missing; prints the files."""
    names = check_names(parsed.names)
    running, choices = options_of(parsed)
    plan = profile_plan(parsed.profile, choices)
    world = World(plan, parsed.run_folder or parsed.out / "results", running, SWEEP_IMAGES[parsed.profile])
    for path in make(names, world, parsed.out):
        print(path)
    return 0
