"""The `capacity` command: a thin layer over the Python API. Imports what a command needs only when it runs."""
