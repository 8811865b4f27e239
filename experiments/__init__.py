"""Measurements behind the documentation's tables, one script per subject: `python -m experiments.NAME`."""
