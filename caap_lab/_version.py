"""The version, which files that the package writes carry."""

__version__ = "0.1.0"
