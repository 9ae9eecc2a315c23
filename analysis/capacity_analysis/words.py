"""Numbers in words, the same on terminals, pages and in sentences."""


def times(value: float) -> str:
    """Writes a ratio with two digits: 12×, 0.35×."""
    return f"{float(f'{value:.2g}'):,.12g}×"


def minus(number: str) -> str:
    """Writes a number with the sign U+2212, which is as wide as a plus sign, in the place of a hyphen."""
    return number.replace("-", "−")
