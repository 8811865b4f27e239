"""Measurements: cost in forward passes of the same model in the same run, and the error of approximations."""

import caap_lab  # noqa: F401  # before any module here imports timm, for a CPU-only torch
