"""Results of other programs against each other: what is read, what is refused, and what may be said."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from typer.testing import CliRunner

import capacity
from capacity.errors import CapacityError, DataError, SpecError
from capacity_analysis.compare.comparison import comparisons
from capacity_analysis.data.read import read_points
from capacity_analysis.evaluations.evaluation import Reading
from capacity_analysis.evaluations.read import read_evaluations
from capacity_analysis.statistics.crossed import Crossed
from capacity_analysis.statistics.multiplicity import holm
from capacity_analysis.verdict.arms import Arm, TaskArms
from capacity_analysis.verdict.contrast import clustered, contrast
from capacity_cli.app import app

DATA = Path(__file__).parent / "data" / "evaluations"


def samples(path: Path, correct: list[int], **more: Any) -> Path:
    """A samples file as lm-evaluation-harness writes it."""
    rows = [
        {"doc_id": i, "resps": [["x"]], "filter": "none", "metrics": ["exact_match"], "doc_hash": f"d{i}",
         "prompt_hash": f"p{i}", "target_hash": f"t{i}", "exact_match": float(right), **more}
        for i, right in enumerate(correct)
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def outcomes(both: int, lost: int, gained: int, neither: int) -> tuple[list[int], list[int]]:
    """Answers of a reference and of another arm."""
    first = [1] * both + [1] * lost + [0] * gained + [0] * neither
    second = [1] * both + [0] * lost + [1] * gained + [0] * neither
    return first, second


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_paired_test_sees_what_an_unpaired_one_does_not(tmp_path: Path) -> None:
    """220 items of which the unpaired z test of lm-evaluation-harness says p = .080 and McNemar's p = .008."""
    first, second = outcomes(both=110, lost=12, gained=30, neither=68)
    se = [stats.sem(arm) for arm in (first, second)]
    z = (np.mean(second) - np.mean(first)) / np.hypot(*se)
    assert 2 * stats.norm.sf(z) == pytest.approx(0.080, abs=5e-4)
    names = ("samples_sums_2026-01-01T00-00-00.000001.jsonl", "samples_sums_2026-01-02T00-00-00.000001.jsonl")
    paths = [samples(tmp_path / name, arm) for name, arm in zip(names, (first, second), strict=True)]
    (found,) = capacity.verdict(f"before={paths[0]}", f"after={paths[1]}").found.contrasts
    assert (found.lost, found.gained, found.task) == (12, 30, "sums")
    assert found.p == pytest.approx(0.008, abs=5e-4)
    assert found.finding == "better"


def test_files_that_lm_evaluation_harness_wrote_are_read() -> None:
    found = capacity.verdict(DATA / "lm-eval-0", DATA / "lm-eval-1", metric="acc").found
    (one,) = found.contrasts
    results = [json.loads(next((DATA / f"lm-eval-{i}").glob("results_*.json")).read_text()) for i in (0, 1)]
    wanted = [r["results"]["tiny_sums"]["acc,none"] for r in results]
    assert (one.before, one.after) == pytest.approx(wanted)
    assert (one.task, len(found.tasks[0].items)) == ("tiny_sums", 24)
    assert [arm.models for arm in found.tasks[0].arms] == [(r["model_name"],) for r in results]


def test_logs_that_inspect_wrote_are_read() -> None:
    (one,) = capacity.verdict(f"a={DATA / 'inspect-0.json'}", f"b={DATA / 'inspect-1.json'}").found.contrasts
    assert (one.before, one.after) == pytest.approx((7 / 48, 12 / 48))
    assert (one.lost, one.estimate.items) == (None, 24)  # two epochs: an item has no one answer


def test_a_log_in_its_own_form_needs_inspect(tmp_path: Path) -> None:
    (tmp_path / "log.eval").write_bytes(b"PK")
    with pytest.raises(DataError, match="inspect_ai"):
        read_evaluations(tmp_path / "log.eval", None, Reading())


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_table_says_the_same_in_every_form(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"question": f"q{i}", "arm": arm, "seed": seed, "right": int(rng.random() < 0.5 + 0.2 * (arm == "rl"))}
        for arm in ("sft", "rl") for seed in (0, 1, 2) for i in range(60)
    ]  # fmt: skip
    path = table(tmp_path / f"all.{ending}", rows)
    (one,) = capacity.verdict(path, columns={"item": "question", "correct": "right"}).found.contrasts
    assert (one.first, one.second, one.pairing, one.estimate.seeds) == ("sft", "rl", "seeds and items", 3)
    frame = pd.DataFrame(rows)
    means = frame.groupby("arm")["right"].mean()
    assert one.estimate.value == pytest.approx(means["rl"] - means["sft"])


def test_order_does_not_matter_and_names_pair(tmp_path: Path) -> None:
    first, second = outcomes(20, 3, 9, 8)
    rows = [[{"item": f"q{i}", "correct": right} for i, right in enumerate(arm)] for arm in (first, second)]
    straight = [table(tmp_path / f"{name}.csv", own) for name, own in zip("ab", rows, strict=True)]
    mixed = table(tmp_path / "mixed.csv", rows[1][::-1])
    one, two = (capacity.verdict(straight[0], other).found.contrasts[0] for other in (straight[1], mixed))
    assert (one.lost, one.gained, one.p) == (two.lost, two.gained, two.p) == (3, 9, pytest.approx(0.145996, abs=1e-6))


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verdict", *map(str, arguments)])
    return done.exit_code, done.output if done.exception is None else str(done.exception)


RIGHT = [{"item": f"q{i}", "correct": i % 2, "prompt": f"what is {i}?"} for i in range(10)]
TRAPS: dict[str, tuple[Any, str]] = {
    "percent": ([{**row, "correct": 100 * row["correct"]} for row in RIGHT], "a score of 100 is not from 0 to 1: perc"),
    "words": ([{**row, "correct": "yes"} for row in RIGHT], "'yes' is no grade: give 0 or 1"),
    "empty": ([{**RIGHT[0], "correct": ""}, *RIGHT[1:]], "'' is no grade"),
    "missing": (RIGHT[:-2], "does not answer items q8, q9, which others do"),
    "twice": ([*RIGHT, RIGHT[3]], "item q3 is there twice"),
    "prompts": ([{**RIGHT[0], "prompt": "something else"}, *RIGHT[1:]], "item q0 asks or expects something else"),
    "column": ([{"item": row["item"], "acc": 1} for row in RIGHT], "no column correct: it has item, acc"),
    "nameless": ([{**RIGHT[0], "item": ""}, *RIGHT[1:]], "row 1: no item"),
    "seed": ([{**row, "seed": "a"} for row in RIGHT], "seed 'a' is not a whole number"),
    "other": ([{**row, "item": "x" + row["item"]} for row in RIGHT], "has no item in common with"),
    "task": ([{**row, "task": "sums"} for row in RIGHT], "have no task in common"),
    "nothing": ([], "no rows"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_what_cannot_be_paired_is_refused_in_one_line(tmp_path: Path, trap: str) -> None:
    rows, words = TRAPS[trap]
    good, bad = table(tmp_path / "good.csv", RIGHT), tmp_path / "bad.csv"
    pd.DataFrame(rows, columns=list(rows[0]) if rows else list(RIGHT[0])).to_csv(bad, index=False)
    with pytest.raises(CapacityError) as error:
        capacity.verdict(good, bad)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "bad.csv" in str(error.value) or trap == "task"


def test_items_that_all_have_are_compared_if_that_is_asked(tmp_path: Path) -> None:
    good, short = table(tmp_path / "good.csv", RIGHT), table(tmp_path / "short.csv", RIGHT[:-2])
    found = capacity.verdict(good, short, common=True).found
    assert (found.tasks[0].left_out, found.contrasts[0].estimate.items) == (2, 8)
    assert "2 items that some arm did not answer are left out" in found.paragraph


def test_means_without_answers_are_refused() -> None:
    results = next((DATA / "lm-eval-0").glob("results_*.json"))
    with pytest.raises(DataError, match="has means and no answers: give samples_"):
        capacity.verdict(results, DATA / "lm-eval-1")


def test_a_points_table_is_for_the_report_which_pairs_its_answers() -> None:
    path = DATA.parents[2] / "studies" / "results" / "abacus-answers.csv"
    with pytest.raises(SpecError, match=r"is a points table, .*: capacity report .*abacus-answers.csv compares its"):
        capacity.verdict(path)
    found = comparisons(read_points(str(path)))
    paired = [difference for comparison in found for difference in comparison.differences]
    assert paired
    for difference in paired:
        assert difference.estimate is not None
        assert (difference.estimate.over, difference.estimate.items) == ("seeds and items", 1024)


def test_one_of_several_metrics_has_to_be_chosen_and_mixed_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="choose one with --metric: acc, acc_norm"):
        capacity.verdict(DATA / "lm-eval-0", DATA / "lm-eval-1")
    first = samples(tmp_path / "a.jsonl", [1, 0, 1])
    (tmp_path / "b.jsonl").write_text(first.read_text().replace("exact_match", "acc"))
    with pytest.raises(DataError, match="have no task in common"):
        capacity.verdict(first, tmp_path / "b.jsonl")
    both = [samples(tmp_path / arm / "samples_t_2026-01-01T00-00-00.1.jsonl", [1, 0, 1]) for arm in "cd"]
    both[1].write_text(both[1].read_text().replace("exact_match", "acc"))
    with pytest.raises(DataError, match=r"graded by acc, and .* by exact_match"):
        capacity.verdict(f"c={both[0]}", f"d={both[1]}")


def test_filters_are_told_apart(tmp_path: Path) -> None:
    path = samples(tmp_path / "samples_t_2026-01-01T00-00-00.1.jsonl", [1, 0, 1])
    path.write_text(path.read_text() + path.read_text().replace('"none"', '"strict"').replace("1.0", "0.0"))
    with pytest.raises(SpecError, match="exact_match,none, exact_match,strict"):
        read_evaluations(path, "a", Reading())
    (found,) = read_evaluations(path, "a", Reading("exact_match,strict"))
    assert found.accuracy == 0


@pytest.mark.parametrize("cut", [3, 40])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    path = samples(tmp_path / "a.jsonl", [1, 0, 1])
    path.write_text(path.read_text()[:-cut])
    with pytest.raises(DataError, match="line 3: not whole JSON"):
        read_evaluations(path, "a", Reading())


def test_a_log_that_failed_is_refused(tmp_path: Path) -> None:
    whole = json.loads((DATA / "inspect-0.json").read_text())
    (tmp_path / "log.json").write_text(json.dumps({**whole, "status": "error"}))
    with pytest.raises(DataError, match="ended with status error"):
        read_evaluations(tmp_path / "log.json", None, Reading())


def test_a_long_log_needs_the_memory_of_its_items(tmp_path: Path) -> None:
    path = samples(tmp_path / "long.jsonl", [1, 0] * 1000, resps=[["x" * 10_000]])
    assert path.stat().st_size > 20e6
    tracemalloc.start()
    (found,) = read_evaluations(path, "a", Reading())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.items) == 2000
    assert peak < 4e6


def test_holm_is_that_of_r() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_several_tasks_share_one_error(tmp_path: Path) -> None:
    rows: list[list[dict[str, Any]]] = [[], []]
    for task, gained in (("one", 9), ("two", 8), ("three", 5)):
        for own, arm in zip(rows, outcomes(20, 1, gained, 10), strict=True):
            own += [{"task": task, "item": i, "correct": right} for i, right in enumerate(arm)]
    found = capacity.verdict(*(table(tmp_path / f"{n}.csv", own) for n, own in zip("ab", rows, strict=True))).found
    assert [c.adjusted_p for c in found.contrasts] == pytest.approx(holm([c.p for c in found.contrasts]))
    assert [c.p <= 0.05 for c in found.contrasts] == [True, True, False]
    assert [c.finding for c in found.contrasts] == ["not told apart"] * 3


def test_equal_arms_are_equivalent_within_a_margin_that_the_items_allow(tmp_path: Path) -> None:
    first, second = outcomes(500, 5, 5, 490)
    paths = [table(tmp_path / f"{n}.csv", [{"item": i, "correct": c} for i, c in enumerate(arm)])
             for n, arm in (("a", first), ("b", second))]  # fmt: skip
    assert capacity.verdict(*paths).found.contrasts[0].finding == "not told apart"
    wide, narrow = (capacity.verdict(*paths, margin=margin).found for margin in (0.02, 0.003))
    assert (wide.contrasts[0].finding, narrow.contrasts[0].finding) == ("equivalent", "not told apart")
    assert "b and a are equivalent within 2 points: +0.0 points" in wide.paragraph


def test_clusters_have_the_variance_of_a_cluster_robust_mean() -> None:
    rng = np.random.default_rng(1)
    numbers = np.sort(rng.integers(0, 30, 200))
    numbers = np.unique(numbers, return_inverse=True)[1].astype(float)
    y = rng.normal(0, 1, 200) + rng.normal(0, 1, 30)[numbers.astype(int)]
    theirs = sm.OLS(y, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": numbers.astype(int)})
    found = clustered(y[None, :], numbers)
    assert found.mean() == pytest.approx(y.mean())
    assert Crossed.of(found).items == pytest.approx(theirs.bse[0] ** 2)


WORLDS = {
    "one seed": (1, 1, "paired"), "three seeds": (3, 1, "paired"), "five seeds": (5, 1, "paired"),
    "other seeds": (4, 1, "apart"), "clusters": (1, 5, "paired"), "clusters and seeds": (3, 5, "paired"),
}  # fmt: skip


@pytest.mark.parametrize("world", WORLDS)
def test_equal_arms_are_rarely_told_apart(world: str) -> None:
    """300 items of unequal difficulty. The nominal error is 5 %, and three errors of the simulation are granted."""
    seeds, size, pairing = WORLDS[world]
    rng, studies, told = np.random.default_rng(2), 700, 0
    clusters = None if size == 1 else np.repeat(np.arange(300 // size), size).astype(float)
    for _ in range(studies):
        logits = rng.normal(0.5, 1.5, 300)
        scores = []
        for _ in range(2):
            own = np.repeat(rng.normal(0, 0.6, 300 // size), size) + rng.normal(0, 0.05, (seeds, 1))
            scores.append((rng.random((seeds, 300)) < 1 / (1 + np.exp(-logits - own))).astype(float))
        names = [tuple(range(seeds)), tuple(range(seeds)) if pairing == "paired" else tuple(range(10, 10 + seeds))]
        arms = tuple(Arm(n, s, y, True, ("m",)) for n, s, y in zip("ab", names, scores, strict=True))
        task = TaskArms("", "correct", tuple(map(str, range(300))), clusters, arms, 0, True, (1, 1))
        told += contrast(task, *arms, alpha=0.05, margin=None).p <= 0.05
    assert told / studies <= 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5


def one_run_each(seed_spread: float | None, studies: int = 700) -> float:
    """How often equal methods are told apart by one run each, whose seeds scatter by about 2 points."""
    rng, told = np.random.default_rng(3), 0
    for _ in range(studies):
        logits = rng.normal(0.5, 1.5, 600)
        scores = [(rng.random((1, 600)) < 1 / (1 + np.exp(-logits - rng.normal(0, 0.125)))).astype(float) for _ in "ab"]
        arms = tuple(Arm(name, (0,), y, True, ("m",)) for name, y in zip("ab", scores, strict=True))
        task = TaskArms("", "correct", tuple(map(str, range(600))), None, arms, 0, True, (1, 1))
        told += contrast(task, *arms, alpha=0.05, margin=None, seed_spread=seed_spread).p <= 0.05
    return told / studies


def test_a_stated_scatter_of_seeds_makes_one_run_each_a_comparison_of_methods() -> None:
    three_errors = 3 * (0.05 * 0.95 / 700) ** 0.5
    assert one_run_each(None) > 0.05 + three_errors
    assert abs(one_run_each(0.02) - 0.05) <= three_errors


def test_a_stated_scatter_of_seeds_widens_the_interval_and_is_said(tmp_path: Path) -> None:
    first, second = outcomes(110, 12, 30, 68)
    paths = [samples(tmp_path / name / "samples_t_2026-01-01T00-00-00.1.jsonl", own)
             for name, own in (("a", first), ("b", second))]  # fmt: skip
    alone, stated = (capacity.verdict(*(p.parent for p in paths), seed_spread=s).found for s in (None, 0.03))
    assert (alone.contrasts[0].finding, stated.contrasts[0].finding) == ("better", "not told apart")
    widths = [(c.estimate.high or 0) - (c.estimate.low or 0) for c in (alone.contrasts[0], stated.contrasts[0])]
    spread = stats.t.ppf(0.975, 219) * 2 * np.sqrt(2) * 0.03
    assert widths[1] ** 2 - widths[0] ** 2 == pytest.approx(spread**2)
    assert "seeds are taken to scatter by 3 points, as was stated." in stated.paragraph
    assert "McNemar" not in stated.paragraph
    assert "the claim is about these models and not about the methods." in alone.paragraph


@pytest.mark.parametrize(("spread", "words"), [(0.8, "seed spread 0.8: a share of 1"), (0.01, "two arms with one run")])
def test_a_scatter_of_seeds_that_says_nothing_is_refused(spread: float, words: str, tmp_path: Path) -> None:
    rows = [{"item": i, "correct": i % 2, "arm": arm, "seed": s} for i in range(9) for arm in "ab" for s in (0, 1)]
    with pytest.raises(SpecError, match=words):
        capacity.verdict(table(tmp_path / "two-seeds.csv", rows), seed_spread=spread)


def test_the_command_writes_a_paragraph_for_a_pull_request(tmp_path: Path) -> None:
    first, second = outcomes(110, 12, 30, 68)
    paths = [samples(tmp_path / arm / "samples_sums_2026-01-01T00-00-00.1.jsonl", own)
             for arm, own in (("before", first), ("after", second))]  # fmt: skip
    code, text = run(f"before={paths[0]}", f"after={paths[1]}", "--markdown", tmp_path / "verdict.md", "--json")
    assert code == 0
    found = json.loads(text)
    assert found["contrasts"][0]["finding"] == "better"
    assert found["paragraph"] in (tmp_path / "verdict.md").read_text().replace("\\", "")
    assert found["paragraph"].startswith(
        "On sums, after is better than before by +8.2 points (95 % interval, +2.5 to +13.9; 30 items gained, 12 lost, "
        "exact McNemar p = 0.0079)."
    )


def check(baseline: Path, candidate: Path, *options: object) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["check", *map(str, (candidate, "--baseline", baseline, *options)), "--json"])
    return done.exit_code, json.loads(done.stdout) if done.stdout else {"error": str(done.exception)}


@pytest.mark.parametrize(
    ("counts", "outcome", "code"),
    [
        ((600, 0, 0, 400), "identical", 0),
        ((596, 4, 4, 396), "non-inferior", 0),
        ((540, 60, 5, 395), "worse", 1),
        ((560, 40, 30, 370), "inconclusive", 3),
    ],
)
def test_check_judges_results_of_other_programs(
    tmp_path: Path, counts: tuple[int, int, int, int], outcome: str, code: int
) -> None:
    name = "samples_sums_2026-01-01T00-00-00.1.jsonl"
    paths = [samples(tmp_path / arm / name, own) for arm, own in zip(("a", "b"), outcomes(*counts), strict=True)]
    folders = [path.parent for path in paths]
    for old, new in (paths, folders):
        found, result = check(old, new, "--markdown", tmp_path / "check.md", "--junit", tmp_path / "check.xml")
        assert (found, result["outcome"], result["exit_code"]) == (code, outcome, code)
        assert (tmp_path / "check.md").read_text().startswith(f"## capacity check: {outcome}")
        assert ('<failure type="' in (tmp_path / "check.xml").read_text()) == (code > 0)
    assert check(paths[0], paths[1], "--inconclusive", "warn")[0] == (0 if code == 3 else code)


def test_check_takes_the_columns_of_a_table_and_one_arm_of_any_name(tmp_path: Path) -> None:
    rows = [{"question": i, "right": i % 2, "arm": "main"} for i in range(40)]
    old, new = (table(tmp_path / f"{name}.csv", rows) for name in ("old", "new"))
    columns = ("--column", "item=question", "--column", "correct=right")
    assert check(old, new, *columns)[1]["outcome"] == "identical"
    assert check(old, new)[1]["error"].endswith("name them with --column item=NAME")
    two = table(tmp_path / "two.csv", [*rows, {"question": 0, "right": 1, "arm": "other"}])
    found = check(old, two, *columns)[1]["error"]
    assert found == f"{two}: has the arms main, other: a candidate has one, so give a table of that one"


def test_results_and_studies_are_not_checked_against_one_another(tmp_path: Path) -> None:
    one = samples(tmp_path / "samples_t_2026-01-01T00-00-00.1.jsonl", [1, 0, 1])
    for candidate, options, words in (
        (tmp_path / "study", (), "no such file or folder"),
        (one, ("--history", tmp_path / "history"), "give a candidate, without --history"),
        (one, ("--out", tmp_path / "out", "--workers", 2), "give a candidate, without --out and --workers"),
        (one, ("--alarms-per-100", 1), "goes with --history FILE"),
    ):
        done = CliRunner().invoke(app, ["check", str(candidate), "--baseline", str(one), *map(str, options)])
        assert isinstance(done.exception, SpecError)  # which ends with exit code 2
        assert words in str(done.exception)
