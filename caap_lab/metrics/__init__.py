"""Numbers for maps: insertion and deletion curves, and agreement with masks."""
