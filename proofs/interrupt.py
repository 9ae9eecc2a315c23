"""Interrupts commands with Ctrl-C at random moments and shows that each ends in one line and exit code 130.

    python proofs/interrupt.py [--tries 40] [--seed 0] [--last 4] [-- COMMAND of `capacity`]

Before Python reaches the first line of the command, it ends by the signal itself, without that line. This and a command
that had ended by itself are counted apart.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

COMMANDS = (
    ("--help",),
    ("models",),
    ("plan", "--model", "qwen2.5-7b", "--budget", "13"),
    ("threshold", "reference:tinylora-table2"),
    ("tasks",),
    ("evaluate", "abacus-0.2m"),
    ("compare", "--model", "abacus-0.2m", "--seeds", "1", "--no-report", "--out", "{}/study"),
)


def interruptible() -> None:
    """What is started in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(command: list[str], delay: float) -> tuple[int, str]:
    """Exit code and stderr of a command that gets Ctrl-C after some seconds, without lines of progress."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,  # noqa: PLW1509
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    return process.returncode, "".join(line for line in errors.splitlines(keepends=True) if not line.startswith("["))


def verdict(code: int, errors: str) -> str:
    """How a command ended, in words."""
    lines = errors.splitlines()
    if code == 130 and len(lines) == 1 and lines[0].startswith("capacity: interrupted"):
        return "interrupted"
    if code == 0 and not lines:
        return "had ended"
    if code in (-signal.SIGINT, 1) and not any("capacity_cli" in line for line in lines):
        return "before the first line"
    return f"WRONG: exit code {code}, {len(lines)} lines"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--last", type=float, default=4.0, help="latest moment, seconds")
    parser.add_argument("command", nargs="*", help="a command of `capacity`, after --; several by default")
    arguments = parser.parse_args()
    rng, ends = random.Random(arguments.seed), Counter[str]()
    commands = (tuple(arguments.command),) if arguments.command else COMMANDS
    for number in range(arguments.tries):
        with tempfile.TemporaryDirectory() as scratch:
            words = [word.format(scratch) for word in commands[number % len(commands)]]
            delay = rng.uniform(0, arguments.last)
            code, errors = interrupted([sys.executable, "-m", "capacity_cli", *words], delay)
        end = verdict(code, errors)
        ends[end.partition(":")[0]] += 1
        if end.startswith("WRONG"):
            print(f"capacity {' '.join(words)} after {delay:.3f} s: {end}\n{errors}", flush=True)
    print(f"{arguments.tries} tries: " + ", ".join(f"{count} {end}" for end, count in ends.most_common()))
    sys.exit(1 if "WRONG" in ends else 0)


if __name__ == "__main__":
    main()
