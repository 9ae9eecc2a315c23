"""Runs on disk: one immutable folder a run, the study around them, the points table read from them."""
