"""The command line, one file per command: its flags in `add_arguments`, and `run`, which loads what it needs."""
