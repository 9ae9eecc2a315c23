"""Updates on disk: native artifacts, PEFT folders, merged weights."""
