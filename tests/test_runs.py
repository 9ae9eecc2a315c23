import base64
import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections import Counter

import fakes
import pytest

from capacity.errors import DataError, SpecError, StudyLockedError
from capacity.runs import files, fingerprint
from capacity.runs.cell import cell_of
from capacity.runs.mixed import refuse_mixed
from capacity.runs.points import COLUMNS, COSTS, points, to_csv
from capacity.runs.study import Failure, Study
from capacity.spec import run as config
from capacity.spec.frozen import canonical_json
from capacity.spec.result import Outcome, Result, Step

OTHER = fakes.FINGERPRINT.model_copy(update={"versions": {"torch": "2.13.0"}})
HOLD_LOCK = """
import sys
from pathlib import Path
from capacity.runs.study import Failure, Study
with Study(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def study(tmp_path):
    return fakes.study_in(tmp_path)


@pytest.fixture
def run(study):
    return fakes.add(study, fakes.spec(), [1, 0, 1, 1])


@pytest.fixture
def lock_holder(study):
    """Another process that holds the lock of `study`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(study.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_run_is_read_back_as_it_was_added(study, run):
    assert run.folder == study.path_of(fakes.spec())
    assert run.spec == fakes.spec()
    assert run.fingerprint == fakes.FINGERPRINT
    assert run.result == fakes.result(fakes.spec(), [1, 0, 1, 1])
    assert run.outcomes() == tuple(fakes.outcomes([1, 0, 1, 1]))
    assert run.steps == (Step(step=0, loss=1.5), Step(step=1, loss=1.5))
    assert (run.folder / "update.safetensors").read_bytes() == b"theta"


def test_untrained_run_has_no_update(study):
    run = fakes.add(study, fakes.spec("base"), [1, 0])
    assert not (run.folder / "update.safetensors").exists()
    assert run.steps == ()


def test_text_outside_ascii_and_line_separators_survive(study):
    spec = fakes.spec()
    outcomes = (Outcome(item="a", correct=(1,), completions=("Σ ÷\u2028\x85\n\r",)),)
    study.add(spec, fakes.FINGERPRINT, fakes.result(spec, [1]), [], outcomes, None)
    assert study.read(study.path_of(spec)).outcomes() == outcomes


def test_runs_are_listed_by_what_they_are(study):
    added = [fakes.add(study, fakes.spec(method, seed=seed), [1]) for seed in (2, 0, 1) for method in ("grpo", "sft")]
    listed = [(run.spec.method, run.spec.seed) for run in study.runs()]
    assert listed == [("sft", 0), ("sft", 1), ("sft", 2), ("grpo", 0), ("grpo", 1), ("grpo", 2)]
    assert {run.folder for run in study.runs()} == {run.folder for run in added}


def test_copied_run_folder_belongs_to_the_study_it_was_copied_to(tmp_path, run):
    other = fakes.study_in(tmp_path / "other")
    shutil.copytree(run.folder, other.runs_folder / run.folder.name)
    assert [r.spec for r in other.runs()] == [run.spec]


def test_number_that_is_not_finite_is_not_written(study):
    with pytest.raises(ValueError, match="finite"):
        fakes.result(fakes.spec(), [1], update_square_sum=float("nan"))
    broken = fakes.result(fakes.spec(), [1]).model_copy(update={"update_square_sum": float("nan")})
    with pytest.raises(ValueError, match="Out of range float"):
        study.add(fakes.spec(), fakes.FINGERPRINT, broken, [], [], None)
    assert study.runs() == []


FILES = (
    "fingerprint.json",
    "metrics.jsonl",
    "outcomes.jsonl",
    "result.json",
    "spec.json",
    "update.safetensors",
)


def test_every_file_of_a_run_is_checksummed(run):
    assert {p.name for p in run.folder.iterdir()} == {*FILES, "checksums.json"}
    assert set(files.read_json(run.folder / "checksums.json")) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_found_and_the_message_says_what_to_do(study, run, name):
    content = (run.folder / name).read_bytes()
    (run.folder / name).write_bytes(content[:-1])
    message = f"{run.folder}: {name} is corrupt (checksum differs): remove the folder to run it again"
    with pytest.raises(DataError) as caught:
        study.read(run.folder)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", FILES)
def test_edited_file_is_found(study, run, name):
    content = bytearray((run.folder / name).read_bytes())
    content[0] ^= 1
    (run.folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is corrupt"):
        study.read(run.folder)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_found_and_the_message_says_what_to_do(study, run, name):
    (run.folder / name).unlink()
    with pytest.raises(DataError) as caught:
        study.read(run.folder)
    assert str(caught.value) == f"{run.folder}: {name} is missing: remove the folder to run it again"


def test_extra_file_is_found_and_the_message_says_what_to_do(study, run):
    (run.folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"unexpected file notes\.txt: remove it, or remove the folder"):
        study.read(run.folder)


def test_file_replaced_by_a_folder_is_found(study, run):
    (run.folder / "metrics.jsonl").unlink()
    (run.folder / "metrics.jsonl").mkdir()
    with pytest.raises(DataError, match=r"metrics\.jsonl: cannot be read: "):
        study.read(run.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_broken_checksums_are_found(study, run, text):
    (run.folder / "checksums.json").write_text(text)
    with pytest.raises(DataError, match=r"checksums\.json"):
        study.read(run.folder)


def test_missing_checksums_are_found(study, run):
    (run.folder / "checksums.json").unlink()
    with pytest.raises(DataError, match=r"checksums\.json: no such file"):
        study.read(run.folder)


def test_one_corrupt_run_stops_the_listing_and_is_named(study, run):
    fakes.add(study, fakes.spec(seed=1), [1])
    (run.folder / "result.json").write_text("{}")
    with pytest.raises(DataError, match=run.folder.name):
        study.runs()


def test_renamed_folder_is_refused(study, run):
    renamed = run.folder.rename(run.folder.with_name("0" * 16))
    with pytest.raises(DataError, match=f"identity {run.spec.short_id}: the folder was renamed or edited"):
        study.read(renamed)


def test_resealed_run_with_another_spec_is_refused(study, run):
    (run.folder / "spec.json").write_text(fakes.spec(seed=9).canonical_json())
    files.seal(run.folder)
    with pytest.raises(DataError, match="the folder was renamed or edited"):
        study.read(run.folder)


@pytest.mark.parametrize("content", ["{}", "[]", '{"sources": 1}'])
def test_resealed_run_without_a_fingerprint_is_refused(study, run, content):
    (run.folder / "fingerprint.json").write_text(content)
    files.seal(run.folder)
    with pytest.raises(DataError, match=r"fingerprint\.json: not a fingerprint"):
        study.read(run.folder)


def test_run_of_an_older_schema_is_read_from_its_folder(study, run, monkeypatch):
    old = {**json.loads((run.folder / "spec.json").read_text()), "schema_version": 0}
    text = config.canonical_json(old)
    (run.folder / "spec.json").write_text(text + "\n")
    files.seal(run.folder)
    run.folder.rename(run.folder.with_name(hashlib.sha256(text.encode()).hexdigest()[:16]))
    monkeypatch.setattr(config, "MIGRATIONS", {0: lambda raw: {**raw, "schema_version": 3}})
    assert [r.spec for r in study.runs()] == [run.spec]
    missing = [fakes.spec(seed=seed) for seed in range(100, 150)]
    read = Counter()
    monkeypatch.setattr(
        files, "read_json", lambda path, json=files.read_json: (read.update([path.name]), json(path))[1]
    )
    assert [study.held(spec) for spec in missing] == [None] * 50
    assert study.held(run.spec) == study.runs()[0].folder
    assert read["spec.json"] == 2  # once to know the older specs, and once by runs()


def test_study_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such study folder"):
        Study(tmp_path / "nowhere").runs()


def test_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"not a study folder \(it has no runs/\)"):
        Study(tmp_path).runs()


def test_study_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match=r"study folder .*file/study cannot be made: Not a directory"),
        Study(tmp_path / "file" / "study").locked(),
    ):
        pass


def test_leftovers_of_a_crash_are_cleaned_when_locked(study, run):
    leftover = study.folder / "partial" / fakes.spec().short_id
    leftover.mkdir(parents=True)
    (leftover / "spec.json").write_text("{")
    with study.locked():
        assert not (study.folder / "partial").exists()
    assert study.runs() == [run]


def test_run_whose_writing_was_interrupted_is_missing_and_can_be_made_again(study, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "publish", interrupted)
        with pytest.raises(KeyboardInterrupt), study.locked():
            fakes.add(study, fakes.spec(), [1])
    assert study.find(fakes.spec(), fakes.FINGERPRINT) == ("missing", None)
    assert study.runs() == []
    assert fakes.add(study, fakes.spec(), [0]).result.accuracy == 0


def test_second_lock_in_one_process_is_refused_and_harms_nothing(study):
    with study.locked():
        work = study.folder / "partial" / fakes.spec().short_id
        work.mkdir(parents=True)
        with pytest.raises(StudyLockedError, match="in use by another process"), Study(study.folder).locked():
            pass
        assert work.is_dir()
    with study.locked():
        assert not work.exists()


def test_lock_of_another_process_is_respected_until_it_ends(study, lock_holder):
    with (
        pytest.raises(StudyLockedError, match="wait for it, or choose another --out"),
        study.locked(),
    ):
        pass
    lock_holder.communicate("")
    with study.locked():
        assert Study(study.folder).runs() == []


def test_lock_of_a_killed_process_is_free(study, lock_holder):
    leftover = study.folder / "partial" / fakes.spec().short_id
    leftover.mkdir(parents=True)
    lock_holder.kill()
    lock_holder.wait()
    with study.locked():
        assert not leftover.exists()


def test_lock_is_freed_after_an_error(study):
    with pytest.raises(RuntimeError, match="boom"), study.locked():
        raise RuntimeError("boom")
    with study.locked():
        pass
    assert not (study.folder / "partial").exists()


def test_find_tells_missing_complete_and_stale_apart(study, run):
    assert study.find(fakes.spec(seed=1), fakes.FINGERPRINT) == ("missing", None)
    assert study.find(fakes.spec(), fakes.FINGERPRINT) == ("complete", run)
    assert study.find(fakes.spec(), OTHER) == ("stale", run)


def test_find_refuses_a_corrupt_run(study, run):
    (run.folder / "result.json").write_text("{}")
    with pytest.raises(DataError, match=r"result\.json is corrupt"):
        study.find(fakes.spec(), fakes.FINGERPRINT)


def test_publishing_onto_an_existing_run_keeps_the_existing_one(study, run):
    again = fakes.add(study, fakes.spec(), [0, 0, 0, 0])
    assert again == run
    assert again.outcomes() == tuple(fakes.outcomes([1, 0, 1, 1]))
    assert list((study.folder / "partial").iterdir()) == []


def test_failure_is_kept_until_the_run_succeeds(study):
    study.add_failure(fakes.spec(), "diverged", "Traceback …")
    study.add_failure(fakes.spec(seed=1), "killed", "")
    study.add_failure(fakes.spec(), "diverged again", "Traceback …")
    assert sorted(f.message for f in study.failures()) == ["diverged again", "killed"]
    assert study.runs() == []
    fakes.add(study, fakes.spec(), [1])
    (left,) = study.failures()
    assert left == Failure(fakes.spec(seed=1).short_id, "sft 13 seed 1", "killed", "")


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"message": "half"}'])
def test_damaged_failure_record_is_named(study, text):
    study.add_failure(fakes.spec(), "diverged", "")
    (path,) = (study.folder / "failed").iterdir()
    path.write_text(text)
    with pytest.raises(DataError, match=str(path)):
        study.failures()


def test_plan_says_what_was_to_be_run(study):
    assert study.plan() == []
    study.write_plan([fakes.spec(), fakes.spec(seed=1)])
    study.write_plan([fakes.spec(seed=1), fakes.spec(seed=2)])
    assert [s.seed for s in study.plan()] == [0, 1, 2]


def test_a_run_of_another_environment_is_never_replaced(study):
    fakes.add(study, fakes.spec(), [1])
    other = fakes.FINGERPRINT.model_copy(update={"sources": "other"})
    with pytest.raises(DataError, match="runs are immutable"):
        study.add(fakes.spec(), other, fakes.result(fakes.spec(), [1]), [], [], None)
    assert study.read(study.path_of(fakes.spec())).fingerprint == fakes.FINGERPRINT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "nothing"),
        ({"versions": {"torch": "2.13.0"}}, "torch 2.12.0 → 2.13.0"),
        ({"versions": {"torch": "2.13.0"}, "sources": "t"}, "torch 2.12.0 → 2.13.0, sources"),
        ({"versions": {"torch": "2.12.0", "trl": "1.16"}}, "trl none → 1.16"),
        ({"versions": {}}, "torch 2.12.0 → none"),
        ({"device": "cuda", "dtype": "bf16"}, "device, dtype"),
        ({"trainer": "loop", "sources": "t"}, "sources, trainer trl → loop"),
        ({"trainer": "loop", "versions": {"torch": "2.12.0", "trl": "1.16"}}, "trainer trl → loop"),
    ],
)
def test_difference_of_fingerprints_in_words(change, words):
    other = fakes.FINGERPRINT.model_copy(update=change)
    assert fakes.FINGERPRINT.difference(other) == words
    assert (fakes.FINGERPRINT.digest == other.digest) == (words == "nothing")


def test_fingerprint_of_here_names_libraries_device_and_dtype():
    here = fingerprint.current("cpu", "fp32")
    assert set(here.versions) == {*fingerprint.LIBRARIES}
    assert (here.device, here.dtype) == ("cpu", "fp32")
    assert len(here.sources) == 64
    assert fingerprint.current("cpu", "fp32") == here
    assert fingerprint.current("cuda", "fp32").difference(here) == "device"


def test_the_version_of_trl_counts_only_where_it_trains():
    by_loop, by_trl = (fingerprint.current("cpu", "fp32", trainer) for trainer in ("loop", "trl"))
    assert "trl" not in by_loop.versions
    assert {*by_trl.versions} == {*by_loop.versions, "trl"}
    assert by_trl.difference(by_loop) == "trainer trl → loop"
    assert by_trl.digest != by_loop.digest


def test_a_fingerprint_that_names_no_trainer_is_of_trl_and_is_written_as_it_was():
    old = {"sources": "s", "versions": {"trl": "1.16.0"}, "device": "cpu", "dtype": "fp32"}
    read = fingerprint.Fingerprint.model_validate(old)
    assert read.trainer == "trl"
    assert read.model_dump(mode="json") == old
    by_loop = read.model_copy(update={"trainer": "loop"})
    assert by_loop.model_dump(mode="json") == {**old, "trainer": "loop"}
    assert fingerprint.Fingerprint.model_validate_json(by_loop.model_dump_json()) == by_loop


def test_a_run_of_another_trainer_is_stale(study, run):
    assert study.find(run.spec, fakes.FINGERPRINT)[0] == "complete"
    by_loop = fakes.FINGERPRINT.model_copy(update={"trainer": "loop"})
    assert study.find(run.spec, by_loop)[0] == "stale"


def test_an_unknown_trainer_is_refused():
    with pytest.raises(SpecError, match=r"unknown trainer 'peft': choose from loop, trl"):
        fingerprint.parse_trainer("peft")


def test_library_that_is_not_installed_has_version_none(monkeypatch):
    monkeypatch.setattr(fingerprint, "LIBRARIES", ("numpy", "no-such-library-of-anyone"))
    versions = fingerprint.current("cpu", "fp32").versions
    assert versions["no-such-library-of-anyone"] == "none"
    assert versions["numpy"] != "none"


def test_runs_of_two_environments_are_not_mixed_unless_allowed(study, run):
    other = fakes.add(study, fakes.spec(seed=1), [1], OTHER)
    with pytest.raises(DataError, match=r"\(torch 2\.12\.0 → 2\.13\.0\): use --allow-mixed"):
        refuse_mixed([run, other], study.folder)
    refuse_mixed([run, other], study.folder, allow_mixed=True)
    refuse_mixed([run, run], study.folder)
    refuse_mixed([], study.folder)


def test_points_have_the_columns_of_the_design(run):
    assert ", ".join(COLUMNS) == (
        "study, model, model_parameters, family, task, protocol, method, adapter, trained_parameters, "
        "storage_dtype, update_bytes, learning_rate, seed, split, n_items, n_correct, accuracy, "
        "samples_per_item, demonstrations, run, cell, recipe, items, answers"
    )
    assert tuple(points("s", [run])[0]) == COLUMNS + COSTS


def test_points_of_a_trained_run(run):
    assert points("mine", [run]) == [
        {
            "study": "mine",
            "model": "abacus-0.9m",
            "model_parameters": 861952,
            "family": "abacus",
            "task": "abacus",
            "protocol": "T1-k1-n24-s0",
            "method": "sft",
            "adapter": "tinylora",
            "trained_parameters": 13,
            "storage_dtype": "bf16",
            "update_bytes": 26,
            "learning_rate": 0.01,
            "seed": 0,
            "split": "test",
            "n_items": 4,
            "n_correct": 3,
            "accuracy": 0.75,
            "samples_per_item": 1,
            "demonstrations": "worked&style_bits=4&style_shift=4",
            "run": run.folder.name,
            "cell": cell_of(run.spec).identity,
            "recipe": canonical_json(cell_of(fakes.spec(seed=5)).recipe),
            "items": run.answers.items_digest,
            "answers": base64.b64encode(bytes([0b10110000])).decode(),
            "prompts": 6,
            "sequences": 24,
            "sampled_tokens": 0,
            "trained_tokens": 240,
            "flops": 1e9,
            "preparation_flops": 0,
            "wall_seconds": 2.0,
            "worker_peak_memory_bytes": 10**9,
        }
    ]


def test_points_say_which_demonstrations_a_method_saw(study):
    unseen = [fakes.add(study, fakes.spec(m), [1]) for m in ("grpo", "rft", "rft-online", "random-reward", "base")]
    assert {row["demonstrations"] for row in points("s", unseen)} == {"none"}
    (row,) = points("s", [fakes.add(study, fakes.spec("sft+grpo"), [1])])
    assert row["demonstrations"] == "worked&style_bits=4&style_shift=4"


def test_costs_that_an_older_run_did_not_count_are_empty(study):
    spec = fakes.spec()
    counted = fakes.result(spec, [1]).model_dump()
    del counted["sampled_tokens"]
    run = study.read(study.add(spec, fakes.FINGERPRINT, Result.model_validate(counted), [], fakes.outcomes([1]), None))
    (row,) = csv.DictReader(io.StringIO(to_csv(points("s", [run]))))
    assert row["sampled_tokens"] == ""


def test_csv_reads_back_with_absent_values_empty(study, run):
    base = fakes.add(study, fakes.spec("base", temperature=0.25), [1, 0, 0, 0])
    rows = list(csv.DictReader(io.StringIO(to_csv(points("s", [run, base])))))
    assert [row["learning_rate"] for row in rows] == ["0.01", ""]
    assert [row["protocol"] for row in rows] == ["T1-k1-n24-s0", "T0.25-k1-n24-s0"]
    assert [float(row["accuracy"]) for row in rows] == [0.75, 0.25]
    assert tuple(rows[0]) == COLUMNS + COSTS


def test_csv_of_no_runs_is_its_header():
    assert to_csv([]) == ",".join(COLUMNS + COSTS) + "\n"


def test_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "table.json"
    files.write_atomically(path, "old")
    files.write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]


def test_line_that_is_not_json_is_named_by_its_number(tmp_path):
    path = tmp_path / "outcomes.jsonl"
    path.write_text('{"item": "a", "correct": [1]}\n{"item":\n')
    with pytest.raises(DataError, match=r"outcomes\.jsonl: line 2 is not JSON"):
        files.read_records(path, Outcome)
