"""Replacing activations in a run, one patch or whole sweeps."""
