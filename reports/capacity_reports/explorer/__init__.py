"""What a page lets a person explore: plain data for its scripts, bounded in size."""
