"""Metrics of maps: insertion and deletion curves, SaCo, and agreement with masks."""
