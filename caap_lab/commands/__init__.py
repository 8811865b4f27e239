"""The command line, one file per command: `add_arguments` adds its flags, and `run` imports what it needs."""
