"""The commands with their options; what they do is in the modules beside this package, imported on demand."""
