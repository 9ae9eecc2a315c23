"""Thresholds of whole points tables: selection, targets, censoring, and properties that hold for every table."""

import math
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from capacity.errors import CapacityError, DataError, SpecError
from capacity_analysis.data.select import Selection, designs
from capacity_analysis.data.table import Points, from_frame
from capacity_analysis.data.where import where
from capacity_analysis.statistics.estimate import accuracy_estimate
from capacity_analysis.statistics.monotone import not_reached
from capacity_analysis.statistics.spread import residual_variance, spread_of_seeds
from capacity_analysis.thresholds.answers import study_thresholds
from capacity_analysis.thresholds.evidence import gather
from capacity_analysis.thresholds.question import Question
from capacity_analysis.thresholds.result import thresholds

SIZES = [1, 10, 100, 1000, 10000, 100000]
ITEMS = 1000


def hill(size, lower=0.5, upper=0.9, midpoint=100.0, slope=1.0):
    return lower + (upper - lower) / (1 + (midpoint / size) ** slope)


def frame(arms, seeds=3, sizes=SIZES, items=ITEMS, noise=0, base=0.5, **columns):
    """A points table: arms maps methods to functions of the size; each run is off by at most `noise` hits."""
    rng = np.random.default_rng(0)
    rows = [{"method": "base", "trained_parameters": 0, "seed": 0, "n_items": items, "n_correct": round(base * items)}]
    for method, curve in arms.items():
        for size in sizes:
            for seed in range(seeds):
                hits = round(curve(size) * items) + int(rng.integers(-noise, noise + 1))
                rows.append(
                    {"method": method, "trained_parameters": size, "seed": seed, "n_items": items, "n_correct": hits}
                )
    return pd.DataFrame(rows).assign(model="m", **columns)


def study(table, selection=None, null=0, **question):
    points = table if isinstance(table, Points) else from_frame(table, "table")
    return study_thresholds(points, selection or Selection(), Question(**question), null=null)


def answer(result, method="sft"):
    return next(c for c in result.thresholds if c.method == method and c.answer)


def test_the_threshold_is_where_the_curve_passes_the_target():
    result = study(frame({"sft": hill}, noise=4), target=0.8)
    found = answer(result).threshold
    assert found.censored == "none"
    assert found.low is not None
    assert found.high is not None
    assert found.estimate is not None
    assert found.low < 300 < found.high
    assert found.estimate == pytest.approx(300, rel=0.15)
    assert found.fraction_not_reached == 0


def test_the_target_is_a_share_of_the_way_to_the_common_ceiling():
    result = study(frame({"sft": lambda x: hill(x, upper=0.65), "grpo": hill}, noise=3), gain=0.5)
    target = result.evidence[0].target
    assert target.ceiling_from == "grpo at 100,000 parameters, the largest update"
    assert target.accuracy == pytest.approx(0.5 + 0.5 * (target.ceiling - 0.5))
    assert answer(result, "sft").threshold.censored == "right"


def test_the_ceiling_is_not_chosen_on_validation_of_some_sizes_only():
    table = frame({"sft": lambda x: hill(x, upper=0.8), "grpo": hill}, noise=3, split="test", learning_rate=0.1)
    tried = table[(table["method"] == "sft") & (table["seed"] == 0)].assign(split="validation", seed=1000)
    some, every = tried[tried["trained_parameters"] < 100], tried
    both = [every, every.assign(method="grpo", n_correct=every["n_correct"] // 2)]

    def ceiling(*rows):
        return study(pd.concat([table, *rows], ignore_index=True), gain=0.5).evidence[0].target.ceiling_from

    assert ceiling(some) == "grpo at 100,000 parameters, the largest update"
    assert ceiling(*both).startswith("sft at ")
    assert ceiling(*both).endswith(", the best on validation")


def test_nothing_reached_is_right_censored_and_never_imputed():
    found = answer(study(frame({"sft": lambda x: hill(x, upper=0.6)}, noise=4), target=0.85)).threshold
    assert (found.estimate, found.high, found.censored) == (None, None, "right")
    assert found.low == SIZES[-1]
    assert found.fraction_not_reached == 1.0


def test_reached_at_the_smallest_is_left_censored():
    found = answer(study(frame({"sft": lambda x: hill(x, lower=0.8)}, noise=4), target=0.7)).threshold
    assert (found.estimate, found.low, found.censored) == (None, None, "left")
    assert found.high == SIZES[0]


def test_without_counts_or_seeds_there_is_no_interval():
    table = frame({"sft": hill}, seeds=1)
    table["accuracy"] = table["n_correct"] / table["n_items"]
    result = study(table.drop(columns=["n_items", "n_correct"]), target=0.8)
    found = answer(result)
    assert (found.threshold.low, found.threshold.high, found.threshold.fraction_not_reached) == (None, None, None)
    assert found.threshold.estimate is not None
    assert found.interval.startswith("none")
    assert any("none are invented" in line for line in result.unsupported)


def test_a_curve_that_is_not_a_hill_curve_is_answered_without_one():
    def plateau(size):
        return 0.5 if size < 50 else 0.7 if size < 5000 else 0.9

    def dip(size):
        return hill(size, midpoint=3000) - 0.2 * (size == 10)

    for curve in (plateau, dip):
        result = study(frame({"sft": curve}, noise=3), target=0.8)
        found = answer(result)
        assert found.estimator == "monotone"
        assert found.fit_p is not None
        assert found.fit_p < 0.05
        assert any("a Hill curve does not fit" in line for line in result.unsupported)


def test_ends_of_the_monotone_interval_are_tested_sizes():
    found = next(c for c in study(frame({"sft": hill}, noise=4), target=0.8).thresholds if c.estimator == "monotone")
    assert (found.threshold.low, found.threshold.high) == (100, 1000)
    assert (found.first_crossing, found.stays_above) == (1000, 1000)


def test_scale_equivariance():
    table = frame({"sft": hill}, noise=4)
    larger = table.assign(trained_parameters=table["trained_parameters"] * 7)
    one, seven = (study(t, target=0.8) for t in (table, larger))
    for a, b in zip(one.thresholds, seven.thresholds, strict=True):
        for name in ("estimate", "low", "high"):
            assert getattr(b.threshold, name) == pytest.approx(7 * getattr(a.threshold, name), rel=0.01)


def test_relabelling_seeds_and_reordering_rows_change_nothing():
    table = frame({"sft": hill, "grpo": hill}, noise=6)
    other = table.sample(frac=1.0, random_state=1).assign(seed=lambda t: 100 - t["seed"])
    for a, b in zip(study(table).thresholds, study(other).thresholds, strict=True):
        assert a.threshold.estimate == pytest.approx(b.threshold.estimate, rel=1e-6)
        assert a.threshold.low == pytest.approx(b.threshold.low, rel=0.02)


def test_more_seeds_narrow_the_interval():
    def width(seeds):
        found = []
        for draw in range(15):
            table = frame({"sft": hill}, seeds=seeds)
            table["n_correct"] += np.random.default_rng(draw).integers(-20, 21, size=len(table))
            threshold = answer(study(table, target=0.8)).threshold
            found.append(math.log10(threshold.high / threshold.low))
        return np.median(found)

    assert width(12) < 0.75 * width(3)


def doubled(name, values, arms=("sft",)):
    """A table twice, with another value of a column each time."""
    table = frame(dict.fromkeys(arms, hill), noise=3)
    return from_frame(pd.concat([table.assign(**{name: value}) for value in values], ignore_index=True), "table")


@pytest.mark.parametrize(
    ("name", "values", "condition"),
    [
        ("task", ["a", "b"], "task=a"),
        ("protocol", ["T0", "T1"], "protocol=T0"),
        ("split", ["test", "train"], "split=test"),
        ("learning_rate", [0.1, 0.2], "learning_rate=0.1"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_condition_that_chooses(name, values, condition):
    points = doubled(name, values)
    with pytest.raises(SpecError, match=f"--where {condition}"):
        designs(points, Selection())
    assert len(designs(where(points, [condition]), Selection())[0].curves) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [("storage_dtype", ["bf16", "int4"]), ("demonstrations", ["own", "worked"]), ("adapter", ["lora", "tinylora"])],
)
def test_what_tells_curves_apart_is_in_their_labels_and_one_can_be_chosen(name, values):
    points = doubled(name, values)
    assert [curve.label for curve in designs(points, Selection())[0].curves] == [f"sft {value}" for value in values]
    (one,) = designs(where(points, [f"{name}={values[1]}"]), Selection())
    assert [curve.label for curve in one.curves] == ["sft"]


def test_rates_of_one_method_can_be_wanted():
    points = doubled("learning_rate", [0.1, 0.2])
    assert len(designs(points, Selection(rates={"sft": 0.1}))[0].curves) == 1
    with pytest.raises(SpecError, match=r"no runs at rate 0\.3; it has 0\.1, 0\.2"):
        designs(points, Selection(rates={"": 0.3}))


def test_the_base_at_another_temperature_is_not_the_base():
    table = frame({"sft": hill}, noise=3).assign(protocol="T1")
    greedy = table.iloc[[0]].assign(protocol="T0", n_correct=880)
    result = study(pd.concat([table, greedy]))
    assert result.evidence[0].target.base == 0.5


def test_rates_are_chosen_on_validation_not_on_test():
    good = frame({"sft": hill}).assign(learning_rate=0.1)
    lucky = frame({"sft": lambda x: min(0.95, hill(x) + 0.04)}).assign(learning_rate=0.2)
    test = pd.concat([good, lucky[lucky["method"] != "base"]]).assign(split="test")
    validation = pd.concat(
        [t[t["method"] != "base"].assign(n_correct=hits, split="validation") for t, hits in ((good, 800), (lucky, 700))]
    )
    result = study(pd.concat([test, validation]), target=0.8)
    assert answer(result).accuracies[0] == pytest.approx(hill(1), abs=1e-3)


def test_bytes_instead_of_parameters():
    table = frame({"sft": hill}, noise=3)
    table["update_bytes"] = table["trained_parameters"] * 2
    found = answer(study(table, Selection(unit="bytes"), target=0.8)).threshold.estimate
    assert found == pytest.approx(600, rel=0.15)
    with pytest.raises(SpecError, match="update_bytes"):
        study(table.drop(columns="update_bytes"), Selection(unit="bytes"), target=0.8)


def test_what_cannot_be_estimated_says_why():
    with pytest.raises(CapacityError, match="not above the base"):
        study(frame({"sft": lambda _: 0.0}))
    with pytest.raises(CapacityError, match="one size only"):
        study(frame({"sft": hill}, sizes=[10]))
    with pytest.raises(CapacityError, match="untrained base"):
        study(frame({"sft": hill}).iloc[1:])
    with pytest.raises(DataError, match="no trained runs"):
        study(frame({}))
    with pytest.raises(SpecError, match="percent"):
        Question(target=85.0)


def test_equal_accuracies_are_censored_not_fitted():
    result = study(frame({"sft": lambda _: 0.5}), target=0.7)
    assert [c.estimator for c in result.thresholds] == ["monotone"]
    assert answer(result).threshold.censored == "right"


def test_variance_is_pooled_over_sizes_and_never_below_the_resolution():
    rng = np.random.default_rng(0)
    noisy = spread_of_seeds(0.8 + 0.01 * rng.normal(size=(2000, 7, 3)), np.full(7, 1319.0))
    assert noisy.df[0] == 14
    assert noisy.variance.mean() == pytest.approx(1e-4 / 3, rel=0.02)
    equal = spread_of_seeds(np.full((1, 4, 3), 0.8), np.full(4, 100.0))
    assert equal.variance.min() == pytest.approx(0.01**2 / 12)


def test_one_seed_has_the_binomial_variance():
    found = spread_of_seeds(np.full((1, 2, 1), 0.9), np.full(2, 1319.0))
    assert np.sqrt(found.variance[0, 0]) == pytest.approx(math.sqrt(0.9 * 0.1 / 1319), rel=0.01)
    assert np.isinf(found.df[0])


def test_design_effect_of_correlated_answers():
    """BetaBinomial: Var = n p (1 − p) (1 + (n − 1) ρ); n = 1319, ρ = .001 gives 2.318."""
    n, rho, p = 1319, 0.001, 0.8
    s = 1 / rho - 1
    rng = np.random.default_rng(0)
    hits = rng.binomial(n, rng.beta(p * s, (1 - p) * s, size=(3000, 7, 5)))
    variance = spread_of_seeds(hits / n, np.full(7, float(n))).variance.mean() * 5
    assert variance / (p * (1 - p) / n) == pytest.approx(1 + (n - 1) * rho, rel=0.02)
    assert 1 + (n - 1) * rho == pytest.approx(2.318)


def test_wilson_of_the_oracle():
    outcomes = np.zeros((1, 1319))
    outcomes[0, :1200] = 1
    found = accuracy_estimate(outcomes)
    assert (found.low, found.high) == (pytest.approx(0.893106, abs=1e-6), pytest.approx(0.924075, abs=1e-6))


def test_replicates_that_never_reach_count():
    means = np.array([[0.1, 0.2], [0.1, 0.9], [0.9, 0.1]])
    assert not_reached(means, np.full(3, 0.5), np.ones(2)) == pytest.approx(1 / 3)


def test_residual_variance_is_that_of_the_interaction():
    rng = np.random.default_rng(0)
    outcomes = rng.normal(size=(4, 1)) + rng.normal(size=(1, 500)) + 0.5 * rng.normal(size=(4, 500))
    assert residual_variance(outcomes) == pytest.approx(0.25 / 2000, rel=0.1)


def with_outcomes(seeds, items, sizes, rng):
    """A table with per-item outcomes: items of different difficulty, answered by every run."""
    table = frame({"sft": lambda x: hill(x, midpoint=300.0), "grpo": hill}, seeds=seeds, sizes=sizes, items=items)
    difficulty = rng.normal(size=items)
    share = table["n_correct"].to_numpy() / items
    logits = np.log(share / (1 - share))[:, None] * 1.2 - difficulty
    outcomes = (rng.random((len(table), items)) < 1 / (1 + np.exp(-logits))).astype(float)
    table["n_correct"] = outcomes.sum(1).astype(int)
    points = from_frame(table, "table")
    return Points(points.frame, outcomes, tuple(map(str, range(items))), "table", points.fields)


def test_fresh_items_widen_the_interval():
    points = with_outcomes(3, 400, SIZES, np.random.default_rng(2))

    def width(items):
        found = answer(study(points, gain=0.5, items=items)).threshold
        assert found.low is not None
        assert found.high is not None
        return math.log10(found.high / found.low)

    assert width("population") > width("these")


def test_population_without_outcomes_is_a_labelled_approximation():
    found = answer(study(frame({"sft": hill}, noise=5), target=0.8, items="population"))
    assert "approximation" in found.interval


MANY = [round(10 ** (i / 16)) + i for i in range(100)]  # with two methods and five seeds a thousand runs
SLOW = pytest.mark.skipif("CAPACITY_SLOW" not in os.environ, reason="figures of speed: CAPACITY_SLOW=1")


def seconds(points, replicates):
    """Processor time of thresholds and ratios for fresh items."""
    question = Question(gain=0.5, items="population", replicates=replicates)
    began = time.process_time()
    study_thresholds(points, Selection(), question, null=0)
    return time.process_time() - began


@SLOW
@pytest.mark.parametrize(("replicates", "limit"), [(1000, 5), (10_000, 30)])
def test_replicates_of_a_thousand_runs_are_quick(replicates, limit):
    points = with_outcomes(5, 1319, MANY, np.random.default_rng(0))
    assert (len(points.frame[points.frame["trained_parameters"] > 0]), len(points.items)) == (1000, 1319)
    assert seconds(points, replicates) < limit


@SLOW
def test_replicates_of_a_thousand_counts_are_quick():
    table = frame({"sft": lambda x: hill(x, midpoint=300.0), "grpo": hill}, noise=3, seeds=5, sizes=MANY, items=1319)
    assert seconds(from_frame(table, "table"), 10_000) < 10


def test_thresholds_load_neither_torch_nor_the_slow_parts_of_scipy():
    slow = "'torch', 'transformers', 'scipy.stats', 'scipy.integrate', 'matplotlib'"
    code = f"import sys, capacity_analysis.thresholds.answers; print([m for m in ({slow}) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_curves_carry_what_they_were_made_from():
    evidence = gather(
        designs(from_frame(frame({"sft": hill}, noise=2), "t"), Selection())[0], Question(), np.random.default_rng(0)
    )
    found = thresholds(evidence)[0]
    assert found.sizes == tuple(map(float, SIZES))
    assert found.seeds == 3


def test_seeds_that_collapsed_are_set_aside_and_counted_beside_the_curve():
    table = frame({"sft": lambda x: hill(x, midpoint=300.0), "grpo": hill}, seeds=5, noise=4)
    fallen = table.copy()
    lost = (fallen["method"] == "grpo") & (fallen["seed"] == 2)
    fallen.loc[lost, "n_correct"] = 500
    whole, found = study(table[~lost], target=0.8), study(fallen, target=0.8)
    assert answer(found, "grpo").threshold.estimate == pytest.approx(answer(whole, "grpo").threshold.estimate)
    share = answer(found, "grpo").collapsed
    assert (share.count, share.seeds) == (1, 5)
    assert answer(found, "grpo").seeds == 4
    assert answer(found, "sft").collapsed.count == 0
    assert any("grpo on m: 1 of 5 (0.5–71.6 %) seeds collapsed" in said for said in found.unsupported)
    assert not any("collapsed" in said for said in whole.unsupported)


def test_the_spread_of_seeds_is_counted_once_for_fresh_items():
    points = with_outcomes(4, 400, SIZES, np.random.default_rng(3))
    (design,) = designs(points, Selection())
    these, fresh = (
        gather(design, Question(target=0.7, items=items), np.random.default_rng(0)).differences
        for items in ("these", "population")
    )
    # What differs between seeds is the same. The items add what is not among it.
    assert fresh.seeds.covariance == pytest.approx(these.seeds.covariance)
    outcomes = np.concatenate([curve.outcomes for curve in design.curves])
    for place, own in enumerate(outcomes):
        twice = min(residual_variance(own), these.seeds.covariance[0, place, place])
        assert fresh.known[0, place, place] == pytest.approx(own.mean(0).var(ddof=1) / 400 - twice, rel=1e-6)
        weights = np.eye(12)[[place]]
        assert fresh.variance(weights)[0] - these.variance(weights)[0] == pytest.approx(
            fresh.known[0, place, place] - these.known[0, place, place]
        )
