"""The version of the package. Whoever asks for it imports nothing else."""

__version__ = "0.1.0"
