"""Errors that a person can act on: what was wrong, what was expected, what to do."""


class InputError(ValueError):
    """Something given by the caller cannot be used; raised before any heavy work."""


class CheckpointError(InputError):
    """A weights file does not fit the model, or is not safe to read."""
