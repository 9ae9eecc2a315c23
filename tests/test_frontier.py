import itertools

import numpy as np
import pandas as pd
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from capacity.errors import DataError, SpecError
from capacity_analysis.bits.cells import measured_cells
from capacity_analysis.bits.frontier import frontier, pareto
from capacity_analysis.bits.savings import at_equal_size, mean_curves, savings
from capacity_analysis.data.table import Points, from_frame

SIZES = (1, 4, 13, 84, 1792)


def hill(size: float, e: float) -> float:
    return 0.5 + 0.45 / (1 + e / size)


def table(e: dict[str, float], seeds: int = 3, n: int = 1000, rng_seed: int = 0, **columns: object) -> Points:
    rng = np.random.default_rng(rng_seed)
    rows = [{"method": "base", "trained_parameters": 0, "n_items": n, "n_correct": n // 2}]
    for method, size, seed in itertools.product(e, SIZES, range(seeds)):
        right = rng.binomial(n, hill(size, e[method]))
        rows.append(
            {
                "method": method, "trained_parameters": size, "update_bytes": 2 * size, "seed": seed, "n_items": n,
                "n_correct": right, **columns,
            }
        )  # fmt: skip
    return from_frame(pd.DataFrame(rows), "test")


def dominated(i: int, sizes: np.ndarray, accuracies: np.ndarray) -> bool:
    return any(
        (sizes[j] <= sizes[i] and accuracies[j] >= accuracies[i])
        and (sizes[j] < sizes[i] or accuracies[j] > accuracies[i])
        for j in range(len(sizes))
    )


@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 8)), elements=st.integers(0, 4)), st.data())
@unhurried
def test_pareto_is_what_nothing_dominates(accuracies, data):
    n = accuracies.shape[1]
    sizes = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=float)
    found = pareto(sizes, accuracies.astype(float))
    for row, kept in zip(accuracies, found, strict=True):
        assert kept.tolist() == [not dominated(i, sizes, row) for i in range(n)]


def test_frontier_of_a_rising_curve_holds_every_size_and_a_worse_dtype_is_off_it():
    good, bad = table({"grpo": 30}, storage_dtype="bf16"), table({"grpo": 3000}, storage_dtype="fp32")
    both = pd.concat([good.frame, bad.frame[bad.frame["method"] != "base"]])
    places = frontier(measured_cells(from_frame(both, "t")), 400, np.random.default_rng(0))
    by = {(p.known["storage_dtype"], p.known["trained_parameters"]): p for p in places}
    assert len(places) == 2 * len(SIZES)
    for size in SIZES[1:]:
        assert by["bf16", size].on_frontier
        assert by["bf16", size].membership > 0.9
    for size in (13, 84):
        assert not by["fp32", size].on_frontier
        assert by["fp32", size].membership < 0.1
    assert all(p.low < p.accuracy < p.high for p in places)


def test_each_kind_of_demonstrations_has_a_frontier_of_its_own():
    plain = table({"sft": 30}, demonstrations="worked&style_bits=0")
    noisy = table({"sft": 3000}, rng_seed=1, demonstrations="worked&style_bits=8")
    both = pd.concat([plain.frame, noisy.frame[noisy.frame["method"] != "base"]])
    found = frontier(measured_cells(from_frame(both, "t")), 200, np.random.default_rng(0))
    on = [(p.known["demonstrations"], p.size) for p in found if p.on_frontier]
    assert [size for kind, size in on if kind == "worked&style_bits=0"] == [2 * size for size in SIZES]
    assert (("worked&style_bits=8", 2 * SIZES[-1])) in on  # beaten by the other kind at every size


def test_an_update_worse_than_the_base_is_not_on_the_frontier():
    points = table({"sft": 30})
    worse = points.frame.copy()
    worse.loc[worse["trained_parameters"] == 1, ["n_correct", "accuracy"]] = [400, 0.4]
    places = frontier(measured_cells(from_frame(worse, "t")), 200, np.random.default_rng(0))
    assert not places[0].on_frontier
    assert places[0].membership < 0.05


def test_saving_of_a_shifted_curve():
    """The second arm's curve is the first one's at ten times the size."""
    found = measured_cells(table({"sft": 300, "grpo": 30}, n=20_000))
    (forth,) = savings(found, mean_curves(found), 300, np.random.default_rng(0))
    true = 1.0  # of log10, over the accuracies that both reach, up to the coarse sizes
    back = forth.inverse
    assert (forth.test, forth.anchor) == (back.anchor, back.test) == ("sft", "grpo")
    assert np.log10(forth.size_ratio) == pytest.approx(true, abs=0.2)
    assert back.size_ratio == pytest.approx(1 / forth.size_ratio)
    assert (back.low, back.high) == pytest.approx((1 / forth.high, 1 / forth.low))
    assert 1 < forth.low < forth.size_ratio < forth.high
    assert forth.overlap
    assert forth.no_overlap == 0


def test_intervals_cover_equal_arms():
    held = 0
    rng = np.random.default_rng(0)
    for number in range(40):
        found = measured_cells(table({"sft": 60, "grpo": 60}, rng_seed=number))
        saving = savings(found, mean_curves(found), 60, rng)[0]
        held += saving.low <= 1 <= saving.high
    assert held >= 34  # 95 % of 40 less three standard errors


def test_more_items_narrow_the_interval():
    widths = []
    for n in (500, 5000):
        found = measured_cells(table({"sft": 300, "grpo": 30}, n=n))
        saving = savings(found, mean_curves(found), 200, np.random.default_rng(0))[0]
        widths.append(np.log(saving.high / saving.low))
    assert widths[1] < 0.6 * widths[0]


def test_no_overlap_is_an_answer():
    rows = [
        {"method": m, "trained_parameters": s, "update_bytes": s, "seed": i, "n_items": 1000, "n_correct": c + i}
        for m, counts in (("sft", (500, 520, 540)), ("grpo", (800, 850, 900)))
        for s, c in zip((1, 10, 100), counts, strict=True)
        for i in range(3)
    ]
    found = measured_cells(from_frame(pd.DataFrame(rows), "t"))
    saving = savings(found, mean_curves(found), 200, np.random.default_rng(0))[0]
    assert not saving.overlap
    assert (saving.size_ratio, saving.low, saving.high) == (None, None, None)
    assert "every size of grpo is more accurate than all of sft" in saving.remark


def test_a_level_arm_has_no_size_for_an_accuracy():
    rows = [
        {"method": m, "trained_parameters": s, "update_bytes": s, "seed": i, "n_items": 1000, "n_correct": c}
        for m, counts in (("sft", (700, 700, 700)), ("grpo", (600, 700, 900)))
        for s, c in zip((1, 10, 100), counts, strict=True)
        for i in range(2)
    ]
    found = measured_cells(from_frame(pd.DataFrame(rows), "t"))
    saving = savings(found, mean_curves(found), 100, np.random.default_rng(0))[0]
    assert not saving.overlap
    assert "does not rise with size" in saving.remark


def test_equal_sizes_of_one_arm_give_the_measured_accuracies():
    found = measured_cells(table({"grpo": 30}))
    rows = at_equal_size(found, mean_curves(found), 100, np.random.default_rng(0))
    assert [r.size for r in rows] == [2.0 * s for s in SIZES]
    assert all(r.tested for r in rows)
    assert [r.estimate.value for r in rows] == pytest.approx(found.accuracies[1:])
    assert {r.estimate.label for r in rows} == {"95 %, fresh seeds on these items, variance pooled over sizes, 3 seeds"}


def test_without_counts_and_seeds_there_is_an_estimate_and_no_interval():
    rows = [
        {"method": m, "trained_parameters": s, "accuracy": a}
        for m, values in (("sft", (0.5, 0.6, 0.7)), ("grpo", (0.6, 0.7, 0.8)))
        for s, a in zip((1, 10, 100), values, strict=True)
    ]
    found = measured_cells(from_frame(pd.DataFrame(rows), "t"))
    assert found.unit == "parameters"
    saving = savings(found, mean_curves(found), 100, np.random.default_rng(0))[0]
    assert saving.size_ratio == pytest.approx(10)
    assert (saving.low, saving.high, saving.no_overlap) == (None, None, None)
    place = frontier(found, 100, np.random.default_rng(0))[0]
    assert (place.low, place.membership) == (None, None)
    with pytest.raises(DataError, match="no intervals"):
        found.replicates(10, np.random.default_rng(0))


def test_one_seed_is_binomial_and_says_so():
    found = measured_cells(table({"grpo": 30}, seeds=1, n=400))
    assert found.dispersion is None
    assert "one seed" in found.method
    (label,) = {r.estimate.label for r in at_equal_size(found, mean_curves(found), 100, np.random.default_rng(0))}
    assert label == "95 %, fresh items, one seed"
    p = found.accuracies
    assert found.errors == pytest.approx(np.sqrt(p * (1 - p) / 400), rel=0.01)


def test_seeds_that_agree_exactly_are_not_taken_for_certainty():
    rows = [
        {"method": "grpo", "trained_parameters": n, "seed": seed, "n_items": 100, "n_correct": 0}
        for n, seed in itertools.product((1, 10), range(3))
    ]
    found = measured_cells(from_frame(pd.DataFrame(rows), "t"))
    assert found.dispersion is None
    assert "agree exactly" in found.method
    assert np.all(found.errors > 0)
    uncounted = pd.DataFrame(rows).drop(columns=["n_items", "n_correct"]).assign(accuracy=0.0)
    assert "no interval" in measured_cells(from_frame(uncounted, "t")).method


def test_dispersion_is_pooled_over_sizes_and_about_one_for_binomial_counts():
    found = measured_cells(table({"grpo": 30, "sft": 300}, seeds=40))
    assert found.df == 2 * len(SIZES) * 39
    assert found.dispersion == pytest.approx(1, abs=0.2)
    draws = found.replicates(4000, np.random.default_rng(0))
    assert draws.std(0) == pytest.approx(found.errors, rel=0.1)


def test_cells_of_one_size_are_curves_of_their_own():
    one, other = table({"grpo": 30}, adapter="tinylora"), table({"grpo": 40}, adapter="lora-xs", rng_seed=1)
    both = pd.concat([one.frame, other.frame[other.frame["method"] != "base"]])
    found = measured_cells(from_frame(both, "t"))
    assert [c.label for c in mean_curves(found)] == ["grpo lora-xs", "grpo tinylora"]
    assert [c.label for c in mean_curves(found, ("method", "adapter"))] == ["grpo lora-xs", "grpo tinylora"]
    with pytest.raises(SpecError, match="differ in adapter, not in their size alone: name that in --by"):
        mean_curves(found, ("method",))
    with pytest.raises(SpecError, match="unknown field 'colour'"):
        mean_curves(found, ("colour",))


def test_population_of_items_needs_outcomes_and_widens():
    points = table({"grpo": 30})
    with pytest.raises(DataError, match="no per-item outcomes"):
        measured_cells(points).replicates(10, np.random.default_rng(0), "population")
    rng = np.random.default_rng(0)
    outcomes = (rng.random((len(points.frame), 200)) < points.frame["accuracy"].to_numpy(dtype=float)[:, None]) * 1.0
    full = Points(points.frame, outcomes, tuple(map(str, range(200))), "test", points.fields)
    found = measured_cells(full)
    these = found.replicates(2000, np.random.default_rng(0)).std(0)
    population = found.replicates(2000, np.random.default_rng(0), "population").std(0)
    assert np.all(population > these)


@pytest.mark.parametrize(("protocol", "shared"), [("T1-k1-n8-s0", True), ("T1-k1-n8-s0-by-seed", False)])
def test_a_draw_that_all_runs_share_is_drawn_anew_with_the_items_where_answers_are_recorded(protocol, shared):
    points = table({"grpo": 30}, protocol=protocol)
    rng = np.random.default_rng(0)
    outcomes = (rng.random((len(points.frame), 200)) < points.frame["accuracy"].to_numpy(dtype=float)[:, None]) * 1.0
    recorded = measured_cells(Points(points.frame, outcomes, tuple(map(str, range(200))), "test", points.fields))
    counted = measured_cells(points)
    # The same generator gives the same seeds, so what remains is the error of items and draw.
    rest = recorded.replicates(4000, np.random.default_rng(0)) - counted.replicates(4000, np.random.default_rng(0))
    assert recorded.item_outcomes is not None
    over_items = recorded.item_outcomes.var(1) / 201  # of a Dirichlet mean over 200 items
    assert rest.var(0) == pytest.approx(over_items if shared else 0 * over_items, rel=0.1)
    assert recorded.over("these") == ("seeds and items" if shared else "seeds")
    assert counted.over("these") == "seeds"
    assert ("stands for the one draw that all runs share" in recorded.method) == shared
    assert ("the one draw that all runs share is left out" in counted.method) == shared


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": ["a", "b"]}, "differ in task .*--where task="),
        ({"protocol": ["p", "q"]}, "differ in protocol .*--where protocol="),
        ({"learning_rate": [0.1, 0.2]}, "2 learning rates"),
    ],
)
def test_what_must_not_be_pooled_is_refused(changes, message):
    frame = table({"grpo": 30}, seeds=2).frame.drop(columns="cell")
    ((name, values),) = changes.items()
    frame[name] = [values[i % 2] if m != "base" else pd.NA for i, m in enumerate(frame["method"])]
    with pytest.raises(SpecError, match=message):
        measured_cells(from_frame(frame, "t"))


def test_sizes_that_are_not_known_are_refused_by_column_and_row():
    frame = table({"grpo": 30}, seeds=1).frame
    frame.loc[3, "update_bytes"] = pd.NA
    assert measured_cells(from_frame(frame, "t")).unit == "parameters"
    with pytest.raises(SpecError, match="column update_bytes is missing in row 4"):
        measured_cells(from_frame(frame, "t"), unit="bytes")
    with pytest.raises(SpecError, match="no rows of a trained update"):
        measured_cells(from_frame(frame[frame["method"] == "base"], "t"))


def test_controls_are_not_the_base():
    frame = table({"grpo": 30}, seeds=1).frame.drop(columns="cell")
    frame["protocol"] = "T1"
    cold = frame.iloc[[0]].assign(protocol="T0", n_correct=990, accuracy=0.99)
    found = measured_cells(from_frame(pd.concat([frame, cold]), "t"))
    assert found.trained.tolist().count(False) == 1
    assert found.accuracies[0] == 0.5


@pytest.mark.parametrize("factor", [2, 50])
def test_savings_do_not_depend_on_the_unit_of_size(factor):
    plain = table({"sft": 300, "grpo": 30}, seeds=2)
    scaled = plain.frame.assign(update_bytes=plain.frame["update_bytes"] * factor)
    ratios = []
    for frame in (plain.frame, scaled):
        found = measured_cells(from_frame(frame, "t"))
        ratios.append(savings(found, mean_curves(found), 100, np.random.default_rng(0))[0].size_ratio)
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-9)
