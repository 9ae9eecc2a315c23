"""Checks on a GPU what the tests check on a CPU: training, packed passes, memory, speed, runs together, vLLM.

    python -m proofs.gpu_check [--minutes 8] [--tiny]

It needs no network. Models of random numbers, in the shapes of Qwen2.5-0.5B and -3B, are made in a temporary folder.
"""
