"""Completes prompts with a model of transformers, one token of all sequences after the other."""
