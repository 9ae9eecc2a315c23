import json
import math
from dataclasses import replace

import guarded
import numpy as np
import pytest

from capacity.errors import DataError, SpecError
from capacity_analysis.check.alarms import Level
from capacity_analysis.check.guard import guard
from capacity_analysis.check.judge import check_study, evidence_digest, judge, same_answers
from capacity_analysis.check.matching import check_curves
from capacity_analysis.check.snapshot import snapshot
from capacity_analysis.statistics.seed_tests import MeanChange, SizeChange, mean_change


def made(**options):
    return snapshot(guarded.make(**options))


def check(study, baseline, **options):
    return check_study(study, baseline, margin=options.pop("margin", 0.05), **options)


def test_the_same_answers_are_identical():
    found = check(made(), made(fingerprint=guarded.OTHER))
    assert found.outcome == "identical"
    assert found.curves[0].outcome == "identical"
    assert all(size.identical and size.moved == "no" for size in found.curves[0].sizes)
    assert found.verdict == "Identical: every answer of every run is the same as in the baseline."
    assert same_answers(made(), made(fingerprint=guarded.OTHER))


def test_one_other_answer_is_not_identical():
    study = guarded.make(sizes={4: 0.5, 13: 0.6})
    correct = guarded.answers(0.8, (0, 0, 100, 0))
    correct[0] = 1 - correct[0]
    for seed in range(5):
        again = correct if seed == 0 else guarded.answers(0.8, (0, 0, 100, seed))
        guarded.add(study, guarded.spec("grpo", 100, seed), again)
    found = check(snapshot(study), made())
    assert found.outcome == "non-inferior"
    assert [size.identical for size in found.curves[0].sizes] == [True, True, False]
    assert not same_answers(snapshot(study), made())


def test_fresh_runs_of_the_same_project_are_non_inferior():
    found = check(made(draw=1), made())
    assert found.outcome == "non-inferior"
    assert "a mean drop of the margin or more is excluded" in found.verdict


def test_a_drop_is_worse():
    found = check(made(draw=1, shift=-0.1), made())
    assert found.outcome == "worse"
    (curve,) = found.curves
    assert curve.change.estimate == pytest.approx(-0.1, abs=0.03)
    assert curve.change.high < 0
    assert curve.permutation.p == curve.permutation.smallest == 1 / 32
    assert "the mean fell by more than the margin" in found.verdict


def test_a_rise_is_non_inferior():
    found = check(made(draw=1, shift=0.1), made())
    assert found.outcome == "non-inferior"
    assert {size.moved for size in found.curves[0].sizes} == {"up"}


def test_numbers_are_those_of_the_answers_on_disk():
    found = check(made(draw=1), made())
    new, old = (
        np.array(
            [[np.mean(guarded.answers(a, (d, 0, size, s))) for size, a in guarded.SIZES.items()] for s in range(5)]
        )
        for d in (1, 0)
    )
    expected = mean_change(new, old, paired=True, margin=0.05, alpha=0.05, resolution=1 / guarded.ITEMS)
    assert found.curves[0].change == expected
    assert [s.before for s in found.curves[0].sizes] == pytest.approx(old.mean(0).tolist(), abs=1e-12)
    assert [s.after for s in found.curves[0].sizes] == pytest.approx(new.mean(0).tolist(), abs=1e-12)


def test_too_few_data_are_inconclusive_not_passed():
    found = check(made(draw=1, seeds=range(2)), made(seeds=range(2)), margin=0.005, level=0.005)
    assert found.outcome == "inconclusive"
    assert found.curves[0].design.power < 0.8
    assert any("this design shows a drop of 5 points only with probability" in remark for remark in found.remarks)


def test_one_seed_shows_nothing_but_identity():
    one = made(seeds=(0,))
    assert check(one, one).outcome == "identical"
    found = check(made(seeds=(0,), draw=1), one)
    assert found.outcome == "inconclusive"
    assert found.curves[0].change is None
    assert "fewer than two seeds, so the spread" in found.verdict


def test_other_seeds_are_two_samples():
    found = check(made(seeds=range(5, 10), draw=1), made())
    (curve,) = found.curves
    assert curve.change.method == "Welch's t of seed means"
    assert (curve.seeds_before, curve.seeds_after) == ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
    assert curve.permutation.arrangements == math.comb(10, 5)
    assert any("compared as two samples, not in pairs" in remark for remark in found.remarks)


def test_seeds_that_the_baseline_lacks_are_not_compared():
    found = check(made(seeds=range(8)), made())
    assert found.outcome == "identical"
    assert any(remark == "Not in the baseline and not compared: seed 5, 6, 7." for remark in found.remarks)


def test_a_study_without_a_seed_of_the_baseline_is_refused():
    with pytest.raises(DataError, match=r"grpo tinylora 4: the study has no seed 3, 4, which the baseline has"):
        check(made(seeds=range(3)), made())


def test_sizes_of_different_seeds_are_refused():
    def uneven(fallen):
        study = guarded.make()
        for seed in (5, 6):
            for size in (4, 13):
                correct = [0] * guarded.ITEMS if fallen else guarded.answers(0.5, (seed, size))
                guarded.add(study, guarded.spec("grpo", size, seed), correct)
        return snapshot(study)

    with pytest.raises(DataError, match=r"different seeds \(grpo tinylora 4 has 0, .*, 6; grpo tinylora 100 has 0, "):
        check(uneven(fallen=True), uneven(fallen=False))
    with pytest.raises(DataError, match="give all the same seeds"):
        check_curves(uneven(fallen=False))


def test_one_size_that_fell_alone_does_not_pass():
    sizes = {4: 0.5, 13: 0.6, 100: 0.8, 200: 0.8, 300: 0.8, 400: 0.8}
    fallen = {**sizes, 13: 0.52}
    found = check(made(sizes=fallen, draw=1), made(sizes=sizes))
    assert found.outcome == "inconclusive"
    assert found.curves[0].change.p_inferior <= 0.05
    assert [s.label for s in found.curves[0].sizes if s.moved == "down"] == ["13"]
    assert "the mean holds, but size 13 fell by more than the margin on its own" in found.verdict


def with_collapsed(seeds, size=13, to=0.3, draw=1):
    """A study whose runs of some seeds end low at one size."""
    study = guarded.make(draw=draw)
    wanted = [run for run in study.made if run.spec.seed in seeds and run.result.trained_parameters == size]
    for run in wanted:
        study.made.remove(run)
        guarded.add(study, run.spec, guarded.answers(to, (draw, 9, run.spec.seed)))
    return snapshot(study)


def test_two_collapsed_seeds_of_five_are_worse_though_the_mean_shows_nothing():
    found = check(with_collapsed({1, 3}), made())
    (curve,) = found.curves
    assert curve.change.p_worse > 0.05
    assert found.outcome == "worse"
    assert (curve.collapses.before.count, curve.collapses.after.count) == (0, 2)
    assert curve.collapses.p == pytest.approx(1 - 0.99**5 - 5 * 0.01 * 0.99**4)
    assert "2 of 5 seeds collapsed, 0 of 5 before" in found.verdict


def test_one_collapsed_seed_does_not_pass():
    found = check(with_collapsed({1}), made(), margin=0.2)
    (curve,) = found.curves
    assert curve.change.p_inferior <= 0.05
    assert (found.outcome, curve.collapses.p <= curve.collapses.level) == ("inconclusive", False)
    assert "the mean holds, but 1 of 5 seeds collapsed, 0 of 5 before" in found.verdict


def test_seeds_that_collapse_as_often_as_before_are_no_news():
    found = check(with_collapsed({0, 2}), with_collapsed({1, 3}, draw=2), margin=0.2)
    (curve,) = found.curves
    assert (curve.collapses.before.count, curve.collapses.after.count) == (2, 2)
    assert not curve.collapses.worse
    assert "collapsed" not in found.verdict


def test_a_size_that_all_seeds_lost_is_worse():
    found = check(made(sizes={4: 0.5, 13: 0.45, 100: 0.8}, draw=1), made(), margin=0.2)
    assert (found.outcome, found.curves[0].collapses.after.count) == ("worse", 5)


def test_each_method_is_a_curve_and_the_worst_decides():
    methods = ("grpo", "sft")
    old, new = made(methods=methods), made(methods=methods, draw=1)
    both = check(new, old)
    assert [(c.name, c.outcome) for c in both.curves] == [("grpo", "non-inferior"), ("sft", "non-inferior")]
    # "Worse" is claimed of each curve at half the level, so that one of them is false at most at the whole. The mean
    # has nine tenths of that, the collapses have the rest.
    assert [c.design.level for c in both.curves] == pytest.approx([0.0225, 0.0225])
    assert [c.collapses.level for c in both.curves] == pytest.approx([0.0025, 0.0025])
    assert both.outcome == "non-inferior"


def test_a_method_that_got_worse_is_named():
    study = guarded.make(methods=("grpo",), draw=1)
    for size, accuracy in guarded.SIZES.items():
        for seed in range(5):
            correct = guarded.answers(accuracy - 0.12, (1, 1, size, seed))
            guarded.add(study, guarded.spec("sft", size, seed), correct)
    found = check(snapshot(study), made(methods=("grpo", "sft")))
    assert {c.name: c.outcome for c in found.curves} == {"grpo": "non-inferior", "sft": "worse"}
    assert found.outcome == "worse"


def test_controls_are_not_judged():
    def study(shift):
        made = guarded.make()
        for seed in range(5):
            raw = guarded.spec("grpo", 13, seed).model_dump(mode="json")
            raw["method"] = "random-reward"
            spec = guarded.load_spec(raw, "")
            guarded.add(made, spec, guarded.answers(0.5 + shift, (seed,)))
        return snapshot(made)

    found = check(study(-0.2), study(0.0))
    assert [c.name for c in found.curves] == ["grpo"]
    assert "Controls are not judged: random-reward (other answers: random-reward tinylora 13)." in found.remarks
    assert found.outcome == "non-inferior"
    same = check(study(0.0), study(0.0))
    assert same.outcome == "identical"
    assert "Controls are not judged: random-reward." in same.remarks


def test_a_base_that_fell_holds_every_curve_back():
    study = guarded.make(base=False)
    guarded.add(study, guarded.spec("base", 0, 0), guarded.answers(0.4, (7,)))
    found = check(snapshot(study), made())
    assert found.outcome == "inconclusive"
    (base,) = found.bases
    was, now = (np.array(guarded.answers(a, (7,)), bool) for a in (0.5, 0.4))
    assert (base.lost, base.gained) == (int((was & ~now).sum()), 0)
    assert base.p == 2 * 0.5**base.lost
    assert "the untrained model (base T=1) fell by more than the margin" in found.verdict


def test_level_of_worse_may_be_lower_than_alpha():
    new, old = made(draw=1, shift=-0.06), made()
    p = check(new, old).curves[0].change.p_worse
    assert check(new, old).outcome == "worse"
    assert check(new, old, level=p / 2).outcome == "inconclusive"
    assert check(new, old, level=2 * p).level == min(0.05, 2 * p)


def test_thresholds_before_and_after_are_those_of_one_target():
    sizes = {4: 0.5, 13: 0.55, 40: 0.7, 100: 0.85, 300: 0.9}
    (curve,) = check(made(sizes=sizes, draw=1, shift=-0.12), made(sizes=sizes)).curves
    top = np.mean([guarded.answers(0.9, (0, 0, 300, seed)) for seed in range(5)])
    base = np.mean(guarded.answers(0.5, (7,)))
    assert curve.thresholds.target == pytest.approx((base + top) / 2, abs=1e-12)
    assert 13 < curve.thresholds.before.estimate < 100
    assert curve.thresholds.before.estimate < curve.thresholds.after.estimate < 300
    (lost,) = check(made(sizes=sizes, draw=1, shift=-0.4), made(sizes=sizes)).curves
    assert lost.thresholds.after.censored == "right"


def test_without_a_curve_or_a_base_there_are_no_thresholds():
    one = {"sizes": {4: 0.6}}
    assert check(made(draw=1, **one), made(**one)).curves[0].thresholds is None
    assert check(made(draw=1, base=False), made(base=False)).curves[0].thresholds is None


def test_environment_is_reported():
    assert check(made(), made()).environment == "nothing"
    assert check(made(fingerprint=guarded.OTHER), made()).environment == "torch 2.12.0 → 2.13.0, sources"


def refused(study, baseline):
    with pytest.raises(DataError) as caught:
        check(study, baseline)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"learning_rate": 0.1}, "training.learning_rate (0.01 → 0.1)"),
        ({"steps": 3}, "training.steps (2 → 3)"),
        ({"warmup_steps": 0, "adam_beta1": 0.8}, "training.adam_beta1 (0.9 → 0.8), training.warmup_steps (1 → 0)"),
        ({"items": 200}, "evaluation.items (400 → 200)"),
    ],
)
def test_other_protocols_are_refused_with_the_field(change, field):
    message = refused(made(**change), made())
    assert "the protocols of baseline and study differ in " + field in message


def test_a_missing_size_is_refused():
    message = refused(made(sizes={4: 0.5, 100: 0.8}), made())
    assert "the study has no grpo tinylora 13, which the baseline has (it has base T=1, grpo tinylora 4, " in message


def test_a_missing_method_or_base_is_refused():
    assert "the study has no sft tinylora 4" in refused(made(), made(methods=("grpo", "sft")))
    assert "the study has no base T=1" in refused(made(base=False), made())


def test_other_items_are_refused():
    assert "the study answered other items than the baseline" in refused(made(first_item=1), made())


@pytest.mark.parametrize(
    ("field", "after"), [("trained_parameters", "14 parameters, 26 bytes"), ("update_bytes", "13 parameters, 27 bytes")]
)
def test_an_update_of_another_size_is_refused_even_if_it_scores_better(field, after):
    study = guarded.make(draw=1, shift=0.1)
    for i, run in enumerate(study.made):
        if run.result.trained_parameters == 13:
            larger = run.result.model_copy(update={field: getattr(run.result, field) + 1})
            study.made[i] = replace(run, result=larger)
    message = refused(snapshot(study), made())
    assert f"another size (13 parameters, 26 bytes → {after})" in message


def test_bytes_of_entropy_coded_updates_are_free():
    def entropy_coded(extra):
        study = guarded.make()
        for i, run in enumerate(study.made):
            bytes_stored = run.result.update_bytes + extra * run.spec.seed
            result = run.result.model_copy(update={"update_bytes": bytes_stored})
            study.made[i] = replace(run, result=result, spec=run.spec.model_copy(update={"storage_dtype": "entropy"}))
        return snapshot(study)

    assert check(entropy_coded(1), entropy_coded(0)).outcome == "identical"


def test_sizes_that_the_baseline_does_not_have_are_left_out():
    found = check(made(sizes={**guarded.SIZES, 500: 0.9}), made())
    assert found.outcome == "identical"
    assert "Not in the baseline and not compared: grpo tinylora 500." in found.remarks


def test_a_baseline_without_training_guards_nothing():
    assert "no trained run" in refused(made(sizes={}), made(sizes={}))


@pytest.mark.parametrize("margin", [0, -0.02, 1, 2, math.nan])
def test_a_margin_is_a_share_of_one(margin):
    with pytest.raises(SpecError, match=r"such as 0\.02 for two points"):
        check(made(), made(), margin=margin)


@pytest.mark.parametrize("alpha", [0, 0.5, 1, math.nan])
def test_alpha_is_small(alpha):
    with pytest.raises(SpecError, match=r"must lie between 1e-06 and 0\.5"):
        check(made(), made(), alpha=alpha)


def test_json_is_plain_finite_and_complete():
    one = {"seeds": (0,)}
    for new, old in ((made(), made()), (made(draw=1), made()), (made(draw=1, **one), made(**one))):
        result = json.loads(json.dumps(check(new, old).to_json(), allow_nan=False))
        assert {"outcome", "margin", "alpha", "level", "curves", "bases", "environment", "verdict"} <= set(result)
        assert [s["moved"] for s in result["curves"][0]["sizes"]] == ["no"] * 3


def test_labels_tell_sizes_apart():
    study = guarded.make(sizes={4: 0.5}, seeds=range(2))
    for rate in (0.02, 0.03):
        for seed in range(2):
            guarded.add(study, guarded.spec("grpo", 4, seed, learning_rate=rate), guarded.answers(0.5, (seed,)))
    found = check(snapshot(study), snapshot(study))
    assert sorted(s.label for s in found.curves[0].sizes) == ["4 tinylora 0.01", "4 tinylora 0.02", "4 tinylora 0.03"]


def test_evidence_is_what_decides():
    digests = {
        evidence_digest(new, old, margin, alpha)
        for new, old, margin, alpha in (
            (made(), made(), 0.02, 0.05),
            (made(draw=1), made(), 0.02, 0.05),
            (made(), made(draw=1), 0.02, 0.05),
            (made(), made(), 0.03, 0.05),
            (made(), made(), 0.02, 0.01),
        )
    }
    assert len(digests) == 5
    assert evidence_digest(made(fingerprint=guarded.OTHER), made(), 0.02, 0.05) in digests


def test_a_check_from_python_is_that_of_the_command(tmp_path):
    history = tmp_path / "history.jsonl"
    study, baseline = guarded.make(draw=1), made()
    first = guard(study, baseline, margin=0.05, history=history, alarms_per_100=1)
    assert (first.history, first.level) == (Level(1, 0.01, repeated=False), 0.01)
    assert replace(first, history=None, remarks=first.remarks[:-1]) == check(snapshot(study), baseline, level=0.01)
    assert first.remarks[-1].startswith(f"Check 1 of {history}: worse is claimed at level 0.01, so that on average")
    again = guard(study, baseline, margin=0.05, history=history, alarms_per_100=1)
    assert again.history == Level(2, 0.01, repeated=True)
    assert guard(study, baseline, margin=0.05) == check(snapshot(study), baseline)
    with pytest.raises(SpecError, match="6 alarms per 100 checks"):
        guard(study, baseline, history=history, alarms_per_100=6)


def test_a_history_of_earlier_versions_goes_on():
    """The same evidence keeps its digest, or a job that runs again would get a second chance."""
    assert evidence_digest(made(draw=1), made(), 0.02, 0.05) == "4ad6614592fe5b2b"
    both = {"methods": ("grpo", "sft")}
    assert evidence_digest(made(draw=1, shift=-0.03, **both), made(**both), 0.02, 0.05) == "b65abee8deba2b2f"


def change(estimate, p_worse, p_inferior):
    return MeanChange(estimate, -1, 1, 0.05, 0.01, 4, p_worse, p_inferior, "made up", 5)


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (change(-0.03, 0.01, 0.9), "worse"),
        (change(-0.03, 0.04, 0.9), "inconclusive"),  # significant, but not at the level
        (change(-0.01, 0.01, 0.3), "inconclusive"),  # fell, by less than the margin, as far as one sees
        (change(-0.01, 0.01, 0.02), "non-inferior"),
        (change(0.0, 0.5, 0.06), "inconclusive"),
        (change(0.0, 0.5, 0.05), "non-inferior"),
    ],
)
def test_outcomes(found, outcome):
    sizes = [SizeChange(0.5, 0.5, -0.1, 0.1)]
    assert judge(found, sizes, ["4"], 0.02, 0.02)[0] == outcome


def test_checks_of_an_unchanged_project_seldom_alarm_and_those_of_a_bad_one_never_pass():
    """The grid of proofs/check_power.py is the proof; this is the same in small, through the same functions."""
    import importlib.util
    import sys
    import tomllib
    from pathlib import Path

    path = Path(__file__).parent.parent / "proofs" / "check_power.py"
    specification = importlib.util.spec_from_file_location("check_power", path)
    benchmark = importlib.util.module_from_spec(specification)
    sys.modules["check_power"] = benchmark
    specification.loader.exec_module(benchmark)
    grid = tomllib.loads(benchmark.GRID.read_text())
    generator = np.random.default_rng(5)
    count = 100
    error = 3 * math.sqrt(0.05 * 0.95 / count)
    for raw in grid["worlds"].values():
        world = benchmark.World(**{**raw, "spread": tuple(raw["spread"])})
        unchanged = [benchmark.one_check(world, grid, 0.0, 5, generator) for _ in range(count)]
        at_margin = [benchmark.one_check(world, grid, grid["margin"], 5, generator) for _ in range(count)]
        assert np.mean([found.p <= 0.05 for found in unchanged]) <= 0.05 + error
        assert np.mean([found.worse(0.05) for found in unchanged]) <= 0.05 + error
        assert np.mean([found.passes for found in at_margin]) <= 0.05 + error
