"""Where samples come from: the trainer's own model, or a vLLM engine that follows it."""
