"""Speed and memory beside stock TRL + PEFT, measured side by side: `python -m benchmarks.bench`, `make bench`."""
