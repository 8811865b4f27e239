"""Code behind the scripts in figures/: data, checks, and parts that several figures share."""
