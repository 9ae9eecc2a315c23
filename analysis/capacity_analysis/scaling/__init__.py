"""Threshold size against model size."""
