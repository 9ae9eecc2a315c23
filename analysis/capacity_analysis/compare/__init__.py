"""Cells side by side: methods at one size, sizes of a study, and two studies."""
