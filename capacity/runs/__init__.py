"""Complete runs on disk, and what all analyses ask about them."""
