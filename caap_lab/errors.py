"""Errors that users can act on: what was wrong, what was expected, what to do."""


class InputError(ValueError):
    """An argument is invalid; raised before any heavy work."""


class CheckpointError(InputError):
    """A weights file does not match the model, or is not safe to read."""
