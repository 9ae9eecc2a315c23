"""Frozen specs: what a run is, and what it leaves."""
