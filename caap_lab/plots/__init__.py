"""Drawing: arrays and data frames in, matplotlib axes out. Nothing here computes a result, and nothing else draws."""
