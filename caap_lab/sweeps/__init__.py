"""Sweeps of CAAP: images x values of one of its settings, resumable, with maps, metrics and plots."""
