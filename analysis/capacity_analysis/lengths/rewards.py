"""What the rewards of GRPO can carry, in bits: capacities of a channel, not bits that were learnt.

A group is the k samples of one prompt with their k rewards of 0 or 1. There are four numbers. The channel's cap is k
bits for each group. The ideal code is k·H₂ of the group's share of hits. The third is a code that can really be
written, after Krichevsky and Trofimov. The fourth is the same without dead groups, whose rewards are all equal. They
cost bits, but their advantages are zero and so is their gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from capacity.codes import kt_code_bits, plug_in_code_bits
from capacity.spec.methods import METHODS
from capacity_analysis.data.absent import Absent
from capacity_analysis.lengths.quantities import Facts, Found, Quantity

QUANTITIES = (
    Quantity("reward_cap_bits", "reward channel: cap, k a prompt", "bits", "rewards"),
    Quantity("reward_ideal_bits", "rewards, ideal code Σ k·H₂", "bits", "rewards"),
    Quantity("reward_realised_bits", "rewards, KT code", "bits", "rewards"),
    Quantity("reward_live_bits", "rewards, KT code, without dead groups", "bits", "rewards"),
    Quantity("reward_live_bits_per_parameter", "live rewards a trained parameter (a cap)", "bits", "rewards"),
    Quantity("dead_fraction", "dead groups", "share", "rewards"),
)  # fmt: skip


@dataclass(frozen=True)
class RewardBits:
    """Bits of the rewards of `groups` groups of `samples` rewards each, summed over the groups.

    Attributes:
        groups: prompts, counted as often as they came.
        samples: k, rewards of a group.
        dead: groups whose rewards are all equal.
        cap: k bits a group.
        ideal: Σ k·H₂(hits/k). The share is taken from the very rewards that are coded, so this is below any real code.
        realised: Σ of the Krichevsky–Trofimov code lengths.
        live: `realised` without the dead groups.
    """

    groups: int
    samples: int
    dead: int
    cap: float
    ideal: float
    realised: float
    live: float


def reward_bits(hits: Sequence[int], samples: int) -> RewardBits:
    """The four numbers for groups that were seen.

    Args:
        hits: rewarded samples of each group, 0 to `samples`.
        samples: k.

    Raises:
        ValueError: no group, or more hits than samples.
    """
    if len(hits) == 0:
        raise ValueError("no group of rewards")
    ones = np.asarray(hits, dtype=np.float64)
    realised = kt_code_bits(ones, samples)
    dead = (ones == 0) | (ones == samples)
    return RewardBits(
        groups=len(ones),
        samples=samples,
        dead=int(dead.sum()),
        cap=float(samples * len(ones)),
        ideal=float(plug_in_code_bits(ones, samples).sum()),
        realised=float(realised.sum()),
        live=float(realised[~dead].sum()),
    )


def measure(facts: Facts) -> dict[str, Found]:
    """The quantities of this module for one run, by their keys."""
    hits = [count for step in facts.run.steps for count in step.group_hits or ()]
    if not hits:
        method = facts.run.spec.method
        unrewarded = METHODS[method].learns_from == "demonstrations"
        reason = f"does not apply: {method} sees no rewards" if unrewarded else "the run recorded no rewards"
        return dict.fromkeys((q.key for q in QUANTITIES), Absent(reason))
    found = reward_bits(hits, facts.training.samples_per_prompt)
    return {
        "reward_cap_bits": found.cap,
        "reward_ideal_bits": found.ideal,
        "reward_realised_bits": found.realised,
        "reward_live_bits": found.live,
        "reward_live_bits_per_parameter": found.live / facts.size,
        "dead_fraction": found.dead / found.groups,
    }
