"""Whether an answer is right: by text, by number, or by code of others in a process of its own."""
