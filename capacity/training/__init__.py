"""Trains the methods of a pair alike. Losses are pure functions, and TRL's trainers make the steps."""
