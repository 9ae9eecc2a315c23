"""What chosen projections hold of the gradient: `python studies/tools/choice_energy.py [MODEL [PARAMETERS [SEEDS]]]`.

For each seed and number of bits it prints the mean energy of the chosen P as a multiple of the expected energy of a
random one: on the batches that chose, and on batches of other prompts. Theory says 4.6, 9.4 and 14.6 for 4, 8 and 12
bits on the batches that chose. It takes about half a minute of one core for two seeds.
"""

import sys

import numpy as np
import torch
from numpy.typing import NDArray

from capacity.adapters.candidates import best_candidates
from capacity.adapters.linears import adapted_modules
from capacity.adapters.projection import projection
from capacity.plan.sharing import assign_groups
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.specs import trained_spec
from capacity.spec.adapters import TinyLora
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task, parse_task
from capacity.training.base import Base
from capacity.training.first_gradient import first_gradient

BITS = (4, 8, 12)
BATCHES, OTHERS = 8, 16  # that choose, and of each of two other seeds
OTHER_SEEDS = (12345, 54321)

Matrix = NDArray[np.float64]


def spec_of(model: str, parameters: int, seed: int) -> RunSpec:
    """A run of grpo whose first batches choose. Its learning rate plays no part."""
    size = size_of(model, SizeChoice(budget=parameters, projection="chosen"), "bf16")
    return trained_spec(model, parse_task("abacus"), "grpo", size, seed, "bf16", rates={"grpo": 1.0})


def gradient(base: Base, spec: RunSpec, batches: int) -> Matrix:
    """The gradient of a free R at θ = 0, shape (M, r, r)."""
    return first_gradient(base, open_task(spec.task), spec, batches, "another task").of_module.numpy()


def shares(chosen: list[Matrix], gradients: Matrix, group: tuple[int, ...]) -> float:
    """Σ (Σ ⟨G, P⟩)² over the groups, as a multiple of its expectation for random P."""
    rank = gradients.shape[-1]
    energy = 0.0
    for g in range(max(group) + 1):
        members = [m for m, of in enumerate(group) if of == g]
        energy += float(sum((gradients[m] * chosen[m]).sum() for m in members)) ** 2
    return energy / float(np.square(gradients).sum() / rank)


def main() -> None:
    """Reads the model, the number of parameters and the number of seeds from the command line."""
    torch.set_num_threads(1)
    given = sys.argv[1:]
    model, parameters, seeds = (given + ["abacus-0.9m", "13", "2"][len(given) :])[:3]
    base = Base.loaded(model, "cpu")
    first = spec_of(model, int(parameters), 0)
    assert isinstance(first.adapter, TinyLora)
    shapes, rank = adapted_modules(base.model, None), first.adapter.rank
    names = [shape.name for shape in shapes]
    group = assign_groups([shape.type for shape in shapes], first.adapter.groups, first.adapter.sharing)
    others = np.mean([gradient(base, spec_of(model, int(parameters), s), OTHERS) for s in OTHER_SEEDS], axis=0)
    print("| seed | bits | batches that chose | other prompts | random P, other prompts |\n|---|---|---|---|---|")
    for seed in range(int(seeds)):
        own = gradient(base, spec_of(model, int(parameters), seed), BATCHES)
        for bits in BITS:
            found = best_candidates(own, names, group, (1,) * first.adapter.groups, seed, bits)
            ratio = np.mean(np.divide(found.energies, found.expected))
            chosen = [projection(seed, name, 0, rank, found.numbers[g]) for name, g in zip(names, group, strict=True)]
            random = [projection(seed, name, 0, rank) for name in names]
            held_out, plain = (shares(p, others, group) for p in (chosen, random))
            print(f"| {seed} | {bits} | {ratio:.1f} | {held_out:.1f} | {plain:.1f} |", flush=True)


if __name__ == "__main__":
    main()
