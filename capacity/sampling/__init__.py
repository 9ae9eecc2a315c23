"""Completions and their evaluation: by the trainer's own model, or by another engine."""
