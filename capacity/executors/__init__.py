"""Where runs are made: local worker processes."""
