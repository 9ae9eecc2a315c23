import json
from pathlib import Path

import fakes
import guarded
import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.errors import DataError
from capacity.runs.answers import Answers, unpacked
from capacity.spec.frozen import canonical_json
from capacity.spec.result import Outcome
from capacity_analysis.check import baseline as module
from capacity_analysis.check.baseline import Baseline, read_baseline
from capacity_analysis.check.judge import check_study
from capacity_analysis.check.matching import check_plan, match
from capacity_analysis.check.snapshot import snapshot


@pytest.fixture(scope="module")
def study():
    return guarded.make(methods=("grpo", "sft"), seeds=range(3))


@pytest.fixture
def written(study, tmp_path):
    path = tmp_path / "baseline.json"
    path.write_text(snapshot(study).to_text())
    return path


def rewritten(path: Path, change, *, seal: bool = True) -> Path:
    """The file after `change`, with a checksum that fits again if `seal`."""
    raw = json.loads(path.read_text())
    change(raw)
    if seal:
        raw.pop("checksum", None)
        raw["checksum"] = module.hashlib.sha256(canonical_json(raw).encode()).hexdigest()
    path.write_text(json.dumps(raw))
    return path


def test_what_is_read_is_what_was_written(study, written):
    assert read_baseline(written) == snapshot(study)


def test_answers_are_those_on_disk(study):
    stored = snapshot(study)
    found = {cell.spec_of(run, "").identity: cell.answers(run) for cell in stored.cells for run in cell.runs}
    assert len(found) == len(study.runs())
    for run in study.runs():
        assert found[run.spec.identity].astype(int).tolist() == [row.correct[0] for row in run.outcomes()]


def test_runs_that_differ_in_the_seed_only_share_a_cell(study):
    cells = snapshot(study).cells
    assert [(c.spec["method"], c.trained_parameters, c.seeds) for c in cells] == [
        ("base", 0, (0,)),
        *((method, size, (0, 1, 2)) for method in ("grpo", "sft") for size in guarded.SIZES),
    ]
    trained = cells[1]
    assert trained.spec["adapter"]["projection_seed"] == "seed"
    assert "seed" not in trained.spec
    assert trained.spec["evaluation"]["seed"] == 0


def with_adapter_seed(seed, adapter_seed, size=13):
    raw = guarded.spec("grpo", size, seed).model_dump(mode="json")
    raw["adapter"]["projection_seed"] = adapter_seed
    return guarded.load_spec(raw, "")


def two_projections(draw=0, shift=0.0):
    """Two sizes, seeds 0 to 3, each with projections 7 and 8."""
    study = guarded.make(sizes={})
    for size, accuracy in ((13, 0.6), (100, 0.8)):
        for seed in range(4):
            for adapter_seed in (8, 7):
                correct = guarded.answers(accuracy + shift, (draw, size, seed, adapter_seed))
                guarded.add(study, with_adapter_seed(seed, adapter_seed, size), correct)
    return study


def test_runs_that_differ_in_the_projection_seed_only_share_a_cell():
    study = two_projections()
    _, cell, _ = snapshot(study).cells
    assert cell.spec["adapter"]["projection_seed"] == "seed"
    assert [run.seeds for run in cell.runs] == [(seed, part) for seed in range(4) for part in (7, 8)]
    assert cell.seeds == (0, 1, 2, 3)
    assert cell.answers_per_seed == 2 * guarded.ITEMS
    both = [guarded.answers(0.6, (0, 13, 2, part)) for part in (7, 8)]
    assert cell.accuracy(2) == np.mean(both)


def test_projections_of_their_own_survive_the_file(tmp_path):
    path = tmp_path / "baseline.json"
    stored = snapshot(two_projections())
    path.write_text(stored.to_text())
    assert json.loads(path.read_text())["version"] == 2
    assert read_baseline(path) == stored


def test_the_oldest_version_that_holds_a_study_is_written(study):
    raw = json.loads(snapshot(study).to_text())
    assert raw["version"] == 1
    assert all(set(run) == {"seed", "update_bytes", "n_correct", "answers"} for c in raw["cells"] for run in c["runs"])


def in_version_1(stored: Baseline, path: Path) -> Path:
    """The file that version 1 had for it: a cell for each fixed projection, whose seed stands in the spec."""
    raw = stored.model_dump(mode="json")
    parts = []
    for cell in raw["cells"]:
        for part in sorted({run.get("adapter_seed", "seed") for run in cell["runs"]}, key=str):
            adapter = {n: part if n.endswith("_seed") else value for n, value in cell["spec"]["adapter"].items()}
            runs = [run for run in cell["runs"] if run.get("adapter_seed", "seed") == part]
            runs = [{name: value for name, value in run.items() if name != "adapter_seed"} for run in runs]
            parts.append({**cell, "spec": {**cell["spec"], "adapter": adapter}, "runs": runs})
    path.write_text(json.dumps({**raw, "version": 1, "cells": parts}))
    return rewritten(path, lambda _: None)


def test_fixed_projections_of_version_1_are_read_as_what_they_were(tmp_path):
    stored = snapshot(two_projections())
    path = in_version_1(stored, tmp_path / "old.json")
    assert len(json.loads(path.read_text())["cells"]) == 5
    assert read_baseline(path) == stored
    assert check_study(snapshot(two_projections()), read_baseline(path), margin=0.02).outcome == "identical"


def test_parts_of_a_cell_that_answered_other_items_are_refused(tmp_path):
    path = in_version_1(snapshot(two_projections()), tmp_path / "old.json")
    rewritten(path, lambda raw: raw["cells"][1].update(items_digest="other"))
    assert "two of its cells have the same spec" in one_line(path)


def test_a_seed_of_several_projections_counts_once():
    old, new = snapshot(two_projections()), snapshot(two_projections(draw=1, shift=-0.1))
    (curve,) = check_study(new, old, margin=0.02).curves
    assert (curve.outcome, curve.change.seeds, curve.change.df) == ("worse", 4, 3)
    drops = [
        np.mean([new_size.accuracy(seed) - old_size.accuracy(seed) for old_size, new_size in match(new, old)[1:]])
        for seed in range(4)
    ]
    assert curve.change.estimate == pytest.approx(np.mean(drops), abs=1e-12)
    assert curve.change.standard_error == pytest.approx(np.std(drops, ddof=1) / 2, abs=1e-12)


def test_runs_are_paired_by_both_seeds():
    """The same answers under exchanged projections are other runs."""
    old, new = (guarded.make(sizes={}, base=False) for _ in range(2))
    for made, parts in ((old, (7, 8)), (new, (8, 7))):
        for seed in range(3):
            for answers_of, part in enumerate(parts):
                guarded.add(made, with_adapter_seed(seed, part), guarded.answers(0.6, (seed, answers_of)))
    ((one, other),) = match(snapshot(new), snapshot(old))
    assert [run.seeds for run in one.runs] == [run.seeds for run in other.runs]
    found = check_study(snapshot(new), snapshot(old), margin=0.02)
    assert found.outcome == "non-inferior"
    assert found.curves[0].change.estimate == 0


def test_the_same_seed_with_another_projection_is_neither_the_same_run_nor_a_fresh_one():
    old, new = guarded.make(sizes={13: 0.6}, seeds=range(2)), guarded.make(sizes={})
    for seed in range(2):
        guarded.add(new, with_adapter_seed(seed, 7), guarded.answers(0.6, (seed,)))
    with pytest.raises(DataError, match=r"no seed 0, 1, which the baseline has \(it has 0 \(adapter 7\), 1 \(ad"):
        match(snapshot(new), snapshot(old))
    with pytest.raises(DataError, match=r"no seed 0, 1, which the baseline has"):
        check_plan([run.spec for run in new.made], snapshot(old))


def test_projections_that_the_baseline_lacks_are_not_compared():
    old, new = (guarded.make(sizes={13: 0.6}) for _ in range(2))
    guarded.add(new, with_adapter_seed(0, 7), guarded.answers(0.1, (7,)))
    found = check_study(snapshot(new), snapshot(old), margin=0.02)
    assert found.outcome == "identical"
    assert "Not in the baseline and not compared: seed 0 (adapter 7)." in found.remarks


def test_the_file_is_small_and_the_same_each_time(study, written):
    runs = sum(len(cell.runs) for cell in snapshot(study).cells)
    assert written.stat().st_size < runs * (guarded.ITEMS / 8 * 4 / 3 + 120) + 7 * 1500
    assert snapshot(study).to_text() == written.read_text()


def test_a_diff_shows_only_the_run_that_moved(study):
    other = guarded.make(methods=("grpo", "sft"), seeds=range(3))
    changed = guarded.spec("sft", 13, 1)
    correct = guarded.answers(0.6, (0, 1, 13, 1))
    correct[0] = 1 - correct[0]
    other.made = [run for run in other.made if run.spec != changed]
    guarded.add(other, changed, correct)
    a, b = snapshot(study).to_text().splitlines(), snapshot(other).to_text().splitlines()
    assert len(a) == len(b)
    moved = [x.split(":")[0].strip() for x, y in zip(a, b, strict=True) if x != y]
    assert moved == ['"checksum"', '"n_correct"', '"answers"']


@unhurried
@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bits_survive_the_round_trip(bits):
    answers = Answers(tuple(map(str, range(len(bits)))), np.array(bits)[:, None])
    assert unpacked(answers.packed(), len(bits), "").tolist() == bits


def one_line(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_baseline(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_truncated_file_is_refused_at_every_length(written, tmp_path):
    text = written.read_text()
    for length in np.linspace(0, len(text) - 2, 40).astype(int):
        written.write_text(text[:length])
        assert "cut off" in one_line(written)


def test_an_edited_file_is_refused_wherever_it_was_edited(written):
    lines = written.read_text().splitlines()
    numbers = [i for i, line in enumerate(lines) if line.strip()[:1] == '"' and "checksum" not in line]
    for number in numbers[:: max(1, len(numbers) // 40)]:
        edited = lines.copy()
        edited[number] = edited[number].replace("0", "7").replace("a", "b").replace("e", "f")
        if edited[number] != lines[number]:
            written.write_text("\n".join(edited))
            assert any(
                word in one_line(written) for word in ("was edited", "not a baseline", "cut off", "format version")
            )


def test_the_checksum_is_checked(written):
    rewritten(written, lambda raw: raw["cells"][1]["runs"][0].update(n_correct=399), seal=False)
    assert "was edited (its checksum differs): restore it from version control" in one_line(written)


@pytest.mark.parametrize("version", [0, 4, "1", None])
def test_another_format_version_is_refused(written, version):
    rewritten(written, lambda raw: raw.update(version=version))
    assert f"format version {version}, this program reads 1 to 3" in one_line(written)


def test_other_json_is_no_baseline(written):
    for text in ("[]", "{}", '"baseline"', '{"format": "points"}'):
        written.write_text(text)
        assert "not a baseline" in one_line(written)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.update(cells=[]), "not a valid baseline: cells"),
        (lambda raw: raw["cells"][1]["runs"].clear(), "not a valid baseline: cells.1.runs"),
        (lambda raw: raw["cells"][1].pop("items_digest"), "items_digest"),
        (lambda raw: raw["cells"][1]["runs"][0].update(n_correct=399), "its answers and its n_correct disagree"),
        (lambda raw: raw["cells"][1]["runs"][0].update(answers="AAAA"), "are not 400 bits"),
        (lambda raw: raw["cells"][1]["runs"][0].update(answers="no base64!"), "are not 400 bits"),
        (lambda raw: raw["cells"][1]["runs"].append(raw["cells"][1]["runs"][0]), "a seed stands there twice"),
        (lambda raw: raw["cells"][1]["spec"].update(model=3), "not a valid spec: model"),
        (lambda raw: raw["cells"][1]["spec"].pop("evaluation"), "not a valid spec: evaluation"),
        (lambda raw: raw["cells"][1]["spec"].update(adapter=None), "not a valid spec: adapter"),
        (lambda raw: raw["cells"][1]["spec"].update(schema_version=99), "spec of schema version 99"),
        (lambda raw: raw.update(fingerprint={}), "not a valid baseline: fingerprint"),
        (lambda raw: raw["cells"].append(raw["cells"][1]), "a seed stands there twice"),
        (lambda raw: raw["cells"][1]["spec"].update(schema_version=2, task=3), "not a valid spec of schema version 2"),
        (lambda raw: raw.update(extra=1), "not a valid baseline: unknown field"),
    ],
)
def test_sealed_nonsense_is_refused(written, change, words):
    assert words in one_line(rewritten(written, change))


def test_a_missing_file_says_how_to_make_it(tmp_path):
    assert "no such file: make it with `capacity baseline STUDY -o none.json`" in one_line(tmp_path / "none.json")


def test_a_baseline_of_an_older_schema_is_read_as_what_it_meant(written):
    meant = []

    def older(raw):
        for cell in raw["cells"]:
            spec, seed = cell["spec"], cell["runs"][0]["seed"]
            groups = cell["trained_parameters"]
            tinylora = {"kind": "tinylora", "u": 1, "groups": groups, "projection_seed": "seed"}
            spec["schema_version"] = 1
            spec["adapter"] = tinylora if groups else {"kind": "none"}
            spec["task"] = {"name": "abacus", "demonstrations": "worked"}
            adapter = {name: seed if value == "seed" else value for name, value in spec["adapter"].items()}
            meant.append(guarded.load_spec({**spec, "adapter": adapter, "seed": seed}, ""))

    found = read_baseline(rewritten(written, older))
    assert [cell.cell.spec for cell in found.cells] == meant
    for cell in found.cells:
        assert cell.spec["schema_version"] == cell.cell.spec.schema_version
        assert cell.spec["adapter"].get("projection_seed", "seed") == "seed"


@pytest.mark.parametrize("odd", [(0, 1), (1, 0)])
def test_runs_of_one_cell_that_answered_other_items_are_refused(odd):
    study = guarded.make(sizes={}, base=False)
    for seed, first in enumerate(odd):
        guarded.add(study, guarded.spec("sft", 13, seed), guarded.answers(0.5, (seed,)), first_item=first)
    with pytest.raises(DataError, match="answered other items than"):
        snapshot(study)


def test_a_study_with_holes_is_refused():
    study = guarded.make(seeds=range(2))
    study.planned = [guarded.spec("grpo", 13, seed) for seed in range(4)]
    with pytest.raises(DataError, match=r"no result of grpo 13 seed [23] and 1 more, which was planned"):
        snapshot(study)


def test_a_study_of_two_environments_is_refused():
    study = guarded.make(seeds=range(2))
    guarded.add(study, guarded.spec("grpo", 13, 2), guarded.answers(0.5, (1,)), guarded.OTHER)
    with pytest.raises(DataError, match=r"runs of different environments .*torch 2\.1.*: start an empty study"):
        snapshot(study)


def test_an_empty_study_is_refused():
    with pytest.raises(DataError, match="no complete run"):
        snapshot(guarded.make(sizes={}, base=False))


def test_trials_of_a_tuning_are_no_result():
    study = guarded.make(seeds=range(2))
    reported = snapshot(study)
    for seed in (1000, 1001):
        raw = guarded.spec("grpo", 13, seed, learning_rate=0.1).model_dump(mode="json")
        raw["evaluation"]["split"] = "validation"
        trial = guarded.load_spec(raw, "")
        study.planned.append(trial)
        if seed == 1000:  # the other failed, as a rate that is too high may
            guarded.add(study, trial, guarded.answers(0.5, (seed,)))
    assert snapshot(study) == reported


def test_an_arm_that_is_reported_on_validation_is_a_result():
    study = guarded.make(seeds=range(2))
    raw = guarded.spec("sft", 13, 0).model_dump(mode="json")
    raw["evaluation"]["split"] = "validation"
    guarded.add(study, guarded.load_spec(raw, ""), guarded.answers(0.5, (1,)))
    assert [cell.spec["method"] for cell in snapshot(study).cells] == ["base", "grpo", "grpo", "grpo", "sft"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no answers"),
        ([Outcome(item="a", correct=(1, 1))], "disagree in the number of answers"),
    ],
)
def test_outcomes_that_cannot_be_used_are_refused(rows, words):
    study = guarded.make(seeds=range(2))
    study.made[0].rows[:] = rows
    with pytest.raises(DataError, match=words):
        snapshot(study)


def test_other_contents_under_the_same_names_are_other_items():
    old, new = guarded.make(), guarded.make()
    for made, digest in ((old, "a"), (new, "b")):
        for run in made.made:
            object.__setattr__(run, "result", run.result.model_copy(update={"items_digest": digest}))
    with pytest.raises(DataError, match="answered other items than the baseline"):
        match(snapshot(new), snapshot(old))
    assert match(snapshot(old), snapshot(guarded.make()))  # made before contents were recorded


def test_several_samples_of_an_item_are_all_kept():
    study = guarded.make(sizes={}, base=False)
    raw = guarded.spec("sft", 13, 0, 6).model_dump(mode="json")
    raw["evaluation"]["samples_per_item"] = 3
    spec = guarded.load_spec(raw, "")
    outcomes = [Outcome(item=f"test-{i}", correct=(1, i % 2, 0)) for i in range(6)]
    result = fakes.result(spec, [1], n_items=6)
    study.made.append(guarded.MadeRun(Path("run"), spec, fakes.FINGERPRINT, result, outcomes))
    (cell,) = snapshot(study).cells
    assert cell.n_answers == 18
    assert cell.accuracy(0) == 9 / 18
    assert cell.answers(cell.runs[0]).reshape(6, 3).tolist() == [[True, bool(i % 2), False] for i in range(6)]
    assert isinstance(snapshot(study), Baseline)
