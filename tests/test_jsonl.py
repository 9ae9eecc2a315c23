"""The user's own problems: schema, splits, comparison."""

import json
from pathlib import Path

import numpy as np
import pytest

from capacity.errors import DataError, SpecError
from capacity.plan.protocols import PROTOCOLS
from capacity.tasks.catalog import open_task, parse_task
from capacity.tasks.data_sets import WordTask


def opened(text: str) -> WordTask:
    task = open_task(parse_task(text))
    assert isinstance(task, WordTask)
    return task


def written(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def sums(count: int) -> list[dict[str, object]]:
    return [{"prompt": f"{i}+{i + 1}=", "answer": 2 * i + 1} for i in range(count)]


def test_one_file_is_divided_by_its_problems(tmp_path: Path) -> None:
    file = written(tmp_path / "own.jsonl", sums(1000))
    task = opened(f"jsonl:{file}?compare=number")
    sizes = {split: task.available(split) for split in ("train", "validation", "test")}  # type: ignore[arg-type]
    assert sum(s for s in sizes.values() if s) == 1000
    assert 150 < (sizes["test"] or 0) < 250
    assert 35 < (sizes["validation"] or 0) < 95
    longer = opened(f"jsonl:{written(tmp_path / 'longer.jsonl', sums(1001))}?compare=number")
    prompts = {i.prompt for i in task.items("test")}
    assert prompts <= {i.prompt for i in longer.items("test")}  # a new row moves no other


def test_rows_may_name_their_split(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{**row, "split": "test" if i < 9 else "train"} for i, row in enumerate(sums(200))]
    task = opened(f"jsonl:{written(tmp_path / 'own.jsonl', rows)}")
    assert [i.prompt for i in task.items("test")] == [row["prompt"] for row in rows[:9]]
    assert task.items("validation")
    rows[3] = {"prompt": "p", "answer": "a"}
    with pytest.raises(DataError, match=r'line 4: "split" is None: train, validation or test, in all rows or in none'):
        parse_task(f"jsonl:{written(tmp_path / 'own.jsonl', rows)}")


def test_a_folder_has_a_file_for_each_split(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("validation", 50), ("test", 80)):
        written(tmp_path / f"{split}.jsonl", sums(100)[first : first + 20])
    task = opened(f"jsonl:{tmp_path}")
    sizes = [len(task.items(s)) for s in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert sizes == [20, 20, 20]


def test_prompts_go_as_they_are_and_answers_are_the_demonstrations(tmp_path: Path) -> None:
    task = opened(f"jsonl:{written(tmp_path / 'own.jsonl', sums(100))}")
    item = task.items("train", 1)[0]
    assert item.messages == ()
    assert item.prompt.endswith("=")
    assert task.demonstrations(item, 2, np.random.default_rng(0)) == [item.answer] * 2
    assert task.grade(item, f" {item.answer}\n")
    assert not task.grade(item, f"{item.answer}.0")
    number = opened(f"jsonl:{tmp_path / 'own.jsonl'}?compare=number")
    assert number.grade(item, f"{item.answer}.0")


def test_solutions_are_learnt_from_and_ids_are_kept(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": f"sum-{i}", "question": f"Q{i}", "answer": "7", "solution": ["3+4=7", "4+3=7"]} for i in range(60)
    ]
    task = opened(f"jsonl:{written(tmp_path / 'own.jsonl', rows)}?template=hash&compare=number")
    assert task.style == "solutions"
    item = task.items("train", 1)[0]
    assert item.id.startswith("sum-")
    shown = task.demonstrations(item, 2, np.random.default_rng(0))
    assert sorted(shown) == ["3+4=7\n#### 7", "4+3=7\n#### 7"]
    assert all(task.grade(item, text) for text in shown)


def test_the_protocol_takes_a_small_split_whole(tmp_path: Path) -> None:
    task = opened(f"jsonl:{written(tmp_path / 'own.jsonl', sums(100))}")
    assert PROTOCOLS["jsonl"].evaluation(task).items == task.available("test")
    assert PROTOCOLS["jsonl"].evaluation(task, validation=True).items == task.available("validation")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "p"}, "line 2: no answer; it has prompt"),
        ({"answer": "a"}, "line 2: no prompt or problem or question; it has answer"),
        ({"prompt": "p", "answer": "a", "solution": 5}, 'line 2: "solution" is neither text nor a list of texts'),
        ({"prompt": "p", "answer": "a", "solution": [""]}, 'line 2: "solution" is neither text nor a list of texts'),
        ({"prompt": "p", "answer": True}, 'line 2: "answer" is no text but bool'),
        ({"prompt": "p", "answer": "a", "id": "row-0"}, "line 2: the id 'row-0' is there twice"),
    ],
)
def test_a_row_of_another_schema_is_named(tmp_path: Path, record: dict[str, object], message: str) -> None:
    file = written(tmp_path / "own.jsonl", [{"prompt": "q", "answer": "b"}, record])
    with pytest.raises(DataError, match=message):
        parse_task(f"jsonl:{file}")


def test_no_file_no_rows_no_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: cannot be read"):
        parse_task(f"jsonl:{tmp_path / 'absent.jsonl'}")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=r"empty\.jsonl: no rows"):
        parse_task(f"jsonl:{tmp_path / 'empty.jsonl'}")
    with pytest.raises(SpecError, match="task jsonl needs a file or a folder: jsonl:PATH"):
        parse_task("jsonl")
    with pytest.raises(SpecError, match="gsm8k takes no name behind a colon"):
        parse_task("gsm8k:main")
