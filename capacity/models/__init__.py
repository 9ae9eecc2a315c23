"""Models and where their weights come from: the package, a folder, the hub, a GGUF file, or pre-training."""
