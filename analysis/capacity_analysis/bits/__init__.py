"""Which updates are the smallest at their accuracy, in bits."""
