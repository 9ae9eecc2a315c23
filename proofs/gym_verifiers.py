"""Scans the verifiers of reasoning-gym: which of them give full marks to constants and to nonsense.

Each task answers its first items with texts that are no answers, or those of another item. What gets full marks though
it does not equal the reference is printed, with the share that `same_type` still lets through:

    python proofs/gym_verifiers.py --items 20

Full marks are not always a fault. A puzzle may have several solutions, and a constant is one of them now and then. A
task that takes longer than --seconds is scanned as far as it gets, and named at the end.
"""

import argparse
import contextlib
import io
import re
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

from capacity.tasks.grading.answer_type import same_type
from capacity.tasks.grading.numbers import number

CONSTANTS = (
    *("nan", "NaN", "inf", "-inf", "Infinity", "nanj", "nan+nanj", "infj", "1e999", "None", "null", "True", "False"),
    *("true", "yes", "no", "0", "1", "-1", "0.0", "5", "100", "0,0", "0 0 0", "[]", "{}", "()", "[[]]", "[0]", "[NaN]"),
    *('{"a": 1}', " ", ".", "-", "+", "?", "x", "a", "C", "0/0", "1/0", "answer", "lambda", "0123456789", "impossible"),
    *("6*4*1*1", "A", "P", "A → A → A", "(P ∨ ¬P)", "up", "on", "<answer></answer>", "\\infty"),
    "abcdefghijklmnopqrstuvwxyz",
)  # fmt: skip
_NUMERAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class _OutOfTime(BaseException):
    """The time of one task is up. Some verifiers catch every exception, so it is raised again each second."""


def probes(reference: str, other: str) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of what an item is answered with."""
    yield from ((repr(text), text) for text in CONSTANTS)
    if reference:
        for name in ("NaN", "Infinity", "0"):
            yield f"the reference with {name} for its numbers", _NUMERAL.sub(name, reference)
    value = number(reference)
    if value is not None:
        yield "the reference plus 1", str(int(value) + 1)
        yield "twice the reference and 7 more", str(2 * int(value) + 7)
    yield "the reference of the item before", other


def equal(one: str, other: str) -> bool:
    """Tells whether two answers differ in nothing but case, blanks and the notation of a number."""
    if one.casefold().split() == other.casefold().split():
        return True
    return number(one) is not None and number(one) == number(other)


def scan(task: str, items: int, seconds: float) -> tuple[Counter[str], Counter[str], int, bool]:
    """Returns the full marks by probe, without and with the guard, the number of items, and whether time sufficed."""
    import reasoning_gym

    paid: Counter[str] = Counter()
    guarded: Counter[str] = Counter()
    done, whole = 0, True
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        problems = reasoning_gym.create_dataset(task, seed=42, size=items)
        before = "?"
        for index in range(items):
            problem = problems[index]
            reference = "" if problem["answer"] is None else str(problem["answer"])
            for name, text in probes(reference, before):
                if not equal(text, reference) and _full_marks(problems, problem, text):
                    paid[name] += 1
                    guarded[name] += same_type(text, reference)
            before, done = reference, done + 1
    except _OutOfTime:
        whole = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return paid, guarded, done, whole


def _full_marks(problems: Any, problem: Any, text: str) -> bool:
    try:
        return float(problems.score_answer(text, problem)) >= 1.0
    except Exception:
        return False


def _stop(*_: object) -> None:
    raise _OutOfTime


def main() -> None:
    """Prints the findings as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20, help="items of each task")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each task")
    parser.add_argument("tasks", nargs="*", help="tasks; all of them if none is named")
    asked = parser.parse_args()
    from reasoning_gym.factory import DATASETS

    signal.signal(signal.SIGALRM, _stop)
    cut: list[str] = []
    names = asked.tasks or [name for name in DATASETS if name != "composite"]
    print("| task | answered with | full marks | with the guard |\n|---|---|---|---|")
    for task in names:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            paid, guarded, items, whole = scan(task, asked.items, asked.seconds)
        if not whole:
            cut.append(f"{task} ({items})")
        for name, count in paid.most_common():
            print(f"| `{task}` | {name} | {count} of {items} | {guarded[name]} of {items} |", flush=True)
    print(f"\n{len(names)} tasks. Cut short, with the number of items: {', '.join(cut) or 'none'}.")


if __name__ == "__main__":
    main()
