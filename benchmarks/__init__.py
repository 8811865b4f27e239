"""Measurements: cost in forward passes of the same model in the same run, and the error of approximations."""
