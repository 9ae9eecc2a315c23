"""From a question to the specs of its runs: sizes, budgets, rates, study files, costs. Nothing here imports torch."""
