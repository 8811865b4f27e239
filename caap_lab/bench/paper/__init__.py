"""The paper's tables: their parts, the settings of a run, the two profiles, and the report of `doctor`."""
