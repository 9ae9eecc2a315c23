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
from capacity.spec.frozen import canonical_json
from capacity.spec.result import Outcome
from capacity_analysis.check import baseline as module
from capacity_analysis.check.baseline import Baseline, read_baseline
from capacity_analysis.check.matching import match
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
    for run in study.runs():
        cell = next(c for c in stored.cells if run.spec in [module.spec_of(c.spec, s, "") for s in c.seeds])
        assert cell.answers(run.spec.seed).astype(int).tolist() == [row.correct[0] for row in run.outcomes()]


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


def test_projections_that_do_not_follow_the_seed_are_kept():
    study = guarded.make(sizes={}, base=False)
    for seed in range(3):
        raw = guarded.spec("grpo", 13, seed).model_dump(mode="json")
        raw["adapter"]["projection_seed"] = 1
        guarded.add(study, module.load_spec(raw, ""), guarded.answers(0.5, (seed,)))
    (cell,) = snapshot(study).cells
    assert cell.spec["adapter"]["projection_seed"] == 1
    assert cell.seeds == (0, 1, 2)


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
    text = module.base64.b64encode(np.packbits(np.array(bits)).tobytes()).decode()
    assert module._unpack(text, len(bits)).tolist() == bits


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


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(written, version):
    rewritten(written, lambda raw: raw.update(version=version))
    assert f"format version {version}, this program reads 1" in one_line(written)


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
        (lambda raw: raw["cells"].append(raw["cells"][1]), "two of its cells have the same spec"),
        (lambda raw: raw["cells"][1]["spec"].update(schema_version=2, task=3), "not a valid spec of schema version 2"),
        (lambda raw: raw.update(extra=1), "not a valid baseline: extra"),
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
            meant.append(module.spec_of(spec, seed, ""))

    found = read_baseline(rewritten(written, older))
    assert [module.spec_of(cell.spec, cell.seeds[0], "") for cell in found.cells] == meant
    for cell in found.cells:
        assert cell.spec["schema_version"] == module.spec_of(cell.spec, 0, "").schema_version
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


def test_one_run_whose_projection_does_not_follow_is_a_cell_of_its_own():
    study = guarded.make(seeds=range(3), sizes={13: 0.6})
    before = snapshot(study)
    raw = guarded.spec("grpo", 13, 9).model_dump(mode="json")
    raw["adapter"]["projection_seed"] = 0
    guarded.add(study, guarded.load_spec(raw, ""), guarded.answers(0.6, (9,)))
    after = snapshot(study)
    assert [cell for cell in after.cells if cell in before.cells] == list(before.cells)
    assert len({cell.key for cell in after.cells}) == len(after.cells) == len(before.cells) + 1


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
    spec = module.load_spec(raw, "")
    outcomes = [Outcome(item=f"test-{i}", correct=(1, i % 2, 0)) for i in range(6)]
    result = fakes.result(spec, [1], n_items=6)
    study.made.append(guarded.MadeRun(Path("run"), spec, fakes.FINGERPRINT, result, outcomes))
    (cell,) = snapshot(study).cells
    assert cell.n_answers == 18
    assert cell.accuracy(0) == 9 / 18
    assert cell.answers(0).reshape(6, 3).tolist() == [[True, bool(i % 2), False] for i in range(6)]
    assert isinstance(snapshot(study), Baseline)
