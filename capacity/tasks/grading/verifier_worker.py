"""Runs the process that compares answers by third-party code. `verifier` starts and watches it.

The process reads one JSON object per line and answers each with one line. The operating system limits its CPU time and
memory. So whatever an answer makes sympy do comes to an end, even if nobody watches any more.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

_MEMORY_BYTES = 4 * 1024**3
_PRECISION, _SAME_DIGITS = 60, 40  # decimal digits of an exact number that are computed, and that must agree
_TAIL = 4000  # characters from the end in which math-verify looks for an answer


def _limit_cpu(seconds: int) -> None:
    """Lets the kernel end this process after `seconds` more of CPU time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + 1 + seconds, hard))


def _undefined(reference: Any) -> bool:
    """Tells whether an expression of sympy has no value, as 1/0 has none. It equals nothing."""
    from sympy import Expr, nan, zoo

    return isinstance(reference, Expr) and bool(reference.doit().has(nan, zoo))


def _unequal(one: Any, other: Any) -> bool:
    """Tells whether two expressions of sympy certainly differ. math-verify calls numbers equal that are close.

    Exact numbers differ if they do so within 40 digits. Tuples and intervals differ if one of their parts does. Of
    everything else, decimals and expressions with variables too, nothing is certain.
    """
    from sympy import Expr, Float, Interval, Tuple

    if isinstance(one, Tuple | Interval) and type(one) is type(other) and len(one.args) == len(other.args):
        return any(_unequal(a, b) for a, b in zip(one.args, other.args, strict=True))
    for number in (one, other):
        if not isinstance(number, Expr) or number.free_symbols or number.has(Float) or not number.is_number:
            return False
    values = [number.doit().evalf(_PRECISION) for number in (one, other)]
    if not all(value.is_finite for value in values):
        return False
    scale = max(abs(value) for value in values)
    return bool(abs((one - other).doit().evalf(_PRECISION)) > scale * Float(10) ** -_SAME_DIGITS)


def _math() -> Callable[[dict[str, Any]], bool]:
    """Loads math-verify without its own time limits, which are signals and work in a main thread only."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)

    def right(request: dict[str, Any]) -> bool:
        gold = parse(f"${request['answer']}$", parsing_timeout=None) or parse(request["answer"], parsing_timeout=None)
        for text in (f"\\boxed{{{request['text']}}}",) if request["stated"] else (request["text"][-_TAIL:],):
            found = parse(text, parsing_timeout=None)
            if verify(gold, found, timeout_seconds=None):
                return not (gold and found and (_undefined(gold[0]) or _unequal(gold[0], found[0])))
        return False

    return right


def _gym() -> Callable[[dict[str, Any]], bool]:
    """Loads reasoning-gym, whose tasks score answers with code of their own."""
    import reasoning_gym

    @cache
    def dataset(task: str, config: str) -> Any:
        return reasoning_gym.create_dataset(task, **json.loads(config))

    def right(request: dict[str, Any]) -> bool:
        problems = dataset(request["task"], request["config"])
        return float(problems.score_answer(request["text"], problems[request["index"]])) >= 1.0

    return right


def main(kind: str, cpu_seconds: int) -> None:
    """Answers requests until the input ends."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    with suppress(ValueError, OSError):  # not every system limits memory
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    right = {"math": _math, "gym": _gym}[kind]()
    print("ready", file=answers, flush=True)
    for line in requests:
        _limit_cpu(cpu_seconds)
        try:
            answer = right(json.loads(line))
        except (Exception, RecursionError):  # an answer that cannot be read is not right
            answer = False
        print("1" if answer else "0", file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
