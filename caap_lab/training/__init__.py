"""Training: classifiers for data sets of one's own, and the bundled demo models."""
