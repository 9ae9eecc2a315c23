"""Adaptive designs: which runs of a threshold study to make next. Pure functions of what validation has shown."""
