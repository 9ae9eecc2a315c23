import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FINGERPRINT, outcomes, result, spec, study_in, unhurried
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from capacity import codes
from capacity.errors import DataError
from capacity.runs.study import Run, Study
from capacity.spec.parts import WarmStartSpec
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity_analysis.data.absent import Absent
from capacity_analysis.lengths import rewards, update
from capacity_analysis.lengths.demonstrations import excess_bits, prequential_bits, surplus_bits
from capacity_analysis.lengths.descriptions import QUANTITIES, describe
from capacity_analysis.lengths.quantities import Estimated, Measured, over_seeds
from capacity_analysis.statistics import quantisers

# Codes


def test_codes_of_three_ones_among_ten():
    assert codes.kt_code_bits(3, 10) == pytest.approx(10.840129, abs=5e-7)
    assert codes.plug_in_code_bits(3, 10) == pytest.approx(8.812909, abs=5e-7)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
@unhurried
def test_the_code_is_that_of_its_sequential_rule(sequence):
    kt = 0.0
    for i, one in enumerate(sequence):
        hits = sum(sequence[:i])
        seen = hits if one else i - hits
        kt -= math.log2((seen + 0.5) / (i + 1))
    ones, n = sum(sequence), len(sequence)
    assert codes.kt_code_bits(ones, n) == pytest.approx(kt, abs=1e-9)
    assert (
        codes.plug_in_code_bits(ones, n) - 1e-9
        <= kt
        <= codes.plug_in_code_bits(ones, n) + 0.5 * math.log2(n) + 1 + 1e-9
    )


def test_the_code_is_complete():
    """Kraft's sum over all sequences of 9 symbols is 1."""
    ones = np.arange(10)
    sequences = np.array([math.comb(9, k) for k in ones])
    assert (sequences * 2.0 ** -codes.kt_code_bits(ones, 9)).sum() == pytest.approx(1)


def test_binary_entropy():
    assert codes.binary_entropy(0.9) == pytest.approx(0.468996, abs=5e-7)
    assert codes.binary_entropy([0, 0.5, 1]).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="from 0 to 1"):
        codes.binary_entropy(1.1)
    with pytest.raises(ValueError, match="number of ones"):
        codes.kt_code_bits(4, 3)


# Rewards


def test_reward_bits_of_groups():
    found = rewards.reward_bits([0, 8, 3, 4], 8)
    assert (found.groups, found.dead, found.cap) == (4, 2, 32)
    assert found.ideal == pytest.approx(8 * float(codes.binary_entropy(3 / 8)) + 8)
    assert found.realised - found.live == pytest.approx(2 * float(codes.kt_code_bits(0, 8)))
    assert found.ideal < found.realised
    with pytest.raises(ValueError, match="no group"):
        rewards.reward_bits([], 8)


# Demonstrations


def test_excess_is_zero_for_noise_and_the_bits_learnt_otherwise():
    """Uniform tokens cost the same at first and at the end; style bits cost everyone the same and drop out."""
    blocks = [640.0] * 20
    assert excess_bits(prequential_bits(blocks), 20 * 32, 20 * 16.0, 16) == pytest.approx(0)
    learnt = np.linspace(900, 500, 20)
    for style in (0.0, 2.0, 8.0):  # bits of irrelevant style of each demonstration
        total = prequential_bits(learnt + 32 * style)
        final = (500 / 32 + style) * 16
        assert excess_bits(total, 640, final, 16) == pytest.approx(learnt.sum() - 640 * 500 / 32)


def test_the_base_as_control_removes_that_demonstrations_happen_to_be_harder():
    """Per demonstration: base 10 and trained 8 bits held out; the first pass was drawn 3 bits harder for both."""
    first, base = 20 * (8 + 3.0) + 5, 20 * (10 + 3.0)
    assert excess_bits(first, 20, 80.0, 10) == pytest.approx(65)
    assert excess_bits(first, 20, 80.0, 10, (base, 100.0)) == pytest.approx(5)


def test_surplus():
    found = surplus_bits([100, 60, 30], [10, 10, 10], 4.0)
    assert (found.bits, found.lower_bound) == (80, False)
    assert surplus_bits([100, 60, 50], [10, 10, 10], 4.0).lower_bound


# Updates


def test_generalisation_bound():
    assert update.generalisation_gap(208, 7473) == pytest.approx(0.0992, abs=5e-5)
    assert update.generalisation_gap(16 * 3e6, 7473) == pytest.approx(47, abs=0.5)
    with pytest.raises(ValueError, match="needs an example"):
        update.generalisation_gap(208, 0)


def test_two_part_code():
    found = update.two_part_bits(26, 800, 8)
    assert (found.payload, found.header, found.selection, found.total) == (208, 6400, 3, 6611)


def test_shannons_limit():
    assert quantisers.shannon_distortion([1, 2, 3, 4]) == pytest.approx([0.25, 0.0625, 0.015625, 0.003906], abs=5e-7)


# A study's table


def steps_of(method: str, steps: int = 2, **extra: Any) -> list[Step]:
    rows = []
    for step in range(steps):
        row: dict[str, Any] = {"step": step, "loss": 1.0, "mean_length": 10.0, "trained_tokens": 120}
        row["code_length_bits"] = 240.0 - 24 * step
        if method in ("grpo", "random-reward") or (method == "sft+grpo" and step >= steps // 2):
            row |= {"group_hits": [0, 2, 4], "dead_groups": 2}
        rows.append(Step.model_validate(row | extra))
    return rows


def made(study: Study, run_spec: RunSpec, **extra: Any) -> Run:
    values = result(run_spec, [1, 0], **extra)
    rows = steps_of(run_spec.method) if run_spec.training else []
    folder = study.add(run_spec, FINGERPRINT, values, rows, outcomes([1, 0]), b"theta" if run_spec.training else None)
    return study.read(folder)


HELDOUT = {
    "heldout_code_length_bits": 150.0, "heldout_base_code_length_bits": 200.0, "heldout_demonstrations": 10,
    "heldout_tokens": 100,
}  # fmt: skip


def table(runs: list[Run], pool: int | Absent = 8192, tried: int | Absent = 6, epsilon: float | None = None):
    return describe(runs, train_items=lambda _: pool, configurations=lambda *_: tried, epsilon=epsilon)


def test_sft_from_what_was_recorded(tmp_path: Path):
    study = study_in(tmp_path)
    runs = [made(study, spec("sft", seed), **HELDOUT) for seed in (0, 1)]
    (cell,) = table(runs).cells
    v = cell.values
    assert cell.seeds == (0, 1)
    assert v["prequential_bits"] == Measured(456.0, 456.0, 456.0, 2)
    assert v["prequential_bits_per_demonstration"].estimate == 456 / 24
    assert v["excess_bits"].estimate == 456 - 24 * 15
    assert v["excess_bits_per_parameter"].estimate == pytest.approx(96 / 13)
    assert v["surplus_bits"].estimate == 60 + 36  # above 1.5 bits for each of 120 tokens
    assert v["surplus_bits"].at_least
    assert v["base_bits_per_demonstration"].estimate == 20
    assert v["heldout_bits_per_token"].estimate == 1.5
    assert v["payload_bits"].estimate == 208
    assert v["selection_bits"].estimate == pytest.approx(math.log2(6))
    assert v["two_part_bits"].estimate == pytest.approx(208 + 4000 + math.log2(6))
    assert v["gap_payload"].estimate == pytest.approx(update.generalisation_gap(208 + math.log2(6), 6))
    assert "does not apply" in v["reward_cap_bits"].reason


def test_the_base_of_the_first_pass_is_used_where_it_was_recorded(tmp_path: Path):
    study, run_spec = study_in(tmp_path), spec("sft")
    rows = steps_of("sft", base_code_length_bits=264.0)
    folder = study.add(run_spec, FINGERPRINT, result(run_spec, [1], **HELDOUT), rows, outcomes([1]), b"t")
    v = table([study.read(folder)]).cells[0].values
    assert v["excess_bits"].estimate == (456 - 528) - 24 * (150 - 200) / 10


def test_grpo_from_what_was_recorded(tmp_path: Path):
    (cell,) = table([made(study_in(tmp_path), spec("grpo"))]).cells
    v = cell.values
    hits = rewards.reward_bits([0, 2, 4] * 2, 4)
    assert v["reward_cap_bits"] == Measured(24.0, None, None, 1)
    assert v["reward_realised_bits"].estimate == pytest.approx(hits.realised)
    assert v["reward_live_bits_per_parameter"].estimate == pytest.approx(hits.live / 13)
    assert v["dead_fraction"].estimate == pytest.approx(2 / 3)
    assert "own samples" in v["prequential_bits"].reason


def test_every_quantity_is_measured_by_some_method(tmp_path: Path):
    study = study_in(tmp_path)
    cells = table([made(study, spec("sft"), **HELDOUT), made(study, spec("grpo"))]).cells
    measured = {key for cell in cells for key, value in cell.values.items() if isinstance(value, Measured)}
    assert {q.key for q in QUANTITIES} == measured


def test_mixed_and_control_methods(tmp_path: Path):
    study = study_in(tmp_path)
    runs = [made(study, spec(method)) for method in ("sft+grpo", "random-reward", "rft", "rft-online")]
    found = table(runs)
    by = {cell.method: cell.values for cell in found.cells}
    assert by["sft+grpo"]["prequential_bits"].estimate == 240  # its first half
    assert by["sft+grpo"]["reward_cap_bits"].estimate == 12  # its second
    assert by["rft"]["prequential_bits"].estimate == 456
    assert "no rewards" in by["rft"]["reward_cap_bits"].reason
    assert "does not apply" in by["rft-online"]["prequential_bits"].reason
    assert any("permuted" in w for w in found.warnings)
    assert any("each copy is coded" in w for w in found.warnings)


def test_only_the_first_pass_is_coded(tmp_path: Path):
    run = made(study_in(tmp_path), spec("sft"), **HELDOUT)
    v = table([run], pool=5).cells[0].values  # a step has 3 prompts
    assert v["prequential_bits"].estimate == 240
    assert v["excess_bits"].estimate == 240 - 12 * 15
    assert "fewer prompts than one step" in table([run], pool=2).cells[0].values["prequential_bits"].reason
    unknown = table([run], pool=Absent("nobody knows")).cells[0].values
    assert unknown["prequential_bits"] == unknown["gap_payload"] == Absent("nobody knows")


def test_what_was_not_recorded_is_said(tmp_path: Path):
    run = made(study_in(tmp_path), spec("sft"))
    v = table([run], tried=Absent("not recorded")).cells[0].values
    for key in ("excess_bits", "heldout_bits_per_token", "excess_bits_per_parameter"):
        assert "held-out" in v[key].reason
    assert "--epsilon" in v["surplus_bits"].reason
    assert v["two_part_bits"] == Absent("not recorded")
    assert v["prequential_bits"].estimate == 456
    assert table([run], epsilon=1.9).cells[0].values["surplus_bits"] == Measured(240 - 228, None, None, 1, False)
    assert set(v) == {q.key for q in QUANTITIES}


def test_metrics_without_code_lengths(tmp_path: Path):
    study, run_spec = study_in(tmp_path), spec("sft")
    folder = study.add(run_spec, FINGERPRINT, result(run_spec, [1]), [Step(step=0, loss=1)], outcomes([1]), b"t")
    assert "no code lengths" in table([study.read(folder)]).cells[0].values["prequential_bits"].reason


def test_negative_excess_is_printed_and_warned_of(tmp_path: Path):
    found = table([made(study_in(tmp_path), spec("sft"), **HELDOUT | {"heldout_code_length_bits": 250.0})])
    assert found.cells[0].values["excess_bits"].estimate == 456 - 24 * 25
    assert any("negative" in w for w in found.warnings)


def test_interval_over_seeds_is_students(tmp_path: Path):
    study = study_in(tmp_path)
    bits = (140.0, 150.0, 170.0)
    runs = [made(study, spec("sft", i), **HELDOUT | {"heldout_code_length_bits": b}) for i, b in enumerate(bits)]
    v = table(runs).cells[0].values["heldout_bits_per_demonstration"]
    expected = stats.t.interval(0.95, 2, np.mean(bits) / 10, stats.sem(bits) / 10)
    assert (v.low, v.high) == pytest.approx(expected)


def test_a_trial_of_tuning_is_no_seed(tmp_path: Path):
    study = study_in(tmp_path)
    runs = [made(study, spec("sft", seed), **HELDOUT) for seed in range(3)]
    trial = made(study, spec("sft", 1000, split="validation"), **HELDOUT | {"heldout_code_length_bits": 250.0})
    (cell,) = table([*runs, trial]).cells
    assert cell.seeds == (0, 1, 2)
    assert cell.values["heldout_bits_per_demonstration"] == Measured(15.0, 15.0, 15.0, 3)
    with pytest.raises(DataError, match="on the test split: nothing to describe"):
        table([trial])


def test_two_rates_of_the_warm_start_are_two_cells_and_told_apart(tmp_path: Path):
    study = study_in(tmp_path)
    warm = [WarmStartSpec(learning_rate=rate) for rate in (0.003, 0.01)]
    runs = [made(study, spec("sft+grpo", s).model_copy(update={"warm_start": w})) for w in warm for s in range(3)]
    told = [(cell.seeds, cell.differs) for cell in table(runs).cells]
    assert told == [((0, 1, 2), f"warm_start.learning_rate {rate}") for rate in ("0.003", "0.01")]


def test_two_temperatures_of_the_evaluation_are_two_cells_and_told_apart(tmp_path: Path):
    study = study_in(tmp_path)
    runs = [made(study, spec("grpo", seed, temperature=t)) for t in (0.0, 1.0) for seed in range(3)]
    told = [(cell.seeds, cell.differs) for cell in table([*runs, made(study, spec("sft"))]).cells]
    assert told == [((0,), ""), *(((0, 1, 2), f"evaluation.temperature {t}") for t in (0, 1))]


def test_what_the_intervals_are_for_is_said_with_the_number_of_seeds(tmp_path: Path):
    study = study_in(tmp_path)
    runs = [made(study, spec("sft", seed)) for seed in range(3)] + [made(study, spec("grpo"))]
    assert table(runs).intervals == "Intervals: 95 % over fresh seeds, 3 seeds; one seed, no interval."


def test_methods_are_side_by_side_by_size(tmp_path: Path):
    study = study_in(tmp_path)
    runs = [made(study, spec(m)) for m in ("grpo", "rft", "sft", "base")]
    assert [cell.method for cell in table(runs).cells] == ["sft", "rft", "grpo"]
    with pytest.raises(DataError, match="nothing to describe"):
        table([made(study_in(tmp_path / "other"), spec("base"))])


def test_the_error_of_held_out_demonstrations_is_in_the_interval_of_excess_however_many_seeds():
    """Every study has 256 held-out demonstrations that all its seeds share."""
    rng = np.random.default_rng(0)
    covered = {"both": 0, "seeds only": 0}
    for _ in range(600):
        shared = 242.0 * rng.normal()
        values = 5000 + shared + 120.0 * 5**0.5 * rng.normal(size=5)
        error = 242.0 * (rng.chisquare(255) / 255) ** 0.5
        for name, found in (
            ("both", over_seeds([Estimated(float(v), error, 255) for v in values])),
            ("seeds only", over_seeds([float(v) for v in values])),
        ):
            covered[name] += found.low <= 5000 <= found.high
    assert covered["both"] / 600 == pytest.approx(0.95, abs=0.027)
    assert covered["seeds only"] / 600 < 0.85


def test_more_seeds_do_not_shrink_a_shared_error():
    few, many = (over_seeds([Estimated(100.0 + (i % 2), 10.0, 255) for i in range(n)]) for n in (4, 400))
    assert many.high - many.low == pytest.approx(2 * 10 * 1.9693, rel=0.01)
    assert few.high - few.low == pytest.approx(many.high - many.low, rel=0.02)
    assert many.label == "95 % over fresh seeds and held-out demonstrations, 400 seeds"


def test_the_error_of_excess_comes_from_the_recorded_spread_of_demonstrations(tmp_path: Path):
    study = study_in(tmp_path)
    spread = {"heldout_sd_bits": 3.0, "heldout_gain_sd_bits": 2.0}
    runs = [made(study, spec("sft", seed), **HELDOUT, **spread) for seed in (0, 1)]
    values = table(runs).cells[0].values
    half = 24 * 3.0 / 10**0.5 * 2.262  # seeds agree, so nine degrees of freedom
    assert values["excess_bits"].high - values["excess_bits"].estimate == pytest.approx(half, rel=1e-3)
    assert values["excess_bits_per_parameter"].shared == pytest.approx(24 * 3.0 / 10**0.5 / 13)
    assert values["prequential_bits"].shared is None
