"""Description lengths of demonstrations, in bits: from the losses along the first pass of training and held out.

A batch is coded by the model as it stands *before* it learns from it, the first by the base model (Blier & Ollivier,
arXiv 1802.07044; Voita & Titov, arXiv 2003.12298). That is a code only while the demonstrations are new: later epochs
code nothing. All lengths are sums over tokens, and hold the noise of the demonstrations' wording.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from capacity.spec.methods import METHODS
from capacity.spec.result import Result, Step
from capacity_analysis.data.absent import Absent
from capacity_analysis.lengths.quantities import AtLeast, Estimated, Facts, Found, Quantity

QUANTITIES = (
    Quantity("base_bits_per_demonstration", "held-out demonstration under the base", "bits", "held-out"),
    Quantity("heldout_bits_per_demonstration", "held-out demonstration under the update", "bits", "held-out"),
    Quantity("base_bits_per_token", "held-out token under the base", "bits/token", "held-out"),
    Quantity("heldout_bits_per_token", "held-out token under the update", "bits/token", "held-out"),
    Quantity("prequential_bits", "prequential code length, first pass", "bits", "first pass"),
    Quantity("prequential_bits_per_demonstration", "prequential code length a demonstration", "bits", "first pass"),
    Quantity("surplus_bits", "surplus description length", "bits", "first pass"),
    Quantity("excess_bits", "excess description length: bits learnt", "bits", "first pass"),
    Quantity("excess_bits_per_parameter", "bits learnt a trained parameter", "bits", "first pass"),
)  # fmt: skip
_GIVEN = ("demonstrations", "samples of the base")  # what was there before the training, so that it can be coded


@dataclass(frozen=True)
class Surplus:
    """Bits above a loss of ε along the data.

    Attributes:
        bits: summed over the blocks.
        epsilon: the loss, bits a token.
        lower_bound: the last block still lies above ε, so more was to come.
    """

    bits: float
    epsilon: float
    lower_bound: bool


def prequential_bits(block_bits: Sequence[float]) -> float:
    """Code length of all demonstrations of the first pass: the sum of the blocks' code lengths, each before its update.

    Raises:
        ValueError: no block.
    """
    if not len(block_bits):
        raise ValueError("no block of demonstrations")
    return float(np.sum(block_bits, dtype=np.float64))


def surplus_bits(block_bits: Sequence[float], block_tokens: Sequence[int], epsilon: float) -> Surplus:
    """Σ max(loss − ε, 0) along the data axis: what it costs to reach a loss of ε (Whitney et al., arXiv 2009.07368).

    Args:
        block_bits: code length of each block before its update.
        block_tokens: completion tokens of each block.
        epsilon: the loss to reach, bits a token.
    """
    bits, tokens = np.asarray(block_bits, dtype=np.float64), np.asarray(block_tokens, dtype=np.float64)
    above = bits - epsilon * tokens
    return Surplus(float(np.maximum(above, 0).sum()), epsilon, bool(above[-1] > 0))


def excess_bits(
    prequential: float,
    demonstrations: int,
    heldout_bits: float,
    heldout_demonstrations: int,
    base: tuple[float, float] | None = None,
) -> float:
    """Prequential code length − n × final loss on held-out demonstrations: the bits learnt (arXiv 2601.04728).

    What no model could predict costs as much in both terms and drops out. Not below 0 in expectation and about 0 for
    random labels; a single value may be negative and is returned as it is.

    Args:
        prequential: bits of the first pass.
        demonstrations: n, coded in it.
        heldout_bits: code length of held-out demonstrations of the same distribution under the final model.
        heldout_demonstrations: how many those are.
        base: code lengths of the first pass and of the held-out demonstrations under the untrained base. Their
            difference, 0 in expectation, is subtracted as a control variate. That removes the chance that
            demonstrations of the first pass are longer or harder than the held-out ones.
    """
    if base is not None:
        prequential, heldout_bits = prequential - base[0], heldout_bits - base[1]
    return prequential - demonstrations * heldout_bits / heldout_demonstrations


def measure(facts: Facts) -> dict[str, Found]:
    """The quantities of this module for one run, by their keys."""
    result = facts.run.result
    base = _heldout(result, result.heldout_base_code_length_bits)
    trained = _heldout(result, result.heldout_code_length_bits)
    found: dict[str, Found] = {}
    for name, heldout in (("base", base), ("heldout", trained)):
        found[f"{name}_bits_per_demonstration"] = heldout if isinstance(heldout, Absent) else heldout.per_demonstration
        found[f"{name}_bits_per_token"] = heldout if isinstance(heldout, Absent) else heldout.per_token
    seen = _first_pass(facts)
    if isinstance(seen, Absent):
        return found | dict.fromkeys((q.key for q in QUANTITIES if q.category == "first pass"), seen)
    return found | _of_first_pass(facts, seen, trained, base)


@dataclass(frozen=True)
class _Heldout:
    """Code length of held-out demonstrations: bits in all, and how many demonstrations and tokens they are of."""

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
    """The steps with new demonstrations.

    Attributes:
        bits: code length of each step by the model as it was.
        base_bits: code length of each step by the untrained base; None if a step did not record it.
        tokens: completion tokens of each step.
        demonstrations: of all these steps.
    """

    bits: list[float]
    base_bits: list[float] | None
    tokens: list[int]
    demonstrations: int


def _first_pass(facts: Facts) -> _FirstPass | Absent:
    method = facts.run.spec.method
    if not any(METHODS[phase].learns_from in _GIVEN for phase in METHODS[method].phases):
        return Absent(f"does not apply: {method} learns from own samples, not from given demonstrations")
    if isinstance(facts.train_items, Absent):
        return facts.train_items
    coded = [_coded(step) for step in facts.run.steps if step.group_hits is None]  # the rest of sft+grpo is grpo
    steps = [found for found in coded if found is not None]
    if not steps or len(steps) < len(coded):
        return Absent("the run recorded no code lengths")
    training = facts.training
    # Under match "sequences" each demonstration of the task has a prompt of its own.
    spread = METHODS[method].sees_demonstrations and training.match == "sequences"
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
    """Code length by model and by base, tokens and mean length of a step; None if it did not record them."""
    if step.code_length_bits is None or step.trained_tokens is None or step.mean_length is None:
        return None
    return step.code_length_bits, step.base_code_length_bits, step.trained_tokens, step.mean_length


def _of_first_pass(
    facts: Facts, seen: _FirstPass, heldout: _Heldout | Absent, base: _Heldout | Absent
) -> dict[str, Found]:
    prequential, epsilon = prequential_bits(seen.bits), facts.epsilon
    excess: Estimated | Absent
    if isinstance(heldout, Absent):
        excess = heldout
    else:
        epsilon = heldout.per_token if epsilon is None else epsilon
        control = None
        if seen.base_bits is not None and not isinstance(base, Absent):
            control = (prequential_bits(seen.base_bits), base.bits)
        bits = excess_bits(prequential, seen.demonstrations, heldout.bits, heldout.demonstrations, control)
        result = facts.run.result
        sd = result.heldout_sd_bits if control is None else result.heldout_gain_sd_bits
        error = None if sd is None else seen.demonstrations * sd / heldout.demonstrations**0.5
        excess = Estimated(bits, error, max(heldout.demonstrations - 1, 1))
    surplus: Found = Absent("no loss to reach: give one with --epsilon")
    if epsilon is not None:
        above = surplus_bits(seen.bits, seen.tokens, epsilon)
        surplus = AtLeast(above.bits) if above.lower_bound else above.bits
    return {
        "prequential_bits": prequential,
        "prequential_bits_per_demonstration": prequential / seen.demonstrations,
        "surplus_bits": surplus,
        "excess_bits": excess,
        "excess_bits_per_parameter": excess if isinstance(excess, Absent) else excess.over(facts.size),
    }
