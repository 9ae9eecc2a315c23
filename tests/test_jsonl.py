"""The user's own problems: schema, splits, comparison."""

import json
from pathlib import Path

import numpy as np
import pytest

from capacity.errors import DataError, SpecError
from capacity.plan.protocols import PROTOCOLS
from capacity.tasks.catalog import open_task, parse_task
from capacity.tasks.data_sets import WordTask
from capacity.tasks.rows import Row, keep


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
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file"):
        parse_task(f"jsonl:{tmp_path / 'absent.jsonl'}")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=r"empty\.jsonl: no rows"):
        parse_task(f"jsonl:{tmp_path / 'empty.jsonl'}")
    with pytest.raises(SpecError, match="task jsonl needs a file or a folder: jsonl:PATH"):
        parse_task("jsonl")
    with pytest.raises(SpecError, match="gsm8k takes no name behind a colon"):
        parse_task("gsm8k:main")


NUMBER = "template=hash&compare=number"


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        ("", '{"prompt": "p", "answer": NaN}', 'line 2: "answer" is nan, which is no value of JSON$'),
        (NUMBER, '{"prompt": "p", "answer": NaN}', 'line 2: "answer" is nan, which is no value of JSON$'),
        (NUMBER, '{"prompt": "p", "answer": -Infinity}', 'line 2: "answer" is -inf, which is no value of JSON$'),
        ("", '{"prompt": "p", "answer": "nan"}', "line 2: the answer is 'nan', which marks a missing value$"),
        ("", '{"prompt": "p", "answer": 2.50}', "line 2: the answer 2.50 is a number, and compare=text"),
        ("", '{"prompt": "p", "answer": 1e22}', r"line 2: the answer 1E\+22 is a number, and compare=text"),
        (NUMBER, '{"prompt": "p", "answer": "about 3"}',
         "line 2: the answer 'about 3' is no number, and compare=number"),
        (NUMBER, '{"prompt": "p", "answer": "2,5"}', "line 2: the answer '2,5' is no number, and compare=number"),
        ("template=hash", '{"prompt": "p", "answer": "a\\nb"}',
         r"line 2: the answer 'a\\nb' cannot stand on the line after "),
        ("template=boxed", '{"prompt": "p", "answer": "}{"}', r"line 2: the answer '}{' cannot stand in \\boxed{…}$"),
        ("compare=latex&template=boxed", '{"prompt": "p", "answer": "$ $"}',
         "line 2: the answer '\\$ \\$' cannot stand in "),
        ("", '{"prompt": "p", "answer": "5<eos>"}', "line 2: the answer holds '<eos>', which ends a sequence"),
        (NUMBER, '{"prompt": "p", "answer": "5", "solution": "so</s> 5"}',
         "line 2: a solution holds '</s>', which ends"),
        (NUMBER, '{"prompt": "p", "answer": 5, "solution": "x<|im_end|>"}',
         r"line 2: a solution holds '<\|im_end\|>', which"),
        (NUMBER, '{"prompt": "p", "answer": 5, "solution": "#### 6"}',
         "line 2: a solution states '6', and the answer is '5'$"),
        ("", '{"prompt": " What\\n is q? ", "answer": "c"}',
         "line 2: the same problem as line 1, with another answer: 'b' and 'c'"),
        ("", '{"prompt": "half \\ud835", "answer": "c"}', r'line 2: "prompt" holds half a character, \\ud835'),
        ("", '{"prompt": "p", "answer": "\\udfff"}', r'line 2: "answer" holds half a character, \\udfff: '),
        ("", '{"prompt": "p", "answer": "c", "solution": "\\udc00"}',
         r'line 2: "solution" holds half a character, \\udc00: '),
        ("", '{"prompt": "p", "answer": "c", "id": "\\udc00"}', r'line 2: "id" holds half a character, \\udc00: '),
        ("", "[" * 100_000, "line 2: its JSON is nested too deeply to be read$"),
        ("", '{"a":' * 100_000, "line 2: its JSON is nested too deeply to be read$"),
    ],
)  # fmt: skip
def test_rows_that_no_completion_meets_are_refused_with_their_line(
    tmp_path: Path, options: str, line: str, message: str
) -> None:
    answer = "1" if "number" in options else "b"
    file = tmp_path / "own.jsonl"
    file.write_text(f'{{"prompt": "What is q?", "answer": "{answer}"}}\n{line}\n')
    with pytest.raises(DataError, match=message):
        parse_task(f"jsonl:{file}?{options}")


def test_all_faulty_rows_are_named(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"p{i}", "answer": "x" if i % 2 else i} for i in range(30)]
    file = written(tmp_path / "own.jsonl", rows)
    lines = "lines 2, 4, 6, 8, 10, 12, 14, 16, …"
    with pytest.raises(
        DataError, match=rf"line 2: the answer 'x' is no number.* \(the first of 15 faulty rows: {lines}\)$"
    ):
        parse_task(f"jsonl:{file}?compare=number")


def test_the_same_problem_with_the_same_answer_is_no_contradiction(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": "p", "answer": a, "split": "test"} for a in ("1/2", "0.5", "½")]
    assert len(opened(f"jsonl:{written(tmp_path / 'own.jsonl', rows)}?compare=number").items("test")) == 3
    with pytest.raises(DataError, match=r"line 2: the same problem as line 1, with another answer: '1/2' and '0.5'"):
        parse_task(f"jsonl:{tmp_path / 'own.jsonl'}?compare=text")


def test_a_solution_states_its_answer_once(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"prompt": f"p{i}", "answer": "1000", "solution": s, "split": "train"}
        for i, s in enumerate(["200*5\n#### 1,000", "200*5", "200*5\n#### $1000.00"])
    ]
    rows.append({"prompt": "q", "answer": "1", "solution": "1", "split": "test"})
    rows.append({"prompt": "r", "answer": "1", "solution": "1", "split": "validation"})
    task = opened(f"jsonl:{written(tmp_path / 'own.jsonl', rows)}?{NUMBER}")
    shown = [task.demonstrations(item, 1, np.random.default_rng(0))[0] for item in task.items("train")]
    assert shown == ["200*5\n#### 1,000", "200*5\n#### 1000", "200*5\n#### $1000.00"]
    assert all(task.grade_strict(item, text) for item, text in zip(task.items("train"), shown, strict=True))


def test_solutions_that_are_not_demonstrated_may_say_anything(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"p{i}", "answer": i, "solution": "#### 7</s>"} for i in range(9)]
    file = written(tmp_path / "own.jsonl", rows)
    assert parse_task(f"jsonl:{file}?{NUMBER}&demonstrations=answers").demonstrations == "answers"
    with pytest.raises(DataError, match=r"line 1: a solution holds '</s>'"):
        parse_task(f"jsonl:{file}?{NUMBER}")


def test_kept_rows_are_checked_against_another_comparison(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"p{i}", "answer": f"word {i}"} for i in range(40)]
    spec = parse_task(f"jsonl:{written(tmp_path / 'own.jsonl', rows)}")
    other = open_task(parse_task(f"jsonl?data={spec.options['data']}&compare=number"))
    with pytest.raises(DataError, match=r"^task jsonl: item row-[0-9]+: the answer 'word [0-9]+' is no number"):
        other.items("test")


def test_files_that_count_their_ids_from_zero_keep_their_own_solutions(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("validation", 50), ("test", 80)):
        rows: list[dict[str, object]] = []
        for i in range(20):
            answer = first + i
            rows.append(
                {"id": i, "prompt": f"{answer}+0=", "answer": answer, "solution": f"{split} {i}\n#### {answer}"}
            )
        rows[3] |= {"id": f"{split} alone"}
        written(tmp_path / f"{split}.jsonl", rows)
    task = opened(f"jsonl:{tmp_path}?template=hash&compare=number")
    for split in ("train", "validation", "test"):
        items = task.items(split)  # type: ignore[arg-type]
        assert [item.id for item in items[2:5]] == [f"{split}-2", f"{split} alone", f"{split}-4"]
        assert all(task.different_demonstrations(item)[0].startswith(f"{split} ") for item in items)


def test_ids_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    for split, ids in (("train", ["1", "test-1"]), ("test", ["1", "2"])):
        rows = [{"id": name, "prompt": f"{split} {name}", "answer": "a"} for name in ids]
        written(tmp_path / f"{split}.jsonl", rows)
    with pytest.raises(DataError, match=r"^the rows: the id 'test-1' occurs twice, in train and in test: rename one$"):
        parse_task(f"jsonl:{tmp_path}")


def test_rows_that_an_earlier_version_kept_with_one_id_in_two_splits_are_refused() -> None:
    digest = keep({split: (Row("0", f"problem of {split}", "a"),) for split in ("train", "validation", "test")})
    with pytest.raises(DataError, match="task jsonl: the id '0' occurs twice, in train and in validation: rename one"):
        open_task(parse_task(f"jsonl?data={digest}")).items("test")


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "p", "answer": 0.30000000000000000001, "split": "test"}\n')
    item = opened(f"jsonl:{file}?compare=number").items("test")[0]
    assert item.answer == "0.30000000000000000001"
