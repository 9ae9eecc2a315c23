"""Grading tells whether an answer is correct: by text, by number, or by third-party code in its own process."""
