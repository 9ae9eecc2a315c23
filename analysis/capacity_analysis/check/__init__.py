"""A study against its baseline, for CI."""
