"""Statistics on runs and points: pure functions, frozen results, no torch."""
