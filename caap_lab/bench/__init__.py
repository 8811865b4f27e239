"""Benchmarks over models x methods x images, resumable, and their tables."""
