"""The description lengths of a study, method by method: from what its runs recorded, and nothing guessed.

Every quantity is a mean over the seeds of an arm with Student's interval, or the reason why it is absent. Code lengths
of demonstrations hold the noise of their wording, rewards are a channel's capacity, and an update's bits are those of a
file: three categories that are shown side by side and never divided by one another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from capacity.errors import DataError
from capacity.runs.study import Run
from capacity.spec.methods import place
from capacity.spec.result import Result, Step
from capacity.spec.run import RunSpec
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.select import UNSEEN
from capacity_analysis.lengths.prequential import excess_bits, prequential_bits, surplus_bits
from capacity_analysis.lengths.reward_bits import RewardBits, reward_bits
from capacity_analysis.lengths.update_bits import TwoPart, generalisation_gap, two_part_bits

DELTA = 0.05  # of the generalisation bound


@dataclass(frozen=True)
class Measured:
    """A mean over seeds.

    Attributes:
        estimate: the mean.
        low: of its two-sided 95 % interval over seeds; None with one seed.
        high: upper end.
        n: seeds.
        at_least: whether the estimate is a lower bound only ("≥").
    """

    estimate: float
    low: float | None
    high: float | None
    n: int
    at_least: bool = False


Value = Measured | Absent


@dataclass(frozen=True)
class Quantity:
    """One row of the table: what it is and its unit. `category` is demonstrations, rewards or update."""

    key: str
    words: str
    unit: str
    category: str


@dataclass(frozen=True)
class DescribedArm:
    """One method at one size with its quantities, by key. `demonstrations`: their style; "none" where none are seen."""

    model: str
    method: str
    demonstrations: str
    adapter: str
    trained_parameters: int
    storage_dtype: str
    learning_rate: float
    seeds: tuple[int, ...]
    values: dict[str, Value]


@dataclass(frozen=True)
class Description:
    """The whole table. `warnings` say which comparisons are none, and what limits the others."""

    arms: tuple[DescribedArm, ...]
    warnings: tuple[str, ...]


DEMONSTRATIONS, REWARDS, UPDATE = "demonstrations", "rewards", "update"
QUANTITIES = (
    Quantity("base_bits_per_demonstration", "held-out demonstration under the base", "bits", DEMONSTRATIONS),
    Quantity("heldout_bits_per_demonstration", "held-out demonstration under the update", "bits", DEMONSTRATIONS),
    Quantity("base_bits_per_token", "held-out token under the base", "bits/token", DEMONSTRATIONS),
    Quantity("heldout_bits_per_token", "held-out token under the update", "bits/token", DEMONSTRATIONS),
    Quantity("prequential_bits", "prequential code length, first pass", "bits", DEMONSTRATIONS),
    Quantity("prequential_bits_per_demonstration", "prequential code length a demonstration", "bits", DEMONSTRATIONS),
    Quantity("surplus_bits", "surplus description length", "bits", DEMONSTRATIONS),
    Quantity("excess_bits", "excess description length: bits learnt", "bits", DEMONSTRATIONS),
    Quantity("excess_bits_per_parameter", "bits learnt a trained parameter", "bits", DEMONSTRATIONS),
    Quantity("reward_cap_bits", "reward channel: cap, k a prompt", "bits", REWARDS),
    Quantity("reward_ideal_bits", "rewards, ideal code Σ k·H₂", "bits", REWARDS),
    Quantity("reward_realised_bits", "rewards, KT code", "bits", REWARDS),
    Quantity("reward_live_bits", "rewards, KT code, without dead groups", "bits", REWARDS),
    Quantity("reward_live_bits_per_parameter", "live rewards a trained parameter (a cap)", "bits", REWARDS),
    Quantity("dead_fraction", "dead groups", "share", REWARDS),
    Quantity("payload_bits", "update: payload", "bits", UPDATE),
    Quantity("header_bits", "update: header", "bits", UPDATE),
    Quantity("selection_bits", "update: choice of the learning rate", "bits", UPDATE),
    Quantity("two_part_bits", "update, two-part: all three", "bits", UPDATE),
    Quantity("gap_payload", "generalisation bound, recipe known", "accuracy", UPDATE),
    Quantity("gap_two_part", "generalisation bound, two-part", "accuracy", UPDATE),
)  # fmt: skip

CATEGORY_WARNINGS = (
    "Code lengths of demonstrations hold noise that cannot be learnt, reward bits are what a channel can carry at "
    "most, update bits are the size of a file: different quantities, not to be divided by one another. Compare excess "
    "description length with reward bits, as bits learnt against a cap.",
)


@dataclass(frozen=True)
class _Facts:
    """What the quantities of one run are computed from."""

    spec: RunSpec
    result: Result
    steps: Sequence[Step]
    train_items: int | Absent
    configurations: int | Absent
    epsilon: float | None


def describe(
    runs: Sequence[Run],
    *,
    train_items: Callable[[RunSpec], int | Absent],
    configurations: Callable[[RunSpec, int], int | Absent],
    epsilon: float | None = None,
) -> Description:
    """The table of a study's trained runs.

    Args:
        runs: complete runs; the untrained base is left out.
        train_items: how many items the train split of a run's task has; once they repeat, the first pass is over.
        configurations: among how many the run's (its trained parameters are the second argument) was chosen.
        epsilon: loss of the surplus description length, bits a token; None: the final held-out loss of each run.

    Raises:
        DataError: no trained run, or metrics that cannot be read.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.spec.training is not None:
            groups.setdefault(_arm_key(run), []).append(run)
    if not groups:
        raise DataError("no complete run of a trained update: nothing to describe")
    arms = []
    for members in groups.values():
        seeds = sorted(members, key=lambda run: run.spec.seed)
        values: list[dict[str, float | Absent | _AtLeast]] = []
        for run in seeds:
            size = int(run.result.trained_parameters)
            facts = _Facts(
                run.spec, run.result, run.steps, train_items(run.spec), configurations(run.spec, size), epsilon
            )
            values.append(_quantities(facts))
        first = seeds[0]
        assert first.spec.training is not None
        arms.append(
            DescribedArm(
                model=first.spec.model,
                method=first.spec.method,
                demonstrations=first.spec.task.style,
                adapter=first.spec.adapter.kind,
                trained_parameters=int(first.result.trained_parameters),
                storage_dtype=first.spec.storage_dtype,
                learning_rate=first.spec.training.learning_rate,
                seeds=tuple(run.spec.seed for run in seeds),
                values={q.key: _over_seeds([row[q.key] for row in values]) for q in QUANTITIES},
            )
        )
    arms.sort(key=_place)
    return Description(tuple(arms), tuple(_warnings(arms)))


def _arm_key(run: Run) -> tuple[Any, ...]:
    spec = run.spec
    assert spec.training is not None
    adapter = {k: v for k, v in spec.adapter.model_dump().items() if not k.endswith("_seed")}
    return (spec.model, spec.task.label, spec.method, str(adapter), spec.storage_dtype, spec.training.model_dump_json())


def by_demonstrations(arms: Sequence[DescribedArm]) -> dict[str, list[DescribedArm]]:
    """The arms to be read together, by the style of demonstrations; methods that see none stand with each."""
    shown = list(dict.fromkeys(arm.demonstrations for arm in arms if arm.demonstrations != UNSEEN)) or [UNSEEN]
    return {style: [arm for arm in arms if arm.demonstrations in (style, UNSEEN)] for style in shown}


def _place(arm: DescribedArm) -> tuple[Any, ...]:
    return arm.model, arm.trained_parameters, arm.adapter, place(arm.method), arm.demonstrations, arm.storage_dtype


@dataclass(frozen=True)
class _AtLeast:
    value: float


def _over_seeds(values: Sequence[float | Absent | _AtLeast]) -> Value:
    """Mean and Student's interval; absent if one seed is, since a mean over the others would be of other seeds."""
    absent = next((v for v in values if isinstance(v, Absent)), None)
    if absent is not None:
        return absent
    numbers = np.array([v.value if isinstance(v, _AtLeast) else v for v in values], dtype=np.float64)
    at_least = any(isinstance(v, _AtLeast) for v in values)
    n, mean = len(numbers), float(numbers.mean())
    if n == 1:
        return Measured(mean, None, None, 1, at_least)
    half = float(stdtrit(n - 1, 0.975)) * float(numbers.std(ddof=1)) / n**0.5
    return Measured(mean, mean - half, mean + half, n, at_least)


def _quantities(facts: _Facts) -> dict[str, float | Absent | _AtLeast]:
    """All quantities of one run."""
    size = int(facts.result.trained_parameters)
    found: dict[str, float | Absent | _AtLeast] = {}
    heldout = _heldout(facts.result, facts.result.heldout_code_length_bits)
    base = _heldout(facts.result, facts.result.heldout_base_code_length_bits)
    for name, value in (("base", base), ("heldout", heldout)):
        found[f"{name}_bits_per_demonstration"] = value if isinstance(value, Absent) else value.per_demonstration
        found[f"{name}_bits_per_token"] = value if isinstance(value, Absent) else value.per_token
    found.update(_of_demonstrations(facts, heldout, base, size))
    found.update(_of_rewards(facts, size))
    found.update(_of_update(facts))
    return found


# Demonstrations


@dataclass(frozen=True)
class _Heldout:
    bits: float
    demonstrations: int
    tokens: int

    @property
    def per_demonstration(self) -> float:
        return self.bits / self.demonstrations

    @property
    def per_token(self) -> float:
        return self.bits / self.tokens


def _heldout(result: Result, bits: float | None) -> _Heldout | Absent:
    if bits is None or result.heldout_demonstrations is None or result.heldout_tokens is None:
        return Absent("the run recorded no loss on held-out demonstrations")
    return _Heldout(bits, result.heldout_demonstrations, result.heldout_tokens)


@dataclass(frozen=True)
class _FirstPass:
    """Of each step with new demonstrations: code length by the model as it was, and by the base if recorded."""

    bits: list[float]
    base_bits: list[float] | None
    tokens: list[int]
    demonstrations: int


def _of_demonstrations(
    facts: _Facts, heldout: _Heldout | Absent, base: _Heldout | Absent, size: int
) -> dict[str, float | Absent | _AtLeast]:
    names = (
        "prequential_bits", "prequential_bits_per_demonstration", "surplus_bits", "excess_bits",
        "excess_bits_per_parameter",
    )  # fmt: skip
    seen = _first_pass(facts)
    if isinstance(seen, Absent):
        return dict.fromkeys(names, seen)
    prequential = prequential_bits(seen.bits)
    excess: float | Absent
    epsilon = facts.epsilon
    if isinstance(heldout, Absent):
        excess = heldout
    else:
        epsilon = heldout.per_token if epsilon is None else epsilon
        control = None
        if seen.base_bits is not None and not isinstance(base, Absent):
            control = (prequential_bits(seen.base_bits), base.bits)
        excess = excess_bits(prequential, seen.demonstrations, heldout.bits, heldout.demonstrations, control)
    surplus: float | Absent | _AtLeast = Absent("no loss to reach: give one with --epsilon")
    if epsilon is not None:
        found = surplus_bits(seen.bits, seen.tokens, epsilon)
        surplus = _AtLeast(found.bits) if found.lower_bound else found.bits
    return {
        "prequential_bits": prequential,
        "prequential_bits_per_demonstration": prequential / seen.demonstrations,
        "surplus_bits": surplus,
        "excess_bits": excess,
        "excess_bits_per_parameter": excess if isinstance(excess, Absent) else excess / size,
    }


def _first_pass(facts: _Facts) -> _FirstPass | Absent:
    """What the steps with new demonstrations cost."""
    method, training = facts.spec.method, facts.spec.training
    assert training is not None
    if method not in ("sft", "rft", "sft+grpo"):
        return Absent(f"does not apply: {method} learns from own samples, not from given demonstrations")
    if isinstance(facts.train_items, Absent):
        return facts.train_items
    coded = [_coded(step) for step in facts.steps if step.group_hits is None]  # the rest of sft+grpo is grpo
    steps = [found for found in coded if found is not None]
    if not steps or len(steps) < len(coded):
        return Absent("the run recorded no code lengths")
    spread = method != "rft" and training.match == "sequences"  # then each demonstration has a prompt of its own
    prompts = training.prompts_per_step * (training.samples_per_prompt if spread else 1)
    new = steps[: facts.train_items // prompts]
    if not new:
        return Absent("the train split has fewer prompts than one step, so no step is new")
    base = [bits for _, bits, _, _ in new if bits is not None]
    return _FirstPass(
        bits=[bits for bits, _, _, _ in new],
        base_bits=base if len(base) == len(new) else None,
        tokens=[tokens for _, _, tokens, _ in new],
        demonstrations=sum(round(tokens / length) for _, _, tokens, length in new),
    )


def _coded(step: Step) -> tuple[float, float | None, int, float] | None:
    """Code length by model and base, tokens and mean length of a step; None if they were not recorded."""
    if step.code_length_bits is None or step.trained_tokens is None or step.mean_length is None:
        return None
    return step.code_length_bits, step.base_code_length_bits, step.trained_tokens, step.mean_length


# Rewards


def _of_rewards(facts: _Facts, size: int) -> dict[str, float | Absent | _AtLeast]:
    found = _rewards(facts)
    names = ("cap", "ideal", "realised", "live")
    if isinstance(found, Absent):
        keys = [*(f"reward_{name}_bits" for name in names), "reward_live_bits_per_parameter", "dead_fraction"]
        return dict.fromkeys(keys, found)
    return {
        **{f"reward_{name}_bits": float(getattr(found, name)) for name in names},
        "reward_live_bits_per_parameter": found.live / size,
        "dead_fraction": found.dead / found.groups,
    }


def _rewards(facts: _Facts) -> RewardBits | Absent:
    training = facts.spec.training
    assert training is not None  # only trained runs are described
    hits = [h for step in facts.steps for h in step.group_hits or ()]
    if hits:
        return reward_bits(hits, training.samples_per_prompt)
    if facts.spec.method == "sft":
        return Absent("does not apply: sft sees no rewards")
    return Absent("the run recorded no rewards")


# Update


def _of_update(facts: _Facts) -> dict[str, float | Absent | _AtLeast]:
    result = facts.result
    found: dict[str, float | Absent | _AtLeast] = {
        "payload_bits": 8.0 * result.update_bytes,
        "header_bits": 8.0 * result.header_bytes,
    }
    if isinstance(facts.configurations, Absent):
        keys = ("selection_bits", "two_part_bits", "gap_payload", "gap_two_part")
        return found | dict.fromkeys(keys, facts.configurations)
    parts: TwoPart = two_part_bits(result.update_bytes, result.header_bytes, facts.configurations)
    found |= {"selection_bits": parts.selection, "two_part_bits": parts.total}
    if isinstance(facts.train_items, Absent):
        return found | dict.fromkeys(("gap_payload", "gap_two_part"), facts.train_items)
    examples = min(result.prompts or 0, facts.train_items)
    return found | {
        "gap_payload": generalisation_gap(parts.payload + parts.selection, examples, DELTA),
        "gap_two_part": generalisation_gap(parts.total, examples, DELTA),
    }


def _warnings(arms: Sequence[DescribedArm]) -> list[str]:
    found = list(CATEGORY_WARNINGS)
    several = len(by_demonstrations(arms)) > 1
    alone = [a for a in arms if len(a.seeds) == 1]
    if alone:
        found.append(f"{len(alone)} of {len(arms)} arms have one seed and no interval.")
    negative = [a for a in arms if isinstance(v := a.values["excess_bits"], Measured) and v.estimate < 0]
    for arm in negative:
        style = f" on {arm.demonstrations}" if several else ""
        found.append(
            f"{arm.method}{style} with {arm.trained_parameters:,} parameters: excess description length is negative: "
            "it codes held-out demonstrations worse at the end than those of the training on the way."
        )
    vacuous = [a for a in arms if isinstance(v := a.values["gap_two_part"], Measured) and v.estimate >= 1]
    if vacuous:
        found.append(f"The generalisation bound of {len(vacuous)} arms is 1 or more, which says nothing (vacuous).")
    if any(a.method == "rft" for a in arms):
        found.append(
            "rft repeats right samples until a prompt has as many as grpo draws; each copy is coded, so its code "
            "lengths are those of the sequences trained on, more than the different samples need."
        )
    if any(a.method == "random-reward" for a in arms):
        found.append("Rewards of random-reward are permuted: their bits say nothing about the task.")
    return found
