"""Tasks provide prompts, demonstrations, graders and splits."""
