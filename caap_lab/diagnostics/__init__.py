"""Looking at what happens inside a model, beside attribution maps."""
