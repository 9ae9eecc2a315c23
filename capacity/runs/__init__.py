"""Stores complete runs, and describes them for all analyses."""
