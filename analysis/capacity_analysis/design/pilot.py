"""The first part of an adaptive design: trials on validation. They choose learning rates and show where curves rise."""

from collections.abc import Iterator

import numpy as np

from capacity_analysis.design.further import SEEDS
from capacity_analysis.design.information import precision
from capacity_analysis.design.posterior import Curves, posterior
from capacity_analysis.design.rates import carried, neighbours, rungs, survivors
from capacity_analysis.design.state import Ask, Batch, Results, Setting
from capacity_analysis.types import Array

FIRST_SEED = 1000  # of trials; results start at seed 0
FIRST_SIZES = 5  # of the first results: a Hill curve has four parameters, and its test of fit needs one size more
FIRST_SEEDS = SEEDS
MOST_REFINEMENTS = 1  # trials of each method that are added where its threshold is still uncertain
_LEAST_SIZES = 2
_FAR_BELOW = 2.0  # decades below the smallest candidate, where an update is taken to change nothing
_ROUGHLY = 0.4  # decades: trials need not place a threshold better than this


def pilot_batch(setting: Setting, results: Results, base: float) -> Batch | None:
    """The next trials on validation; None once rates are chosen and the thresholds are roughly known."""
    results = {ask: accuracy for ask, accuracy in results.items() if ask.validation}
    for asks, why in _first_trials(setting, results):
        missing = tuple(ask for ask in asks if ask not in results)
        if missing:
            return Batch(missing, why)
    found = {m: curves_of(setting, results, m, base) for m in setting.methods}
    known = {m: curves for m, curves in found.items() if curves is not None}
    if len(known) < len(found) or _refinements(setting, results) >= MOST_REFINEMENTS:
        return None
    targets = targets_of(setting, known, base)
    wanted = max(setting.goal.half_width or 0.0, _ROUGHLY)
    spread = {m: _spread(setting, known[m].threshold(targets[m])) for m in known}
    if max(spread.values()) <= wanted:
        return None
    asks = []
    for method, curves in known.items():
        counts = trial_counts(setting, results, method)
        moves = 0.0 if setting.target is not None else setting.gain
        says = precision(curves, targets[method], moves, setting.log_sizes, counts, setting.items)
        size = int(np.argmax(says.reduction))
        asks.append(_trial(setting, results, method, size))
    widest = max(spread, key=lambda m: spread[m])
    why = f"The threshold of {widest} is known to ±{spread[widest]:.2f} decades on validation, more than {wanted:g}."
    return Batch(tuple(asks), f"{why} Each method gets a trial at the size that is expected to tell most.")


def _first_trials(setting: Setting, results: Results) -> Iterator[tuple[list[Ask], str]]:
    """Yields the trials that every study begins with; those of a step depend on the results of the steps before."""
    last = len(setting.log_sizes) - 1
    middle = last // 2
    if setting.rates > 1:
        for rung in range(len(rungs(setting.rates))):
            yield (
                [a for m in setting.methods for a in _rung(setting, results, m, middle, rung)],
                f"Successive halving over learning rates at the middle size, seed {rung + 1} of the trials.",
            )
        for m in setting.methods:
            if _best(results, m, middle) is None:
                return
        asks = [
            Ask(m, end, rate, FIRST_SEED, True)
            for m in setting.methods
            for end in (0, last)
            for rate in neighbours(_best(results, m, middle) or 0, setting.rates)
        ]
        yield asks, "The rate of the middle size and its neighbours are tried at the smallest and the largest size."
    asks = []
    for m in setting.methods:
        tuned = tuned_rates(setting, results, m)
        new = [place for place in coarse_places(setting) if setting.log_sizes[place] not in tuned or setting.rates == 1]
        asks += [Ask(m, place, rate_at(setting, tuned, place), FIRST_SEED, True) for place in new]
    yield asks, "A first look at each curve over the whole range of sizes."


def coarse_places(setting: Setting) -> list[int]:
    """The places of the sizes of the first look: the middle and the largest, and the smallest where rates are tried."""
    last = len(setting.log_sizes) - 1
    return [last // 2, last] if setting.rates == 1 else [0, last // 2, last]


def _rung(setting: Setting, results: Results, method: str, size: int, rung: int) -> list[Ask]:
    rates: tuple[int, ...] = tuple(range(setting.rates))
    for before in range(rung):
        trials = {rate: [results[Ask(method, size, rate, FIRST_SEED + s, True)] for s in range(before + 1)]
                  for rate in rates}  # fmt: skip
        rates = survivors(trials, rungs(setting.rates)[before + 1])
    return [Ask(method, size, rate, FIRST_SEED + rung, True) for rate in rates]


def _best(results: Results, method: str, size: int) -> int | None:
    """The best rate of those tried at a size, among those with most seeds; None if all failed or none was tried."""
    trials: dict[int, list[float | None]] = {}
    for ask, accuracy in results.items():
        if ask.validation and (ask.method, ask.size) == (method, size):
            trials.setdefault(ask.rate, []).append(accuracy)
    alive = {rate: found for rate, found in trials.items() if None not in found}
    return survivors(alive, 1)[0] if alive else None


def tuned_rates(setting: Setting, results: Results, method: str) -> dict[float, int]:
    """The best rate of each size at which several were tried, by log10 of the size."""
    if setting.rates == 1:
        return {float(setting.log_sizes[0]): 0}
    last = len(setting.log_sizes) - 1
    found = {float(setting.log_sizes[size]): _best(results, method, size) for size in (0, last // 2, last)}
    return {size: rate for size, rate in found.items() if rate is not None}


def rate_at(setting: Setting, tuned: dict[float, int], size: int) -> int:
    """The rate of a candidate size: its own, or one between those of its tuned neighbours."""
    return carried(float(setting.log_sizes[size]), tuned) if tuned else 0


def trial_counts(setting: Setting, results: Results, method: str) -> Array:
    """How many trials at the chosen rate each candidate size has."""
    tuned = tuned_rates(setting, results, method)
    counts = np.zeros(len(setting.log_sizes))
    for ask, accuracy in results.items():
        counts[ask.size] += accuracy is not None and _tells(setting, tuned, ask, method)
    return counts


def curves_of(setting: Setting, results: Results, method: str, base: float) -> Curves | None:
    """The posterior of a curve by its trials and its first results at the chosen rates; None with too few of them.

    Later results do not count. If runs went where their own means lie by chance, the means of sizes would be biased.
    The accuracy of the untrained model counts as a trial at a size that is far below the candidates.
    """
    tuned = tuned_rates(setting, results, method)
    own = [(ask, accuracy) for ask, accuracy in results.items() if _tells(setting, tuned, ask, method)]
    first = [one for one in own if not one[0].validation][: FIRST_SIZES * FIRST_SEEDS]
    counted = [*(one for one in own if one[0].validation), *first]
    told = [(ask.size, accuracy) for ask, accuracy in counted if accuracy is not None]
    if len({size for size, _ in told}) < _LEAST_SIZES:
        return None
    ends = float(setting.log_sizes[0]), float(setting.log_sizes[-1])
    sizes = np.array([ends[0] - _FAR_BELOW, *(setting.log_sizes[size] for size, _ in told)])
    return posterior(sizes, np.array([base, *(accuracy for _, accuracy in told)]), setting.items, ends)


def targets_of(setting: Setting, curves: dict[str, Curves], base: float) -> dict[str, Array]:
    """The accuracy to reach under each curve of a posterior. The ceiling is that of one method, for all methods."""
    if setting.target is not None:
        return {m: np.full(len(c.lower), setting.target) for m, c in curves.items()}
    ceiling = curves[setting.ceiling].accuracy(setting.log_sizes[-1:])[:, 0]
    tops = {m: ceiling if m == setting.ceiling else np.full(len(c.lower), ceiling.mean()) for m, c in curves.items()}
    return {m: base + setting.gain * (top - base) for m, top in tops.items()}


def _tells(setting: Setting, tuned: dict[float, int], ask: Ask, method: str) -> bool:
    """Whether a run is one of this method at the rate that its size has."""
    return ask.method == method and ask.rate == rate_at(setting, tuned, ask.size)


def _trial(setting: Setting, results: Results, method: str, size: int) -> Ask:
    rate = rate_at(setting, tuned_rates(setting, results, method), size)
    seed = FIRST_SEED
    while Ask(method, size, rate, seed, True) in results:
        seed += 1
    return Ask(method, size, rate, seed, True)


def _refinements(setting: Setting, results: Results) -> int:
    """How many trials of a method were added after the first look."""
    places = coarse_places(setting)
    own = [a for a in results if a.validation and a.method == setting.methods[0]]
    first = {(a.size, a.rate) for a in own if a.size in places and a.seed == FIRST_SEED}
    halved = sum(rungs(setting.rates)[1:]) if setting.rates > 1 else 0
    return len(own) - len(first) - halved


def _spread(setting: Setting, thresholds: Array) -> float:
    """The standard deviation of a threshold on its posterior; beyond the candidates it counts as just beyond them."""
    ends = setting.log_sizes[0] - 0.5, setting.log_sizes[-1] + 0.5
    return float(np.clip(thresholds, *ends).std())
