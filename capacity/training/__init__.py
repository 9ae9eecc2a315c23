"""Trains the methods of a pair alike. Losses are pure functions, and the loop makes the steps."""
