"""capacity: how small an update teaches a language model a task, by SFT and by GRPO, through one adapter layer."""

__version__ = "0.1.0"
