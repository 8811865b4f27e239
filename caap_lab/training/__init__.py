"""Training: classifiers for custom data sets, and the bundled demo models."""
