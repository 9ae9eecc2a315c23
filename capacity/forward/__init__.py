"""Computes what a model says of packed tokens: sequences that share a prompt, without padding."""
