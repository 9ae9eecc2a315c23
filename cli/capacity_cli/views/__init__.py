"""Results as text for a terminal, imported on demand; a command each."""
