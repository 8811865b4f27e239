"""Notes for users: a plain line in a notebook's output, and a logged warning elsewhere."""

import logging
import sys


def note(message: str) -> None:
    """Tell the user something that is not an error; printed in Jupyter, which displays logged warnings like errors.

    Args:
        message: Complete sentences.
    """
    if _in_notebook():
        print(f"Note: {message}")
    else:
        logging.getLogger("caap_lab").warning("%s", message)


def _in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel, without loading IPython to find out."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
