"""Measures a trained model in other ways than by its accuracy."""
