"""Frozen specs say what a run is. Typed records hold what a run leaves behind."""
