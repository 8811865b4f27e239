"""From maps to mechanisms: decompositions, the logit lens, ablations, tracing, path patching and interactions."""
