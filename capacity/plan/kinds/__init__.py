"""The kinds of adapters as far as they can be planned: options, counts, and the largest update within a budget."""
