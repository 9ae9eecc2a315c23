"""`capacity tasks`: what it says of a task, of its references and of faulty rows, and how it ends."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from in_process import Done, capacity

from capacity.errors import DataError
from capacity.library.tasks import task_facts


def tasks(*arguments: str) -> Done:
    return capacity(Path(), "tasks", *arguments)


def written(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_grading_ends_with_zero_where_all_is_right(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "answer": str(1000 + i), "solution": f"x\n#### {1000 + i:,}"} for i in range(30)]
    done = tasks(f"jsonl:{written(tmp_path / 'own.jsonl', *rows)}?template=hash&compare=number", "--grade", "--json")
    assert (done.code, done.err) == (0, "")
    graded = json.loads(done.out)["graded"]
    assert sum(part["references"] for part in graded.values()) == 30
    assert all(part["references_wrong"] == part["demonstrations_wrong"] == [] for part in graded.values())


def test_grading_ends_with_an_error_where_something_is_wrong(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "answer": "5", "solution": "It is 5", "split": "train"} for i in range(30)]
    rows.append({"prompt": "T", "answer": "6", "solution": "6", "split": "test"})
    file = written(tmp_path / "own.jsonl", *rows)
    done = tasks(f"jsonl:{file}?compare=text", "--grade")  # the whole completion is compared with the answer
    assert done.code == 1
    assert "demonstrations_wrong" in done.out
    assert done.err.startswith("capacity: task jsonl: train: ")
    assert " demonstrations graded wrong, such as row-" in done.err
    assert done.err.count("\n") == 1
    assert tasks(f"jsonl:{file}?compare=text").code == 0  # it was not asked to grade


def test_references_that_are_graded_wrong_are_an_error() -> None:
    facts = task_facts("abacus", grade=True)
    facts.check()
    counts = {"references": 9, "references_wrong": ["a", "b"], "demonstrations_wrong": []}
    with pytest.raises(DataError, match=r"^task abacus: test: 2 references graded wrong, such as a$"):
        replace(facts, graded={"test": counts}).check()
    with pytest.raises(DataError, match=r"^task abacus: its references were not graded$"):
        replace(facts, graded=None).check()


def test_faulty_files_end_in_one_line(tmp_path: Path) -> None:
    for name, text in {
        "half": '{"prompt": "half \\ud835", "answer": "4"}\n',
        "deep": "[" * 100_000 + "\n",
        "missing": '{"prompt": "p", "answer": NaN}\n',
    }.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text(text)
        done = tasks(f"jsonl:{file}")
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"capacity: {file}, line 1: ")
        assert done.err.count("\n") == 1


def test_rows_that_are_left_out_are_said_in_one_line(tmp_path: Path) -> None:
    """By a process of its own, because pytest keeps warnings of this one."""
    file = written(tmp_path / "test.jsonl", {"question": "P", "answer": "5"}, {"question": "Q", "answer": ""})
    command = [sys.executable, "-m", "capacity_cli", "tasks", f"gaokao2023en?path={file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    why = "left out because they were published without an answer: 1 of 2 rows (line 2)"
    assert done.stderr == f"capacity: {file}: {why}\n"
