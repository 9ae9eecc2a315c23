"""Items that a study keeps are those that its runs were asked, and a study without them is complete."""

from pathlib import Path

import fakes
import pytest
from test_full_disk import Disk, disk  # noqa: F401

from capacity.errors import DataError
from capacity.runs.items import ItemText, digest_of, read_items, write_items
from capacity.spec.run import RunSpec
from capacity.studies.finished import add_finished, adopt_kept
from capacity.tasks.catalog import open_task
from capacity.training.run import RunRecord, execute

ITEMS = (
    ItemText(id="test-0", prompt="2+3=", answer="5"),
    ItemText(id="test-1", prompt="", answer="π", messages=(("user", "first"), ("user", "second"))),
)


def test_a_run_keeps_the_items_of_its_digest(tmp_path: Path) -> None:
    raw = fakes.raw_spec("base", items=3) | {"model": "abacus-0.2m"}
    spec = RunSpec.model_validate(raw)
    record = execute(spec, "cpu")
    study = fakes.study_in(tmp_path)
    add_finished(study, spec, fakes.FINGERPRINT, record, lambda _: None)
    kept = read_items(study.folder, record.result.items_digest)
    assert [(i.id, i.prompt, i.answer) for i in kept.values()] == [
        (i.id, i.prompt, i.answer) for i in open_task(spec.task).items("test", 3)
    ]
    assert list(kept) == [outcome.item for outcome in record.outcomes]
    assert [path.name for path in (study.folder / "items").iterdir()] == [f"{record.result.items_digest}.jsonl"]


def test_items_are_written_once_and_read_as_they_were(tmp_path: Path) -> None:
    path = write_items(tmp_path, ITEMS)
    before = path.stat().st_mtime_ns
    assert write_items(tmp_path, ITEMS) == path
    assert path.stat().st_mtime_ns == before
    assert read_items(tmp_path, digest_of(ITEMS)) == {item.id: item for item in ITEMS}
    assert [item.asked for item in ITEMS] == ["2+3=", "first\nsecond"]


def test_a_study_of_an_older_version_has_no_items(tmp_path: Path) -> None:
    assert read_items(tmp_path, digest_of(ITEMS)) == {}
    assert read_items(tmp_path, "") == {}


def test_items_that_were_changed_are_refused(tmp_path: Path) -> None:
    path = write_items(tmp_path, ITEMS)
    path.write_text(path.read_text().replace("2+3=", "2+4="))
    with pytest.raises(DataError, match="its items are not those that its name says: remove it"):
        read_items(tmp_path, digest_of(ITEMS))


def test_a_kept_run_brings_its_items(tmp_path: Path, disk: Disk) -> None:  # noqa: F811
    study, spec = fakes.study_in(tmp_path), fakes.spec("sft")
    result = fakes.result(spec, [1, 0], items_digest=digest_of(ITEMS))
    record = RunRecord(result, [], fakes.outcomes([1, 0]), b"theta", ITEMS)
    disk.full = [study.folder]
    with pytest.raises(DataError, match="is kept in"):
        add_finished(study, spec, fakes.FINGERPRINT, record, lambda _: None)
    disk.full = []
    adopt_kept(study, [spec], fakes.FINGERPRINT)
    assert list(read_items(study.folder, digest_of(ITEMS))) == ["test-0", "test-1"]
