"""Learning rates come from the shipped table, from defaults for other models, or from the user.

`make tune` tunes the rates of the table on validation.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any

from capacity.errors import SpecError
from capacity.plan.model_names import parse_model
from capacity.plan.models import ALIASES
from capacity.spec.adapters import CHOSEN
from capacity.spec.methods import METHODS, Method
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec

_REACH = 10  # a tuned rate serves sizes up to so many times larger or smaller


def best_rate(accuracies: Sequence[float | None]) -> int | None:
    """Returns the index of the best of some rates in ascending order, None if no rate has an accuracy.

    Of neighbours with equal accuracy, the middle one is best, because the ends of a plateau lie nearer to rates that
    fail. Of several plateaus the longest counts, and then the one of smaller rates.
    """
    top = max((a for a in accuracies if a is not None), default=None)
    if top is None:
        return None
    plateaus = [
        list(indices) for at_top, indices in groupby(range(len(accuracies)), lambda i: accuracies[i] == top) if at_top
    ]
    plateau = max(plateaus, key=len)
    return plateau[(len(plateau) - 1) // 2]


def shipped() -> list[dict[str, Any]]:
    """Returns the rows of the table of tuned rates. Each has the trials that its rate was chosen from."""
    text = (files("capacity.plan") / "rates.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)["rates"]
    return rows


@dataclass(frozen=True)
class TunedRate:
    """A tuned rate is a shipped learning rate with its origin.

    Attributes:
        learning_rate: the best rate of those that were tried.
        at_edge: True if it was the smallest or the largest rate tried.
        tuned_at: the number of trained parameters at which rates were tried; None for an untuned default.
        borrowed: True if the rates were tried with a random projection, and the run has a chosen one.
    """

    learning_rate: float
    at_edge: bool
    tuned_at: int | None
    borrowed: bool = False


# Rates to begin with on models that none are tuned for, all within the range that TinyLoRA's authors tried for both
# methods, 1e-7 to 2e-4 (arXiv 2602.04118); they do not print which was best at which size. The fewer parameters, the
# larger. On another model and data the best may be ten times larger or smaller.
UNTUNED: dict[str, float] = {"lora": 1e-5, "full": 1e-6}
UNTUNED_SMALL = 1e-4  # of all other adapters


def tuned_rate(model: str, task: TaskSpec, method: Method, adapter: str, trained_parameters: int) -> TunedRate:
    """Returns the shipped learning rate of a method, tuned at the nearest size of the same adapter.

    Only the rate of sft depends on the demonstrations, and only on their style. All options of a style share a rate, so
    that they can be compared. Models that are not embedded get an untuned default.

    Raises:
        SpecError: if the model is embedded and no rate was tuned within a factor of ten of this size.
    """
    if not is_embedded(model):
        return TunedRate(UNTUNED.get(adapter, UNTUNED_SMALL), at_edge=False, tuned_at=None)
    own = _nearest(model, task, method, adapter, trained_parameters)
    lent = _nearest(model, task, method, adapter.removesuffix(CHOSEN), trained_parameters)
    row = own or lent
    if row is None:
        raise SpecError(
            f"no learning rate is tuned for {method}, {adapter} of {trained_parameters:,} parameters on {model}, "
            f"task {task.label}: give one with --learning-rates {method}=RATE"
        )
    return TunedRate(float(row["learning_rate"]), bool(row["at_edge"]), row["trained_parameters"], borrowed=own is None)


def rates_tried(spec: RunSpec, trained_parameters: int) -> int | None:
    """Returns the number of learning rates from which the rate of a run was chosen.

    It is None if the run has another rate than the shipped one.
    """
    rate = rate_taken(spec, trained_parameters)
    if rate is None or rate.tuned_at is None:
        return None
    row = _nearest(spec.model, spec.task, spec.method, spec.adapter.tuned_as, trained_parameters)
    return None if row is None else len(row["trials"])


def rate_taken(spec: RunSpec, trained_parameters: int) -> TunedRate | None:
    """Returns the shipped rate that a run took; None if the run has another rate, or if none ships."""
    if spec.training is None:
        return None
    try:
        rate = tuned_rate(spec.model, spec.task, spec.method, spec.adapter.tuned_as, trained_parameters)
    except SpecError:
        return None
    return rate if rate.learning_rate == spec.training.learning_rate else None


def _nearest(
    model: str, task: TaskSpec, method: Method, adapter: str, trained_parameters: int
) -> dict[str, Any] | None:
    """Returns the shipped row of the nearest size; None if there is none within a factor of `_REACH`."""
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
    """Tells whether a model is shipped in the package. The rates of these models are tuned."""
    base = parse_model(model).base
    return base in ALIASES and ALIASES[base].source == "embedded"


def _distance(one: int, other: int) -> float:
    """Returns the distance of two sizes on a logarithmic scale."""
    return abs(math.log(one) - math.log(other))


def rate_remarks(rates: Mapping[Method, TunedRate] | Mapping[str, TunedRate]) -> tuple[str, ...]:
    """What to know of shipped rates before methods are compared, a sentence each; nothing of those well inside.

    Args:
        rates: by what trains with them, in words.
    """
    remarks = [edge_remark(arm) for arm, rate in rates.items() if rate.at_edge]
    borrowed = [f"{arm} {rate.learning_rate:g}" for arm, rate in rates.items() if rate.borrowed]
    if borrowed:
        remarks.append(
            f"The rates {', '.join(borrowed)} were tuned with a random projection: tune them with capacity sweep "
            "before comparing methods or projections."
        )
    untuned = [f"{arm} {rate.learning_rate:g}" for arm, rate in rates.items() if rate.tuned_at is None]
    if untuned:
        remarks.append(
            f"The rates {', '.join(untuned)} are untuned defaults from the range that the paper tried: tune them with "
            "capacity sweep before comparing methods."
        )
    return tuple(remarks)


def edge_remark(arm: str) -> str:
    """What to know of a tuned rate that is the smallest or the largest of those tried."""
    return f"The tuned rate of {arm} lies at the edge of the rates tried: a better one may exist."


def parse_rates(text: str | None, methods: Sequence[Method]) -> dict[Method, float]:
    """Reads `0.01` (all methods) or `sft=0.003,grpo=0.01`.

    Raises:
        SpecError: if the text has another form, a rate is not positive, or a method is not among `methods`.
    """
    if text is None:
        return {}
    parts = [part.strip().rpartition("=") for part in text.split(",")]
    return _rates([(name if equals else None, value) for name, equals, value in parts], methods, repr(text))


def named_rates(given: float | Mapping[str, float] | None, methods: Sequence[Method]) -> dict[Method, float]:
    """Learning rates by method, from one for all of them or one for each.

    Raises:
        SpecError: a rate that is not positive, or a method that does not run.
    """
    if given is None:
        return {}
    pairs = given.items() if isinstance(given, Mapping) else [(None, given)]
    return _rates([(name, str(rate)) for name, rate in pairs], methods, str(given))


def _rates(pairs: Sequence[tuple[str | None, str]], methods: Sequence[Method], given: str) -> dict[Method, float]:
    """The rates of all that `methods` train; a pair without a name is for each of them."""
    rates: dict[Method, float] = {}
    wanted = tuple(dict.fromkeys(phase for m in methods for phase in METHODS[m].phases))
    for name, value in pairs:
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise SpecError(f"--learning-rates {given}: {value!r} is not a positive number")
        named = wanted if name is None else tuple(m for m in wanted if m == name)
        if not named:
            raise SpecError(f"--learning-rates {given}: {name!r} is not among the methods {', '.join(wanted)}")
        if any(m in rates for m in named):
            raise SpecError(f"--learning-rates {given} gives more than one rate for {name or named[0]}")
        rates.update(dict.fromkeys(named, rate))
    return rates
