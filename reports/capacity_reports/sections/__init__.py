"""The sections of a report, each from what the analysis found, or with the reason why there is nothing in it."""
