"""Learning rates: those shipped (tuned on validation by `make tune`), defaults for other models, and the user's."""

import json
import math
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from capacity.errors import SpecError
from capacity.plan.model_names import parse_model
from capacity.plan.models import ALIASES
from capacity.spec.methods import METHODS, Method
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec

_REACH = 10  # a tuned rate serves sizes up to so many times larger or smaller


def shipped() -> list[dict[str, Any]]:
    """The rows of the table of tuned rates, each with the trials it was chosen from."""
    text = (files("capacity.plan") / "rates.json").read_text()
    rows: list[dict[str, Any]] = json.loads(text)["rates"]
    return rows


@dataclass(frozen=True)
class TunedRate:
    """A shipped rate.

    Attributes:
        learning_rate: the best of those tried.
        at_edge: whether it was the smallest or the largest of them.
        tuned_at: the number of trained parameters at which they were tried; None for a default that nobody tuned.
    """

    learning_rate: float
    at_edge: bool
    tuned_at: int | None


# Rates to begin with on models that none are tuned for, all within the range that TinyLoRA's authors tried for both
# methods, 1e-7 to 2e-4 (arXiv 2602.04118); they do not print which was best at which size. The fewer parameters, the
# larger. On another model and data the best may be ten times larger or smaller.
UNTUNED: dict[str, float] = {"lora": 1e-5, "full": 1e-6}
UNTUNED_SMALL = 1e-4  # of all other adapters


def tuned_rate(model: str, task: TaskSpec, method: Method, adapter: str, trained_parameters: int) -> TunedRate:
    """The shipped learning rate of this method: the one tuned at the nearest size of the same adapter.

    Only sft's depends on the demonstrations, and on their style only: the knobs of a style share a rate, so that
    they can be compared. Models that are not embedded get a default that nobody tuned.

    Raises:
        SpecError: an embedded model, for which none was tuned within a factor of ten of this size.
    """
    if not is_embedded(model):
        return TunedRate(UNTUNED.get(adapter, UNTUNED_SMALL), at_edge=False, tuned_at=None)
    row = _nearest(model, task, method, adapter, trained_parameters)
    if row is None:
        raise SpecError(
            f"no learning rate is tuned for {method}, {adapter} of {trained_parameters:,} parameters on {model}, "
            f"task {task.label}: give one with --learning-rates {method}=RATE"
        )
    return TunedRate(float(row["learning_rate"]), bool(row["at_edge"]), row["trained_parameters"])


def rates_tried(spec: RunSpec, trained_parameters: int) -> int | None:
    """Among how many learning rates that of a run was chosen; None if it is not one that ships for such a run."""
    if spec.training is None or not is_embedded(spec.model):
        return None
    row = _nearest(spec.model, spec.task, spec.method, spec.adapter.kind, trained_parameters)
    return len(row["trials"]) if row is not None and row["learning_rate"] == spec.training.learning_rate else None


def _nearest(
    model: str, task: TaskSpec, method: Method, adapter: str, trained_parameters: int
) -> dict[str, Any] | None:
    """The shipped row of the nearest size; None if there is none within a factor of `_REACH`."""
    tuned = METHODS[method].rate_from
    near = [
        row
        for row in shipped()
        if (row["model"], row["task"], row["method"], row["adapter"]) == (model, task.name, tuned, adapter)
        and (tuned != "sft" or row["demonstrations"] == task.demonstrations)
        and _distance(row["trained_parameters"], trained_parameters) <= math.log(_REACH)
    ]
    return min(near, key=lambda row: _distance(row["trained_parameters"], trained_parameters), default=None)


def is_embedded(model: str) -> bool:
    """Whether a model is among those that are shipped, whose rates are tuned."""
    base = parse_model(model).base
    return base in ALIASES and ALIASES[base].source == "embedded"


def _distance(one: int, other: int) -> float:
    """The distance of two sizes on a logarithmic scale."""
    return abs(math.log(one) - math.log(other))


def parse_rates(text: str | None, methods: tuple[Method, ...]) -> dict[Method, float]:
    """Reads `0.01` (all methods) or `sft=0.003,grpo=0.01`.

    Raises:
        SpecError: not of this form, a rate that is not positive, or a method that does not run.
    """
    if text is None:
        return {}
    rates: dict[Method, float] = {}
    wanted = tuple(dict.fromkeys(phase for m in methods for phase in METHODS[m].phases))
    for part in text.split(","):
        name, equals, value = part.strip().rpartition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise SpecError(f"--learning-rates {text!r}: {value!r} is not a positive number")
        named = wanted if not equals else tuple(m for m in wanted if m == name)
        if not named:
            raise SpecError(f"--learning-rates {text!r}: {name!r} is not among the methods {', '.join(wanted)}")
        if any(m in rates for m in named):
            raise SpecError(f"--learning-rates {text!r} gives more than one rate for {name or named[0]}")
        rates.update(dict.fromkeys(named, rate))
    return rates
