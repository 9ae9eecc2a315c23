"""Graded answers that other programs wrote: one module a format, one type for all."""
