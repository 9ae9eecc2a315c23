"""Arms of one size side by side."""
