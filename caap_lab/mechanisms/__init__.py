"""From maps to mechanisms: what decomposes, looks through a lens, ablates, traces and connects."""
