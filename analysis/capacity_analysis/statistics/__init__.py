"""Estimators on arrays: intervals, curves, tests, code lengths."""
