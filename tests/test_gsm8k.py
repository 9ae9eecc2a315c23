"""GSM8K from local files: schema, splits, demonstrations. On the real files if CAPACITY_DATA names their folder."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from capacity.cache import cache_folder
from capacity.errors import DataError, SpecError
from capacity.spec.parts import TaskSpec
from capacity.tasks.catalog import open_task, parse_task
from capacity.tasks.data_sets import WordTask

DATA = os.environ.get("CAPACITY_DATA")
STEPS = "She has 3 + 4 = <<3+4=7>>7 apples.\nShe sells 2 and keeps 7 - 2 = <<7-2=5>>5."


def rows(count: int, first: int = 0) -> str:
    made = (
        {"question": f"Ann has {i} apples and buys {i + 1}. How many?", "answer": f"{STEPS}\n#### {2 * i + 1:,}"}
        for i in range(first, first + count)
    )
    return "".join(json.dumps(row) + "\n" for row in made)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").write_text(rows(300))
    (tmp_path / "test.jsonl").write_text(rows(40, first=290))  # ten of them stand in train, too
    return tmp_path


def opened(text: str) -> WordTask:
    task = open_task(parse_task(text))
    assert isinstance(task, WordTask)
    return task


def test_no_split_shares_a_problem_and_validation_comes_from_train(folder: Path) -> None:
    task = opened(f"gsm8k?path={folder}")
    splits = {s: {i.prompt for i in task.items(s)} for s in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert len(splits["test"]) == 40
    assert len(splits["train"]) + len(splits["validation"]) == 290
    assert 5 <= len(splits["validation"]) <= 40
    assert not splits["train"] & splits["test"]
    assert not splits["validation"] & (splits["train"] | splits["test"])
    assert task.available("test") == 40


def test_the_same_rows_are_the_same_task_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    for file in ("train.jsonl", "test.jsonl"):
        (folder / file).rename(other / file)
    first = parse_task(f"gsm8k?path={other}")
    second = parse_task(f"gsm8k?train={other}/train.jsonl&test={other}/test.jsonl")
    assert first == second
    assert str(tmp_path) not in first.label
    for file in other.iterdir():
        file.unlink()
    assert len(open_task(parse_task(first.label)).items("test")) == 40  # from the cache


def test_parquet_reads_as_jsonl(folder: Path, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    other = tmp_path / "parquet"
    other.mkdir()
    for split in ("train", "test"):
        records = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        parquet.write_table(pyarrow.Table.from_pylist(records), other / f"{split}.parquet")
    assert parse_task(f"gsm8k?path={other}") == parse_task(f"gsm8k?path={folder}")


@pytest.mark.parametrize("template", ["hash", "boxed", "question"])
@pytest.mark.parametrize("style", ["solutions", "answers"])
def test_demonstrations_are_right_in_every_template(folder: Path, template: str, style: str) -> None:
    task = opened(f"gsm8k?path={folder}&template={template}&demonstrations={style}")
    rng = np.random.default_rng(0)
    for item in task.items("train", 20):
        first, second = task.demonstrations(item, 2, rng)
        assert first == second  # there is one, and it is repeated
        assert task.grade_strict(item, first)
        assert "<<" not in first
        assert ("3 + 4 = 7 apples" in first) is (style == "solutions")


def test_the_spec_records_what_decides_results(folder: Path) -> None:
    spec = parse_task(f"gsm8k?path={folder}&template=boxed&grading=lenient&max_new_tokens=64")
    assert spec.options == {
        "template": "boxed", "chat": "model", "grading": "lenient", "compare": "number", "max_new_tokens": 64.0,
        "data": spec.options["data"],
    }  # fmt: skip
    assert spec.demonstrations == "solutions"
    assert parse_task(spec.label) == spec
    task = opened(spec.label)
    item = task.items("test", 1)[0]
    assert task.max_new_tokens == 64
    assert task.grade(item, f"It is {item.answer}.")
    assert not task.grade_strict(item, f"It is {item.answer}.")


def test_a_method_without_demonstrations_keeps_the_other_options(folder: Path) -> None:
    spec = parse_task(f"gsm8k?path={folder}&template=boxed").unseen()
    assert spec.demonstrations == "none"
    assert spec.options["template"] == "boxed"
    assert opened(spec.label).items("test", 1)[0].messages[1][1].endswith("\\boxed{}.")


def test_without_files_it_is_the_pinned_data_set() -> None:
    spec = parse_task("gsm8k")
    assert "data" not in spec.options
    assert opened("gsm8k").available("test") == 1319


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2: not JSON: "),
        ("[1]", r"line 2: not a JSON object"),
        ('{"question": "Q"}', r"line 2: no answer; it has question"),
        ('{"question": "Q", "answer": "five"}', r'line 2: "answer" does not end in "#### NUMBER"'),
        ('{"question": "", "answer": "#### 5"}', r'line 2: "question" is empty'),
        ('{"question": ["Q"], "answer": "#### 5"}', r'line 2: "question" is no text but list'),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(folder: Path, line: str, message: str) -> None:
    (folder / "train.jsonl").write_text(rows(1) + line + "\n")
    with pytest.raises(DataError, match=rf"train\.jsonl, {message}"):
        parse_task(f"gsm8k?path={folder}")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ("path=/nowhere", DataError, "/nowhere: no such folder"),
        ("train=/nowhere.jsonl", DataError, r"/nowhere\.jsonl: no such file"),
        ("train=/nowhere.csv", DataError, "neither a .jsonl nor a .parquet file"),
        ("tempalte=hash", SpecError, "unknown option of task gsm8k 'tempalte': did you mean template"),
        ("template=hush", SpecError, "unknown template 'hush': did you mean hash"),
        ("max_new_tokens=0", SpecError, "max_new_tokens=0 is no whole number above 0"),
        ("grading=soft", SpecError, "unknown grading 'soft'"),
        ("demonstrations=worked", SpecError, "unknown demonstrations 'worked'"),
        ("data=0123456789abcdef", DataError, "is not in the cache"),
        ("path=a&data=0123456789abcdef", SpecError, "cannot be given together"),
        ("path=a&test=b", SpecError, "cannot be given together"),
    ],
)
def test_wrong_options(options: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_task(parse_task(f"gsm8k?{options}"))


def test_too_many_items_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="test has 40 items, 41 were asked for"):
        opened(f"gsm8k?path={folder}").items("test", 41)


def test_damaged_cache_is_noticed(folder: Path) -> None:
    from capacity.tasks import rows as module

    (folder / "test.jsonl").write_text(rows(7, first=5000))
    spec = parse_task(f"gsm8k?path={folder}")
    path = cache_folder("data") / f"{spec.options['data']}.jsonl"
    path.write_text(path.read_text().replace("apples", "pears"))
    module.kept.cache_clear()
    with pytest.raises(DataError, match="damaged: delete it"):
        open_task(TaskSpec.model_validate(spec.model_dump()))


@pytest.mark.skipif(not DATA, reason="CAPACITY_DATA names the folder of the real files")
def test_all_references_of_the_real_files_are_graded_right() -> None:
    task = opened(f"gsm8k?path={DATA}/gsm8k")
    splits = {s: task.items(s) for s in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert {s: len(items) for s, items in splits.items()} == {"train": 7012, "validation": 461, "test": 1319}
    rng = np.random.default_rng(0)
    shown = {s: [(i, task.demonstrations(i, 1, rng)[0]) for i in items] for s, items in splits.items()}
    began = time.process_time()
    assert all(task.grade_strict(item, text) for pairs in shown.values() for item, text in pairs)
    assert time.process_time() - began < 5
