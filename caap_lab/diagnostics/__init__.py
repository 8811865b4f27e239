"""Diagnostics of a model's internals other than attribution maps."""
