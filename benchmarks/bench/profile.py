"""Profiles: the CPU seconds of each part of a step and of a comparison, and what their products take by themselves."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.bench.commands import run
from benchmarks.bench.table import number
from benchmarks.bench.turns import Call, Say, alternate
from benchmarks.bench.workloads import SMALL_GRPO, SMALL_SFT, Workload

COLUMNS = {  # of the table of a step, by their names in what a side says
    "gflop": "GFLOP of linear layers",
    "alone": "these products alone, CPU s",
    "square": "at the rate of 1024 × 1024, CPU s",
    "operations": "operations of torch",
}
SEEDS = 1  # runs of each method of the comparison


@dataclass(frozen=True)
class Profile:
    """The parts of some work.

    Attributes:
        subject: the work.
        columns: what stands beside the CPU seconds of each part.
        rows: the parts, those that took longest first: CPU seconds, then a value for each column.
    """

    subject: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        rows = {name: list(values) for name, values in self.rows.items()}
        return {"subject": self.subject, "columns": list(self.columns), "rows": rows}

    def table(self) -> str:
        """Returns a Markdown table with a row for each part and their sums at the end."""
        sums = tuple(sum(values) for values in zip(*self.rows.values(), strict=True))
        head = ("", "CPU s", "share", *self.columns)
        lines = [head]
        for name, values in (*self.rows.items(), ("sum", sums)):
            share = f"{100 * values[0] / sums[0]:.0f} %"
            lines.append((name, number(values[0]), share, *map(number, values[1:])))
        written = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines]
        return "\n".join([f"**{self.subject}**:", "", written[0], "|---" * len(head) + "|", *written[1:]])


def profile_of(raw: Mapping[str, Any]) -> Profile:
    """Returns a profile from its JSON."""
    return Profile(raw["subject"], tuple(raw["columns"]), {name: tuple(row) for name, row in raw["rows"].items()})


def tables(profiles: Sequence[Profile]) -> str:
    """Returns the tables of several profiles."""
    return "\n\n".join(profile.table() for profile in profiles)


def measure(say: Say) -> Iterator[Profile]:
    """Yields the profiles of a step of GRPO, of SFT in the first and in a later run of a seed, and of a comparison."""
    yield _step(SMALL_GRPO, say)
    yield _step(SMALL_SFT, say)
    yield _step(SMALL_SFT, say, later=True)
    yield _comparison(say)


def _step(workload: Workload, say: Say, *, later: bool = False) -> Profile:
    """Returns the means over the steps after the warm-up."""
    which = ", later run of a seed" if later else ""
    subject = f"{workload.method.upper()} step{which}, {workload.label}, mean of {workload.turns} steps"
    call = Call("ours:step_parts", {"spec": workload.spec.model_dump(mode="json"), "later": later})
    found = alternate({"ours": call}, 1, 0, lambda text: say(f"{subject}: {text}"))
    return Profile(subject, tuple(COLUMNS.values()), _means(found["ours"].facts["steps"][workload.warm_up :]))


def _means(steps: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, tuple[float, ...]]:
    """Returns the mean of each value of each part over steps. A part that a step does not have counts as nothing."""
    names = dict.fromkeys(name for step in steps for name in step)
    means = {
        name: tuple(fmean(step.get(name, {}).get(value, 0.0) for step in steps) for value in ("cpu", *COLUMNS))
        for name in names
    }
    return _longest_first(means)


def _longest_first(rows: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    return dict(sorted(rows.items(), key=lambda row: -row[1][0]))


def _comparison(say: Say) -> Profile:
    """Returns the parts of the two workers of a comparison, and of the process that started them."""
    subject = f"capacity compare --seeds {SEEDS}, nothing cached, two workers"
    say(f"{subject} starts")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "benchmarks.bench.worker_parts", scratch, "--seeds", str(SEEDS)]
        used = run(command, {"CAPACITY_CACHE": f"{scratch}/cache"})
    seconds: dict[str, float] = json.loads(used.output)
    seconds["process that starts the workers"] = used.cpu - sum(seconds.values())
    return Profile(subject, (), _longest_first({name: (value,) for name, value in seconds.items()}))
