"""The smallest update that reaches a target, with an interval, and ratios between curves."""
