"""Adaptive designs: pure steps from what validation has shown to the next batch, equal for all methods."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from capacity_analysis.design.further import bisected, is_gap, nearest_new
from capacity_analysis.design.information import gradient, precision
from capacity_analysis.design.pilot import FIRST_SEED, rate_at, tuned_rates
from capacity_analysis.design.posterior import Curves, posterior
from capacity_analysis.design.rates import carried, neighbours, rungs, survivors
from capacity_analysis.design.state import Ask, Batch, Goal, Measured, Results, Setting, Stop
from capacity_analysis.design.steps import confidence, ended, next_step

LOG_SIZES = np.linspace(0, 4, 33)
GOAL = Goal(half_width=0.25, decide=None, most_runs=200)
SETTING = Setting(LOG_SIZES, ("sft", "grpo"), 1, None, 0.8, "grpo", 512, GOAL, 4)
MIDPOINT = {"sft": 2.5, "grpo": 1.5}
OPEN = (-np.inf, np.inf)


def accuracy(ask: Ask, best_rate: int = 0) -> float:
    share = 1 / (1 + 10 ** (MIDPOINT[ask.method] - LOG_SIZES[ask.size]))
    return float(0.4 + 0.5 * share - 0.05 * abs(ask.rate - best_rate))


def played(
    setting: Setting, measured: list[Measured], best_rate: int = 0
) -> tuple[list[Batch], Stop, dict[Ask, float]]:
    """The batches of a study whose results are measured as given, the last one again and again."""
    results: dict[Ask, float] = {}
    batches: list[Batch] = []
    looks: list[Measured] = []
    while isinstance(step := next_step(setting, results, 0.4, looks), Batch):
        batches.append(step)
        results |= {ask: accuracy(ask, best_rate) for ask in step.runs}
        if not step.runs[0].validation:
            looks.append(measured[min(len(looks), len(measured) - 1)])
    return batches, step, results


def around(half_width: float) -> Measured:
    return Measured(
        dict.fromkeys(MIDPOINT, (2.0 - half_width, 2.0 + half_width)), (-1.0, 1.0), dict.fromkeys(MIDPOINT, True)
    )


def test_every_batch_is_the_same_for_all_methods() -> None:
    for setting in (SETTING, replace(SETTING, rates=5)):
        batches, _, _ = played(setting, [around(1.0), around(1.0), around(0.2)])
        assert len(batches) > 3
        for batch in batches:
            counts = {m: sum(ask.method == m for ask in batch.runs) for m in MIDPOINT}
            assert counts["sft"] == counts["grpo"] > 0
            assert batch.why.endswith(".")


def test_results_go_where_validation_shows_the_threshold() -> None:
    batches, stop, _ = played(SETTING, [around(0.2)])
    assert stop.reached
    results = next(batch.runs for batch in batches if not batch.runs[0].validation)
    assert len(results) == 20  # two seeds at five sizes of each method
    for method, true in (("sft", 2.5), ("grpo", 1.5)):
        own = {ask.size for ask in results if ask.method == method}
        assert len(own) == 5
        assert 32 in own  # the ceiling is measured at the largest size
        near = [size for size in own if abs(LOG_SIZES[size] - (true + 0.5)) < 0.8]
        assert len(near) >= 2


def test_rates_never_depend_on_the_test_split_nor_sizes_on_results_after_the_first() -> None:
    setting = replace(SETTING, rates=3)
    _, _, results = played(setting, [around(1.0)] * 2 + [around(0.2)])
    first = [ask for ask in results if not ask.validation][:20]
    later = {ask: (acc if ask.validation or ask in first else 1 - acc) for ask, acc in results.items()}
    step, again = (next_step(setting, r, 0.4, [around(1.0)]) for r in (results, later))
    assert isinstance(step, Batch)
    assert step == again
    other = {ask: (acc if ask.validation else 1 - acc) for ask, acc in results.items()}
    for method in MIDPOINT:
        assert tuned_rates(setting, other, method) == tuned_rates(setting, results, method)


def test_seeds_of_trials_are_not_those_of_results() -> None:
    _, _, results = played(SETTING, [around(1.0), around(0.2)])
    assert all((ask.seed >= FIRST_SEED) == ask.validation for ask in results)
    by_size: dict[tuple[str, int], list[int]] = {}
    for ask in results:
        if not ask.validation:
            by_size.setdefault((ask.method, ask.size), []).append(ask.seed)
    assert all(sorted(seeds) == list(range(len(seeds))) for seeds in by_size.values())


def test_a_study_goes_through_the_same_steps_again() -> None:
    batches, stop, results = played(SETTING, [around(1.0), around(0.2)])
    replayed: dict[Ask, float] = {}
    looks: list[Measured] = []
    for batch in batches:
        assert next_step(SETTING, replayed, 0.4, looks) == batch
        if not batch.runs[0].validation:
            looks.append(around(0.2) if looks else around(1.0))
        replayed |= {ask: results[ask] for ask in batch.runs}
    assert stop.reached


def test_the_budget_is_never_exceeded_and_said() -> None:
    setting = replace(SETTING, goal=replace(GOAL, most_runs=37))
    _, stop, results = played(setting, [around(1.0)])
    assert len(results) <= 37
    assert (stop.reached, stop.why) == (False, "The next batch would exceed 37 runs.")


ENDS: dict[str, tuple[Goal, Measured, bool | None, str]] = {
    "narrow": (GOAL, around(0.25), True, "Each threshold is known to ±0.25 decades or better."),
    "wide": (GOAL, around(0.26), None, ""),
    "one open": (GOAL, Measured({"sft": (2.0, np.inf), "grpo": (1.4, 1.6)}), None, ""),
    "one beyond": (GOAL, Measured({"sft": (4.0, np.inf), "grpo": (1.4, 1.6)}), True, "sft beyond the largest size"),
    "one before": (GOAL, Measured({"sft": (1.4, 1.6), "grpo": (-np.inf, 0.0)}), True, "grpo before the smallest size"),
    "above ten": (Goal(None, 10, 99), replace(around(1), ratio=(1.1, 3.0)), True, "above 10"),
    "below ten": (Goal(None, 10, 99), replace(around(1), ratio=(-1.0, 0.9)), True, "below 10"),
    "ten inside": (Goal(None, 10, 99), replace(around(0.1), ratio=(0.9, 1.1)), None, ""),
    "both beyond": (
        Goal(None, 10, 99),
        Measured({"sft": (4.0, np.inf), "grpo": (4.0, np.inf)}, OPEN),
        False,
        "outside",
    ),
}


@pytest.mark.parametrize(("goal", "found", "reached", "why"), ENDS.values(), ids=ENDS)
def test_a_study_ends_when_its_goal_is_reached_or_out_of_range(
    goal: Goal, found: Measured, reached: bool | None, why: str
) -> None:
    stop = ended(replace(SETTING, goal=goal), found)
    assert (None if stop is None else stop.reached) == reached
    assert stop is None or why in stop.why


def test_all_runs_that_are_expected_to_be_needed_are_made_before_the_next_look() -> None:
    counts = []
    for half_width in (0.26, 0.32, 0.5, 2.0):
        batches, stop, _ = played(SETTING, [around(half_width), around(0.2)])
        results = [batch for batch in batches if not batch.runs[0].validation]
        assert len(results) == 2
        assert stop.why == "Each threshold is known to ±0.20 decades or better."
        counts.append(len(results[1].runs))
    assert counts == sorted(counts)
    assert 4 <= counts[0] < counts[1] < counts[2] <= counts[3] == 20  # at most as many as there are


def test_where_no_curve_fits_the_interval_is_bisected() -> None:
    batches, _, _ = played(SETTING, [around(0.2)])
    before: Results = {ask: accuracy(ask) for batch in batches for ask in batch.runs}
    rejected = replace(around(0.5), believed=dict.fromkeys(MIDPOINT, False))
    step = next_step(SETTING, before, 0.4, [rejected])
    assert isinstance(step, Batch)
    for method in MIDPOINT:
        old = {ask.size for ask in before if ask.method == method and not ask.validation}
        (new,) = {ask.size for ask in step.runs if ask.method == method} - old
        inside = sorted([1.5, 2.5, *(LOG_SIZES[size] for size in old if 1.5 < LOG_SIZES[size] < 2.5)])
        gap = int(np.argmax(np.diff(inside)))
        assert LOG_SIZES[new] == pytest.approx((inside[gap] + inside[gap + 1]) / 2, abs=0.13)


def test_a_gap_between_tested_sizes_is_bisected_until_no_candidate_is_left() -> None:
    counts = np.zeros(33)
    counts[[0, 16, 20, 32]] = 2
    assert is_gap(LOG_SIZES, counts, (2.0, 2.5))
    assert not is_gap(LOG_SIZES, counts, (1.9, 2.5))
    assert bisected(LOG_SIZES, counts, (2.0, 2.5)) == 18
    assert bisected(LOG_SIZES, counts, (-np.inf, 2.0)) == 8
    counts[16:21] = 2
    assert bisected(LOG_SIZES, counts, (2.0, 2.5)) is None
    assert nearest_new(LOG_SIZES, counts, (2.0, 2.5)) in (15, 21)


def test_looks_at_a_ratio_share_their_error_and_come_after_half_as_many_results_again() -> None:
    assert confidence(Goal(None, 10, 20), 2) == pytest.approx(0.95)
    assert confidence(Goal(None, 10, 60), 2) == pytest.approx(1 - 0.05 / 4)  # at 20, 30, 46 and 60 results
    setting = replace(SETTING, goal=Goal(None, 10, 200))
    batches, stop, _ = played(setting, [around(1.0), around(1.0), replace(around(1.0), ratio=(1.2, 2.0))])
    assert [len(batch.runs) for batch in batches if not batch.runs[0].validation] == [20, 10, 16]
    assert stop == Stop("The ratio of thresholds is above 10.", reached=True)


def test_rates_are_halved_at_the_middle_and_carried_to_the_ends() -> None:
    setting = replace(SETTING, rates=5)
    batches, _, results = played(setting, [around(0.2)], best_rate=3)
    first = [ask for ask in batches[0].runs if ask.method == "sft"]
    assert [(ask.size, ask.rate) for ask in first] == [(16, rate) for rate in range(5)]
    second = [ask for ask in batches[1].runs if ask.method == "sft"]
    assert len(second) == 2
    assert 3 in {ask.rate for ask in second}
    ends = [(ask.size, ask.rate) for ask in batches[2].runs if ask.method == "sft"]
    assert ends == [(size, rate) for size in (0, 32) for rate in (2, 3, 4)]
    assert {ask.rate for ask in batches[-1].runs} == {3}
    assert rate_at(setting, tuned_rates(setting, results, "sft"), 8) == 3


def test_a_method_that_fails_at_every_rate_ends_the_study_in_one_line() -> None:
    setting = replace(SETTING, rates=2)
    results: dict[Ask, float | None] = {}
    while isinstance(step := next_step(setting, results, 0.4, []), Batch):
        results |= {ask: None if ask.method == "sft" else accuracy(ask) for ask in step.runs}
    assert step == Stop("Too few trials of sft on validation gave a result.", reached=False)


def test_halving_keeps_the_best_by_mean_and_never_a_failed_rate() -> None:
    assert [rungs(n) for n in (1, 2, 3, 5, 9)] == [(1,), (2,), (3,), (5, 2), (9, 3)]
    trials: Mapping[int, list[float | None]] = {0: [0.9, None], 1: [0.5, 0.7], 2: [0.6, 0.6], 3: [0.2]}
    assert survivors(trials, 1) == (1,)
    assert survivors(trials, 2) == (1, 2)
    assert [neighbours(rate, 5) for rate in (0, 2, 4)] == [(0, 1, 2), (1, 2, 3), (2, 3, 4)]
    assert carried(1.0, {0.0: 1, 2.0: 3, 4.0: 3}) == 2
    assert carried(9.0, {0.0: 1, 2.0: 3}) == 3


def test_the_posterior_finds_the_curve_that_the_trials_are_of() -> None:
    sizes = np.repeat(np.linspace(0, 4, 9), 20)
    shown = 0.3 + 0.5 / (1 + 10 ** (1.5 * (2.2 - sizes)))
    found = posterior(sizes, shown, 512, (0.0, 4.0))
    assert np.median(found.midpoint) == pytest.approx(2.2, abs=0.15)
    assert np.median(found.lower) == pytest.approx(0.3, abs=0.05)
    assert np.median(found.threshold(0.55)) == pytest.approx(2.2, abs=0.1)


def test_gradient_and_variance_agree_with_small_changes() -> None:
    one = Curves(*(np.array([v]) for v in (0.3, 0.9, 2.0, 1.2)))
    x, step = np.array([1.4]), 1e-6
    found = gradient(one, x)[0, 0]
    for place, name in enumerate(("lower", "upper", "midpoint", "slope")):
        by = step * (1.2 if name == "slope" else 1.0)  # the last derivative is by the log of the slope
        moved = replace(one, **{name: getattr(one, name) + by})
        assert found[place] == pytest.approx((moved.accuracy(x) - one.accuracy(x))[0, 0] / step, rel=1e-4)
    counts = np.zeros(33)
    counts[[0, 12, 16, 20, 32]] = 4.0
    before = precision(one, np.array([0.7]), 0.0, LOG_SIZES, counts, 512)
    more = counts + np.eye(33)[18]
    after = precision(one, np.array([0.7]), 0.0, LOG_SIZES, more, 512)
    assert before.deviation**2 - after.deviation**2 == pytest.approx(before.reduction[18], rel=1e-6)


def test_a_target_that_no_curve_reaches_sends_runs_to_the_largest_size() -> None:
    low = Curves(*(np.array([v]) for v in (0.3, 0.5, 2.0, 1.0)))
    says = precision(low, np.array([0.9]), 0.0, LOG_SIZES, np.zeros(33), 512)
    assert int(np.argmax(says.reduction)) == 32
    assert np.isinf(says.deviation)
