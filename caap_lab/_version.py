"""The version, which is recorded in files that the package writes."""

__version__ = "0.1.0"
