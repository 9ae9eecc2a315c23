"""Description lengths: of data, of rewards, of updates."""
