"""Truncated SVD factors of a model's weights, and their cache."""
