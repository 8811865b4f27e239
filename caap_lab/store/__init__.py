"""Recording activations and keeping them, in memory or on disk."""
