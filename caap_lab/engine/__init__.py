"""Patched contexts: a blank image's run in which a few tokens are live (arXiv 2603.13652, eqs 1 and 2)."""
