"""Drawing results; nothing here computes them."""
