"""Chooses the matrices P of a TinyLoRA among random candidates, by the gradient at θ = 0.

One entry v of a group goes with one matrix P for each module of the group. The gradient of the loss with respect to v
at θ = 0 is Σ_m ⟨G_m, P_m⟩, where G_m = ∂loss/∂R_m. Its square is the energy of a candidate: to first order, what a
step along it gains. The best of 2^b candidates is expected to have the energy of a random one, times the largest of 2^b
draws of χ²₁.

An entry's next candidates see only what the entries before it leave: G is made orthogonal to the P that are chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capacity.adapters.projection import normal_entries, projection

Matrix = NDArray[np.float64]
_BLOCK = 1 << 22  # random numbers that are held at a time


@dataclass(frozen=True)
class Found:
    """The candidates that were found for the entries of a TinyLoRA.

    Attributes:
        numbers: for each entry of θ, the number of its candidate.
        energies: for each entry, the energy of that candidate.
        expected: for each entry, the expected energy of a random candidate, Σ_m ‖G_m‖²_F / r.
    """

    numbers: tuple[int, ...]
    energies: tuple[float, ...]
    expected: tuple[float, ...]


def best_candidates(
    gradients: Matrix, names: Sequence[str], group: Sequence[int], entries: Sequence[int], seed: int, bits: int
) -> Found:
    """Returns, for each entry of each group, the candidate that holds most energy. Ties go to the smaller number.

    Args:
        gradients: G_m of every module, shape (M, r, r).
        names: the canonical names of the M modules.
        group: the group index of every module.
        entries: the number of entries of θ of each group.
        seed: the projection seed of the run.
        bits: b; each entry has 2^b candidates.
    """
    numbers, energies, expected = [], [], []
    rank = gradients.shape[-1]
    for g, count in enumerate(entries):
        members = [m for m, of in enumerate(group) if of == g]
        own = [names[m] for m in members]
        left = gradients[members].reshape(-1).copy()
        basis: list[Matrix] = []
        for index in range(count):
            found = _slopes(left, own, seed, index, rank, bits) ** 2
            best = int(found.argmax())
            numbers.append(best)
            energies.append(float(found[best]))
            expected.append(float(left @ left) / rank)
            chosen = np.concatenate([projection(seed, name, index, rank, best).reshape(-1) for name in own])
            for direction in basis:
                chosen -= (direction @ chosen) * direction
            norm = float(np.linalg.norm(chosen))
            if norm > 0:
                basis.append(chosen / norm)
                left -= (basis[-1] @ left) * basis[-1]
    return Found(tuple(numbers), tuple(energies), tuple(expected))


def _slopes(left: Matrix, names: Sequence[str], seed: int, index: int, rank: int, bits: int) -> Matrix:
    """Returns Σ_m ⟨left_m, P_m⟩ of every candidate, shape (2^b,). Candidates are drawn in blocks, module by module."""
    parts = left.reshape(len(names), rank * rank)
    slopes = np.zeros(1 << bits)
    rows = max(1, _BLOCK // (rank * rank))
    for start in range(0, len(slopes), rows):
        stop = min(start + rows, len(slopes))
        for name, part in zip(names, parts, strict=True):
            slopes[start:stop] += normal_entries(seed, name, index, rank, range(start, stop)) @ part
    return slopes
