"""Models get their weights from the package, a folder, the hub, a GGUF file, or pre-training."""
