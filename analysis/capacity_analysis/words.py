"""Numbers in words, the same on terminals, pages and in sentences."""


def times(value: float) -> str:
    """Writes a ratio with two digits: 12×, 0.35×."""
    return f"{float(f'{value:.2g}'):,.12g}×"
