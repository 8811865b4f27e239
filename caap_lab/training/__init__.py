"""Training of the bundled demo models."""
