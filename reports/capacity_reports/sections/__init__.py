"""The sections of a report: each shows what the analysis found, or the reason why there is nothing to show."""
