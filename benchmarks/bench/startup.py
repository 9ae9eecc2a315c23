"""How long commands take that compute little, against the start of TRL's command."""

from collections.abc import Iterator

from benchmarks.bench.commands import Used, installed, run
from benchmarks.bench.figures import Figure, Quantity
from benchmarks.bench.turns import Say

REPEATS = 5
COMMANDS = {
    "capacity --help": ("--help",),
    "capacity plan": ("plan", "--model", "qwen2.5-3b", "--budget", "100"),
    "capacity threshold": ("threshold", "reference:tinylora-table2"),
}


def measure(say: Say) -> Iterator[Figure]:
    """Yields a figure for each command."""
    stock = [installed("trl"), "--help"]
    for name, arguments in COMMANDS.items():
        pairs: list[tuple[Used, Used]] = []
        for turn in range(-1, REPEATS):  # the first pair fills the caches of the file system
            pair = run([installed("capacity"), *arguments]), run(stock)
            say(f"{name}: turn {turn + 2} of {REPEATS + 1}, CPU seconds: ours {pair[0].cpu:.2f}, trl {pair[1].cpu:.2f}")
            pairs += [pair] if turn >= 0 else []
        quantities = (
            Quantity("CPU s", *(tuple(used.cpu for used in side) for side in zip(*pairs, strict=True))),
            Quantity("wall s", *(tuple(used.wall for used in side) for side in zip(*pairs, strict=True))),
        )
        yield Figure("startup", name, "trl --help", quantities)
