"""The paper's tables: its parts, settings of a run, the two profiles, and what `doctor` tells."""
