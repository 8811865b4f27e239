"""`caap-lab methods`: the attribution methods, with their requirements and costs."""

import argparse
import json

HELP = "list attribution methods"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Print two lines per method, or all facts as JSON."""
    from caap_lab.attribution.registry import methods

    rows = methods().reset_index().to_dict("records")
    if parsed.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        passes = f"{row['forwards']} forward, {row['backwards']} backward"
        about = f"{row['family']}; needs {row['needs']}; passes per image: {passes}; scores: {row['sign']}"
        print(f"{row['name']}\n  {row['source']}; {about}")
    return 0
