"""Learning rates: those shipped (tuned on validation by `make tune`), and those the user gives."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from capacity.config import Method, TaskSpec
from capacity.errors import SpecError


def size_class(adapter: str, trained_parameters: int) -> str:
    """The class that shares a tuned rate: adapter and decade of the size.

    Tinylora goes without its name: "1-9", "10-99", …, but "lora-xs 100-999". Full and bitfit have one size.
    """
    if adapter in ("full", "bitfit"):
        return adapter
    low = 10 ** (len(str(trained_parameters)) - 1)
    decade = f"{low}-{10 * low - 1}"
    return decade if adapter == "tinylora" else f"{adapter} {decade}"


def shipped() -> list[dict[str, Any]]:
    """The rows of the table of tuned rates, each with the trials it was chosen from."""
    text = (files("capacity.training") / "rates.json").read_text()
    rows: list[dict[str, Any]] = json.loads(text)["rates"]
    return rows


@dataclass(frozen=True)
class TunedRate:
    """A shipped rate; `at_edge` if the best rate was the smallest or the largest of those tried."""

    learning_rate: float
    at_edge: bool


def tuned_rate(model: str, task: TaskSpec, method: Method, adapter: str, trained_parameters: int) -> TunedRate:
    """The shipped learning rate for this method and size.

    GRPO sees no demonstrations, so its rate holds whatever their style.

    Raises:
        SpecError: none was tuned.
    """
    wanted = size_class(adapter, trained_parameters)
    for row in shipped():
        same_task = row["task"] == task.name and (method == "grpo" or row["demonstrations"] == task.demonstrations)
        if same_task and (row["model"], row["method"], row["sizes"]) == (model, method, wanted):
            return TunedRate(float(row["learning_rate"]), bool(row["at_edge"]))
    raise SpecError(
        f"no tuned learning rate for {method} of size {wanted} on {model}, task {task.name}"
        f"?demonstrations={task.demonstrations}: give one with --learning-rates {method}=RATE"
    )


def parse_rates(text: str | None, methods: tuple[Method, ...]) -> dict[Method, float]:
    """Reads `0.01` (all methods) or `sft=0.003,grpo=0.01`.

    Raises:
        SpecError: not of this form, a rate that is not positive, or a method that does not run.
    """
    if text is None:
        return {}
    rates: dict[Method, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().rpartition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise SpecError(f"--learning-rates {text!r}: {value!r} is not a positive number")
        named = methods if not equals else tuple(m for m in methods if m == name)
        if not named:
            raise SpecError(f"--learning-rates {text!r}: {name!r} is not among the methods {', '.join(methods)}")
        if any(m in rates for m in named):
            raise SpecError(f"--learning-rates {text!r} gives more than one rate for {name or named[0]}")
        rates.update(dict.fromkeys(named, rate))
    return rates
