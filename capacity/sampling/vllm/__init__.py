"""Samples from vLLM, in process or from a server, and proof that they come from the current update."""
