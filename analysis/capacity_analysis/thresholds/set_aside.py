"""Seeds that collapsed are set aside from the curves of a design, and counted beside them.

A threshold is that of seeds that trained. How often a seed does not is another number, with an interval of its own. A
mean of both describes neither.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from capacity_analysis.data.select import Curve, Design
from capacity_analysis.statistics.collapses import CollapsedShare, collapsed_of_curve

# Runs by the names of their cells, and their seeds.
CellSeeds = frozenset[tuple[str, int]]


def without_collapsed(design: Design) -> tuple[Design, dict[str, CollapsedShare], CellSeeds]:
    """Returns the design without seeds that collapsed, how many of each curve did, by label, and their runs.

    A seed that collapsed at some size is set aside at all sizes of its curve, if each size keeps another seed. Curves
    with fewer than four seeds, without counts, or without names of seeds tell nothing and are not among the shares.
    """
    curves, shares, runs = [], {}, set()
    for curve in design.curves:
        kept = curve
        if curve.seeds is not None and curve.answers is not None and len(curve.seeds) > 3:
            aside = collapsed_of_curve(curve.accuracy[None], curve.answers)[0]
            if not (~np.isnan(curve.accuracy[:, ~aside])).any(1).all():
                aside = np.zeros_like(aside)
            shares[curve.label] = CollapsedShare.of(aside)
            kept = _without(curve, ~aside) if aside.any() else curve
            fallen = [seed for seed, gone in zip(curve.seeds, aside, strict=True) if gone]
            runs |= {(cell, seed) for cell in curve.cells for seed in fallen}
        curves.append(kept)
    return replace(design, curves=tuple(curves)), shares, frozenset(runs)


def _without(curve: Curve, keep: NDArray[np.bool_]) -> Curve:
    seeds = curve.seeds and tuple(seed for seed, kept in zip(curve.seeds, keep, strict=True) if kept)
    outcomes = None if curve.outcomes is None else curve.outcomes[:, keep]
    return replace(curve, accuracy=curve.accuracy[:, keep], seeds=seeds, outcomes=outcomes)
