"""Seeds are added, the same for every method, until the contrast is decided; the intervals allow for all looks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import fakes
import numpy as np
import pytest
from scipy import stats

from capacity.errors import CapacityError, DataError, Interrupted
from capacity.plan.hours import Spent
from capacity.plan.looks import FILE, Looks, planned_looks, read_looks, read_spent
from capacity.plan.sizes import as_choice
from capacity.runs.study import Study
from capacity.spec.run import RunSpec
from capacity.studies.comparison import ComparisonPlan, plan_comparison
from capacity.studies.make import Make
from capacity.studies.until import SeedsUntilDecided
from capacity_analysis.compare.looks import Look, look_at, looks_sentence
from capacity_analysis.compare.verdicts import verdict
from capacity_analysis.statistics.error_spending import look_errors
from capacity_reports.main_contrast import main_contrast
from capacity_reports.sources import read_source
from capacity_reports.views import Options, analyse

ITEMS = 300
LOOKS = Looks(first=3, most=6)
Shares = Callable[[RunSpec], float]


def plan(looks: Looks = LOOKS) -> ComparisonPlan:
    size = plan_comparison(
        "abacus-0.9m", None, as_choice(13), ["sft"], 1, rates={"sft": 0.01}, storage_dtype="bf16", match="prompts",
        tokens_per_step=None, rollouts="auto",
    ).size  # fmt: skip
    trained = [fakes.spec(m, seed, ITEMS) for m in ("sft", "grpo") for seed in range(looks.most)]
    return ComparisonPlan("abacus-0.9m", size, (*trained, fakes.spec("base", 0, ITEMS)), (), "loop", looks)


def maker(study: Study, shares: Shares, batches: list[list[str]], fail_at: int | None = None) -> Make:
    """Makes up the missing runs of a batch; `fail_at`: Ctrl-C comes after the first run of that batch."""

    def make(specs: Sequence[RunSpec], _: str) -> None:
        made: list[str] = []
        for spec in specs:
            if study.path_of(spec).is_dir():
                continue
            generator = np.random.default_rng([spec.seed, spec.method == "sft"])
            correct = generator.permutation(np.arange(ITEMS) < round(shares(spec) * ITEMS)).astype(int)
            fakes.add(study, spec, correct.tolist())
            made.append(f"{spec.method} {spec.seed}")
            if len(batches) == fail_at:
                raise Interrupted("interrupted")
        batches.append(made)

    return make


def compared(folder: Path, shares: Shares, looks: Looks = LOOKS) -> tuple[list[Look], list[list[str]]]:
    study, adding, batches = Study(folder), SeedsUntilDecided(plan(looks), looks), []  # type: ignore[var-annotated]
    with study.locked():
        adding.produce(study, maker(study, shares, batches))
    return adding.found, batches


def better(spec: RunSpec) -> float:
    return {"sft": 0.5, "grpo": 0.8, "base": 0.4}[spec.method] + 0.01 * (spec.seed % 2)


def alike(spec: RunSpec) -> float:
    return {"base": 0.4}.get(spec.method, 0.6 + 0.01 * ((spec.seed + (spec.method == "sft")) % 2))


def test_a_large_difference_is_decided_at_the_first_look(tmp_path: Path) -> None:
    found, batches = compared(tmp_path / "study", better)
    assert [(look.seeds, look.outcome) for look in found] == [(3, "higher")]
    assert sorted(batches[0]) == ["base 0", *(f"{m} {s}" for m in ("grpo", "sft") for s in range(3))]
    assert looks_sentence(found, LOOKS).startswith(
        "After 3 of at most 6 seeds the comparison is decided: grpo scores higher than sft, grpo − sft +30.0 ("
    )


def test_equal_methods_get_seeds_alike_until_none_are_left(tmp_path: Path) -> None:
    found, batches = compared(tmp_path / "study", alike)
    assert [(look.seeds, look.outcome) for look in found] == [(n, "open") for n in (3, 4, 5, 6)]
    assert batches[1:] == [[f"sft {seed}", f"grpo {seed}"] for seed in (3, 4, 5)]
    assert "not decided" in looks_sentence(found, LOOKS)


def test_equal_methods_are_decided_within_a_margin(tmp_path: Path) -> None:
    looks = LOOKS.model_copy(update={"margin": 0.2})
    found, _ = compared(tmp_path / "study", alike, looks)
    assert found[-1].outcome == "equal"
    assert found[-1].seeds < looks.most
    assert "differ by less than the margin of 20 points" in looks_sentence(found, looks)


def test_an_interrupted_comparison_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, batches = compared(tmp_path / "whole", alike)
    study, adding, made = Study(tmp_path / "study"), SeedsUntilDecided(plan(), LOOKS), []  # type: ignore[var-annotated]
    with study.locked(), pytest.raises(Interrupted):
        adding.produce(study, maker(study, alike, made, fail_at=1))
    again, rest = compared(study.folder, alike)
    assert again == whole
    assert rest[0] == []  # the first look's runs are there
    assert [*rest[1], "sft 3"] == [batches[1][1], batches[1][0]]


def test_runs_beyond_the_deciding_look_do_not_change_it(tmp_path: Path) -> None:
    first, _ = compared(tmp_path / "study", better)
    study = Study(tmp_path / "study")
    with study.locked():
        maker(study, lambda spec: 1 - better(spec), [])(plan().specs, "")
    again, batches = compared(study.folder, better)
    assert (again, batches) == (first, [[]])


def test_a_study_keeps_the_looks_that_it_was_begun_with(tmp_path: Path) -> None:
    compared(tmp_path / "study", better)
    with pytest.raises(DataError, match=r"begun with looks at 3 to 6 seeds and no margin, not with .* 3 to 8 seeds"):
        compared(tmp_path / "study", better, Looks(first=3, most=8))
    (tmp_path / "study" / FILE).write_text(LOOKS.model_dump_json())  # as it was before it held the time spent
    assert (read_looks(tmp_path / "study"), read_spent(tmp_path / "study")) == (LOOKS, Spent())
    (tmp_path / "study" / FILE).write_text('{"first": 1}')
    with pytest.raises(DataError, match=r"looks\.json: first"):
        compared(tmp_path / "study", better)


class Clock:
    """A monotonic clock that goes on while runs are made, by 1,000 s a batch that has any."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def timed(self, make: Make, batches: list[list[str]]) -> Make:
        def made(specs: Sequence[RunSpec], what: str) -> None:
            try:
                make(specs, what)
            except Interrupted:
                self.now += 500
                raise
            self.now += 1000 * bool(batches[-1])

        return made


def within(folder: Path, hours: float, fail_at: int | None = None) -> tuple[list[int], list[list[str]]]:
    """One call with this limit: the seeds of its looks, and the runs that it made."""
    study, clock, batches = Study(folder), Clock(), []  # type: ignore[var-annotated]
    adding = SeedsUntilDecided(plan(), LOOKS, hours, clock)
    with study.locked():
        adding.produce(study, clock.timed(maker(study, alike, batches, fail_at), batches))
    return [look.seeds for look in adding.found], batches


def test_no_batch_starts_that_would_end_too_late(tmp_path: Path) -> None:
    seeds, _ = within(tmp_path / "study", 2500 / 3600)
    assert seeds == [3, 4]  # a third batch would end at 3,000 s
    assert read_spent(tmp_path / "study") == Spent(seconds=2000, batch_seconds=1000)


def test_the_hours_of_all_calls_count(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for _ in range(2):  # the second call makes nothing: a third batch would end too late for both together
        seeds, _ = within(folder, 2500 / 3600)
        assert seeds == [3, 4]
    assert within(folder, 3000 / 3600) == ([3, 4, 5], [[], [], ["sft 4", "grpo 4"]])
    assert read_spent(folder).seconds == 3000


def test_the_time_of_an_interrupted_call_counts(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        within(tmp_path / "study", 10.0, fail_at=1)
    assert read_spent(tmp_path / "study") == Spent(seconds=1500, batch_seconds=1000)
    assert within(tmp_path / "study", 2400 / 3600)[0] == [3]  # the second batch would end at 2,500 s


def test_a_failed_run_does_not_end_the_looks_of_a_study_without_time(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    within(folder, 2000 / 3600)
    study = Study(folder)
    lost = plan().specs[0]
    study.discard(study.read(study.path_of(lost)))
    study.add_failure(lost, "killed", "")
    seeds, batches = within(folder, 2000 / 3600)
    assert (seeds, batches) == ([3, 4], [["sft 0"], []])


BAD = {
    "a margin without --until": ((None, ["sft", "grpo"], 5, None, 0.02, None), "--margin belongs to --until decided"),
    "hours without --until": ((None, ["sft", "grpo"], 5, None, None, 1.0), "--within belongs to --until decided"),
    "another end": (("done", ["sft", "grpo"], 5, None, None, None), "'done'"),
    "no sft": (("decided", ["grpo"], None, None, None, None), "about grpo − sft: add sft to --methods"),
    "one seed": (("decided", ["sft", "grpo"], 1, None, None, None), "first"),
    "fewer than the first": (("decided", ["sft", "grpo"], 5, 4, None, None), "at most 4 seeds, but the first look"),
    "a margin of 2 points as 2": (("decided", ["sft", "grpo"], None, None, 2.0, None), "margin"),
    "no hours": (("decided", ["sft", "grpo"], None, None, None, 0.0), "--within 0: give a number of hours above 0"),
}


@pytest.mark.parametrize(("given", "said"), BAD.values(), ids=BAD)
def test_options_that_make_no_sense_are_refused_in_one_line(given: tuple[object, ...], said: str) -> None:
    with pytest.raises(CapacityError, match=said) as raised:
        planned_looks(*given)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_the_part_of_a_plan_has_the_runs_of_a_plan_with_fewer_seeds() -> None:
    def of(seeds: int) -> ComparisonPlan:
        return plan_comparison(
            "abacus-0.9m", None, as_choice(13), ["sft", "grpo"], seeds, rates={"sft": 0.01, "grpo": 0.01},
            storage_dtype="bf16", match="prompts", tokens_per_step=None, rollouts="auto",
        )  # fmt: skip

    assert of(5).of_seeds(3).specs == of(3).specs


def test_one_look_spends_the_whole_error() -> None:
    assert look_errors((5,), 0.05) == pytest.approx((0.05,), abs=2e-3)


def test_all_looks_together_have_the_error_that_was_asked_for() -> None:
    seeds = (3, 4, 5, 6, 7, 8, 9, 10)
    levels = look_errors(seeds, 0.05)
    normal = np.random.default_rng(5).standard_normal((40_000, 10))
    rejected = np.zeros(len(normal), dtype=bool)
    for count, level in zip(seeds, levels, strict=True):
        rejected |= stats.ttest_1samp(normal[:, :count], 0, axis=1).pvalue <= level
    assert rejected.mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / len(normal)))
    assert max(levels) < 0.05


def test_the_interval_of_a_look_is_wider_than_that_of_one_look(tmp_path: Path) -> None:
    found, _ = compared(tmp_path / "study", alike)
    study = Study(tmp_path / "study")
    specs = plan().of_seeds(6).specs
    runs = [study.read(study.path_of(spec)) for spec in specs]
    once = look_at(study.folder, runs, specs, Looks(first=6, most=6), 6).estimate
    last = found[-1].estimate
    assert once is not None
    assert last is not None
    assert once.value == last.value
    assert last.low < once.low < once.high < last.high  # type: ignore[operator]
    assert last.label.startswith("95 % over all looks, ")


def barely(spec: RunSpec) -> float:
    return {"sft": 0.6, "grpo": 0.64, "base": 0.4}[spec.method] + 0.01 * ((spec.seed + (spec.method == "sft")) % 2)


def test_the_page_decides_what_the_last_look_decides(tmp_path: Path) -> None:
    found, _ = compared(tmp_path / "study", barely)
    source = read_source(str(tmp_path / "study"))

    def decided() -> list[str]:
        analysis = analyse(source, Options(null=0, replicates=10))
        return [d.difference.first for d in main_contrast(analysis).decided_differences]

    assert found[-1].outcome == "open"
    assert decided() == []
    (tmp_path / "study" / FILE).unlink()  # a study that was looked at once has the same seeds and decides
    assert decided() == ["grpo"]
    large, _ = compared(tmp_path / "large", better)
    source = read_source(str(tmp_path / "large"))
    assert (large[-1].outcome, decided()) == ("higher", ["grpo"])


def test_the_page_of_the_study_shows_the_intervals_of_its_looks(tmp_path: Path) -> None:
    found, _ = compared(tmp_path / "study", better)
    source = read_source(str(tmp_path / "study"))
    (shown,) = analyse(source, Options(null=0, replicates=10)).comparisons  # type: ignore[misc]
    assert {d.estimate for d in shown.differences} == {found[-1].estimate}
    assert "95 % over all looks" in verdict(shown).sentence
    (tmp_path / "study" / FILE).unlink()
    (once,) = analyse(source, Options(null=0, replicates=10)).comparisons  # type: ignore[misc]
    assert "over all looks" not in verdict(once).sentence
