"""Tasks: prompts, demonstrations, graders, splits and evaluation protocols."""
