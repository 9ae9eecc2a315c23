"""One table describes the training methods. Everything that is particular to a method follows from its row."""

from dataclasses import dataclass
from typing import Literal

Method = Literal["base", "zero", "sft", "rft", "rft-online", "grpo", "random-reward", "sft+grpo"]
Source = Literal["nothing", "demonstrations", "samples of the base", "own samples"]
Part = Literal["grpo", "rft", "warm_start"]


@dataclass(frozen=True)
class MethodFacts:
    """Each method has one row of facts.

    Attributes:
        words: what the method trains, in a few words.
        learns_from: the source of the sequences that the method trains on.
        rate_from: the method whose tuned learning rate this one takes. A method with a tuning of its own names itself.
        phases: the methods that are trained one after the other. Only mixtures have more than one. A method that
            trains nothing has none.
        parts: the parts of a `RunSpec` that the method needs beside training and adapter.
        controls_for: what a comparison with this method rules out; None if the method is no control.
        meant_to_learn: True if the accuracy of the method shows what an update can learn. A check watches it for
            losses.
        slowness: the rank of the method by the time that a run takes. The slowest runs start first.
    """

    words: str
    learns_from: Source
    rate_from: Method
    phases: tuple[Method, ...]
    parts: tuple[Part, ...] = ()
    controls_for: str | None = None
    meant_to_learn: bool = True
    slowness: int = 0

    @property
    def trains(self) -> bool:
        """Tells whether the method trains anything."""
        return bool(self.phases)

    @property
    def sees_demonstrations(self) -> bool:
        """Tells whether at least one phase trains on the task's demonstrations."""
        return any(METHODS[phase].learns_from == "demonstrations" for phase in self.phases)


# In the order in which methods are listed everywhere.
METHODS: dict[Method, MethodFacts] = {
    "base": MethodFacts(
        words="the untrained model",
        learns_from="nothing",
        rate_from="base",
        phases=(),
        controls_for="what the model can do without training",
        meant_to_learn=False,
    ),
    # A method, because it stands beside the trained ones at each size, and its adapter takes the place of theirs: so
    # their engine, their kernels and their protocol evaluate it. It has no training part and no trained parameters, so
    # no curve, threshold or pair of methods can count it as an update.
    "zero": MethodFacts(
        words="the untrained model with an adapter of zeros",
        learns_from="nothing",
        rate_from="zero",
        phases=(),
        controls_for="what the adapter's path through the engine changes by itself",
        meant_to_learn=False,
    ),
    "sft": MethodFacts(
        words="supervised fine-tuning on the task's demonstrations",
        learns_from="demonstrations",
        rate_from="sft",
        phases=("sft",),
        slowness=1,
    ),
    "rft": MethodFacts(
        words="supervised fine-tuning on correct samples of the untrained model",
        learns_from="samples of the base",
        rate_from="rft",
        phases=("rft",),
        parts=("rft",),
        controls_for="the style of the demonstrations, with the objective of sft",
        slowness=5,
    ),
    "rft-online": MethodFacts(
        words="supervised fine-tuning on correct samples of the current policy",
        learns_from="own samples",
        rate_from="rft",
        phases=("rft-online",),
        parts=("rft",),
        controls_for="the style of the demonstrations, with samples as fresh as those of grpo",
        slowness=6,
    ),
    "grpo": MethodFacts(
        words="reinforcement learning with group-relative advantages",
        learns_from="own samples",
        rate_from="grpo",
        phases=("grpo",),
        parts=("grpo",),
        slowness=3,
    ),
    "random-reward": MethodFacts(
        words="grpo with rewards permuted within each group",
        learns_from="own samples",
        rate_from="grpo",
        phases=("random-reward",),
        parts=("grpo",),
        controls_for="drift and format: what it gains is not learning",
        meant_to_learn=False,
        slowness=4,
    ),
    "sft+grpo": MethodFacts(
        words="half of the steps sft, then half grpo, on one update",
        learns_from="own samples",
        rate_from="grpo",
        phases=("sft", "grpo"),
        parts=("grpo", "warm_start"),
        controls_for="a warm start",
        slowness=2,
    ),
}
TRAINED: tuple[Method, ...] = tuple(method for method, facts in METHODS.items() if facts.trains)
NAMED: tuple[Method, ...] = tuple(method for method in METHODS if method != "base")  # base runs without being named
# The differences that a comparison states, the first minus the second.
PAIRS: tuple[tuple[Method, Method], ...] = (
    ("grpo", "sft"),
    ("grpo", "rft"),
    ("rft", "sft"),
    ("grpo", "random-reward"),
    ("sft+grpo", "grpo"),
    ("rft-online", "grpo"),
)


def place(method: str) -> int:
    """Returns the place of a method in lists. Methods that the table does not know come last."""
    return next((index for index, name in enumerate(METHODS) if name == method), len(METHODS))


def in_order(methods: set[str]) -> list[str]:
    """Returns the methods in the order of the table. Unknown methods come last, sorted by name."""
    return sorted(methods, key=lambda method: (place(method), method))
