"""Divides a training run into turns, alike for every trainer that uses an optimiser of torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from benchmarks.bench.side import Gate

RULE = ("lr", "betas", "eps", "weight_decay")


@contextmanager
def steps_in_turns(gate: Gate, steps: int) -> Iterator[list[dict[str, Any]]]:
    """Makes each training step within the context a turn. A step ends when the optimiser has moved the update.

    The first turn so holds the start of the trainer too: it is to be a warm-up.

    Args:
        gate: gives the turns.
        steps: the number of steps that the run makes.

    Yields:
        A list that gets the settings of the optimiser at each step.
    """
    seen: list[dict[str, Any]] = []

    def ended(optimizer: Optimizer, *_: Any) -> None:
        seen.append({name: optimizer.param_groups[0][name] for name in RULE})
        gate.done()
        if len(seen) < steps:
            gate.wait()

    hook = register_optimizer_step_post_hook(ended)
    gate.wait()
    try:
        yield seen
    finally:
        hook.remove()
