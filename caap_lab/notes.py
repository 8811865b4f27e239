"""Notes for users: a quiet line among a notebook's outputs, and a warning of the log elsewhere."""

import logging
import sys


def note(message: str) -> None:
    """Tell the user something that is no error; it is printed in Jupyter, which shows logged warnings loud as errors.

    Args:
        message: In whole sentences.
    """
    if _in_notebook():
        print(f"Note: {message}")
    else:
        logging.getLogger("caap_lab").warning("%s", message)


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, without loading IPython for the question."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
