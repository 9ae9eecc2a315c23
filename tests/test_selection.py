import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from capacity.errors import SpecError
from capacity_analysis.data.table import Points, from_frame
from capacity_analysis.data.tuning import best_of_bias, edge_remarks, rate_trials, reported_rows


def rows(
    rates: dict[float, list[float]], split: str = "validation", method: str = "grpo", size: int = 13
) -> list[dict]:
    return [
        {
            "method": method, "trained_parameters": size, "learning_rate": rate, "seed": seed, "split": split,
            "accuracy": accuracy,
        }
        for rate, values in rates.items()
        for seed, accuracy in enumerate(values)
    ]  # fmt: skip


def points(*tables: list[dict]) -> Points:
    return from_frame(pd.DataFrame(list(itertools.chain(*tables))), "test")


@pytest.mark.parametrize(("trials", "bias"), [(1, 0.0), (2, 0.56419), (3, 0.84628), (5, 1.16296), (10, 1.53875)])
def test_bias_of_the_best_of_m(trials, bias):
    assert best_of_bias(trials) == pytest.approx(bias, abs=5e-6)


def test_bias_against_order_statistics_by_simulation():
    draws = np.random.default_rng(0).standard_normal((200_000, 7)).max(1)
    assert best_of_bias(7) == pytest.approx(draws.mean(), abs=4 * draws.std() / np.sqrt(len(draws)))
    with pytest.raises(ValueError, match="at least one"):
        best_of_bias(0)


def test_trials_of_an_arm():
    (trial,) = rate_trials(points(rows({0.1: [0.5, 0.6], 0.001: [0.4, 0.5], 0.01: [0.7, 0.8]})))
    assert trial.rates == (0.001, 0.01, 0.1)
    assert trial.accuracies == pytest.approx((0.45, 0.75, 0.55))
    assert (trial.best, trial.at_edge, trial.equal_trials) == (0.01, False, True)
    # Each rate's two seeds differ by .1: variance .005, so a mean of two has the standard error .05.
    assert trial.flattery == pytest.approx(stats.norm.expect(lambda z: z * 3 * stats.norm.cdf(z) ** 2) * 0.05)
    assert edge_remarks([trial]) == []


@pytest.mark.parametrize(("best", "side"), [(0.001, "smallest"), (0.1, "largest")])
def test_an_optimum_at_the_edge_is_flagged(best, side):
    rates = {rate: [0.9 if rate == best else 0.5] for rate in (0.001, 0.01, 0.1)}
    (trial,) = rate_trials(points(rows(rates)))
    assert trial.at_edge
    assert trial.flattery is None
    assert f"is the {side} of 3 tried" in edge_remarks([trial])[0]


def test_of_equal_rates_the_middle_one_is_best_as_in_a_sweep():
    (trial,) = rate_trials(points(rows({0.001: [0.5], 0.01: [0.5], 0.1: [0.5]})))
    assert (trial.best, trial.at_edge) == (0.01, False)


def test_a_single_rate_is_no_tuning():
    (trial,) = rate_trials(points(rows({0.01: [0.5]})))
    assert trial.at_edge
    assert "one learning rate only" in edge_remarks([trial])[0]


def test_unequal_trials_are_seen():
    (trial,) = rate_trials(points(rows({0.1: [0.5, 0.6], 0.01: [0.4]})))
    assert not trial.equal_trials


def test_validation_chooses_what_is_reported():
    """The rate that is best on test is not reported: validation preferred the other."""
    table = points(
        rows({0.1: [0.6], 0.01: [0.8]}),
        rows({0.1: [0.9], 0.01: [0.7]}, split="test"),
        rows({0.5: [0.3]}, "test", "sft"),
    )
    kept = table.frame[reported_rows(table)]
    assert kept["accuracy"].tolist() == [0.7, 0.3]


def test_choosing_by_the_test_rows_is_refused():
    with pytest.raises(SpecError, match=r"grpo 13 has 2 learning rates \(0.01, 0.1\) and no validation rows"):
        reported_rows(points(rows({0.1: [0.9], 0.01: [0.7]}, split="test")))


def test_a_table_without_splits_and_rates_is_reported_whole():
    table = from_frame(pd.DataFrame({"method": ["grpo"], "trained_parameters": [1], "accuracy": [0.5]}), "t")
    assert reported_rows(table).tolist() == [True]
    assert rate_trials(table) == ()
