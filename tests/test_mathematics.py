"""MATH and the evaluation sets from local files; on the real files if CAPACITY_DATA names their folder."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from capacity.errors import DataError, DataWarning, SpecError
from capacity.plan.protocols import PROTOCOLS
from capacity.tasks import hub
from capacity.tasks.catalog import DATA_SETS, open_task, parse_task
from capacity.tasks.data_sets import WordTask
from capacity.tasks.grading import answers
from capacity.tasks.grading.verifier import verifier
from capacity.tasks.mathematics import MATHEMATICS, read_row

DATA = os.environ.get("CAPACITY_DATA")


def opened(text: str) -> WordTask:
    task = open_task(parse_task(text))
    assert isinstance(task, WordTask)
    return task


def written(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    ("record", "problem", "answer", "solutions"),
    [
        ({"problem": "P", "answer": "5", "solution": "So 5."}, "P", "5", 1),
        ({"problem": "P", "solution": r"It is $\boxed{\frac12}$."}, "P", r"\frac12", 1),
        ({"question": "P", "final_answer": ["$2$"], "solution": ["a", "b"], "context": "C"}, "C\nP", "2", 2),
        ({"question": "P", "final_answer": ["$1$, $2$"]}, "P", "$1$, $2$", 0),
        ({"extra_info": {"question": "P"}, "reward_model": {"ground_truth": "7"}}, "P", "7", 0),
        ({"problem": "P", "answer": 204}, "P", "204", 0),
    ],
)
def test_rows_of_every_source(record: dict[str, object], problem: str, answer: str, solutions: int) -> None:
    row = read_row(record, 0)
    assert (row.problem, row.answer, len(row.solutions)) == (problem, answer, solutions)


def test_a_row_without_answer_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "test.jsonl", {"problem": "P", "solution": "no box"})
    with pytest.raises(DataError, match=r"test\.jsonl, line 1: no answer or final_answer"):
        parse_task(f"aime24?path={file}")


def test_rows_that_were_published_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"question": f"Q{i}", "answer": "" if i in (3, 7) else f"${i}$"} for i in range(10)]
    file = written(tmp_path / "test.jsonl", *rows)
    counted = rf"^{file}: left out because they were published without an answer: 2 of 10 rows \(lines 4, 8\)$"
    with pytest.warns(DataWarning, match=counted):
        task = opened(f"gaokao2023en?path={file}")
    assert [item.id for item in task.items("test")] == [f"test-{i}" for i in range(10) if i not in (3, 7)]
    with pytest.raises(DataError, match='line 4: "answer" is empty'):  # other sets have no such rows
        parse_task(f"minerva_math?path={file}")
    assert DATA_SETS["gaokao2023en"].sizes["test"] == 385 - 2
    assert "2 more were published without an answer" in DATA_SETS["gaokao2023en"].about


def test_problems_that_were_published_twice_are_kept(tmp_path: Path) -> None:
    file = written(tmp_path / "test.jsonl", {"question": "Q", "answer": "$1$"}, {"question": "Q", "answer": "$2$"})
    assert len(opened(f"college_math?path={file}").items("test")) == 2
    with pytest.raises(DataError, match="line 2: the same problem as line 1, with another answer: '1' and '2'"):
        parse_task(f"aime24?path={file}")


@pytest.mark.parametrize("name", [n for n in MATHEMATICS if n != "math"])
def test_evaluation_sets_have_a_test_split_only(name: str, tmp_path: Path) -> None:
    written(tmp_path / "test.jsonl", {"problem": "P", "answer": "5"})
    task = opened(f"{name}?path={tmp_path}")
    assert not task.has_demonstrations
    assert [item.answer for item in task.items("test")] == ["5"]
    with pytest.raises(DataError, match=f"task {name} has no train split"):
        task.items("train")
    with pytest.raises(SpecError, match=f"task {name} has no solutions to demonstrate: choose from none"):
        parse_task(f"{name}?demonstrations=solutions")
    assert PROTOCOLS[name].evaluation(task).items == 1
    assert PROTOCOLS[name].evaluation(opened(name)).items == DATA_SETS[name].sizes["test"]


def test_math_learns_from_solutions_where_the_file_has_them(tmp_path: Path) -> None:
    written(tmp_path / "test.jsonl", {"problem": "T", "answer": "1"})
    with_box = ({"problem": f"P{i}", "solution": f"Clearly $\\boxed{{{i}}}$."} for i in range(40))
    written(tmp_path / "train.jsonl", *with_box)
    task = opened(f"math?path={tmp_path}")
    item = task.items("train", 1)[0]
    (shown,) = task.demonstrations(item, 1, np.random.default_rng(0))
    assert shown.startswith("Clearly $")
    assert shown.count("boxed") == 1
    without = ({"problem": f"P{i}", "answer": str(i)} for i in range(40))
    written(tmp_path / "train.jsonl", *without)
    bare = opened(f"math?path={tmp_path}")
    assert bare.style == "answers"
    assert bare.demonstrations(item, 1, np.random.default_rng(0)) == [f"\\boxed{{{item.answer}}}"]


def test_several_solutions_are_dealt_in_turn(tmp_path: Path) -> None:
    written(tmp_path / "test.jsonl", {"problem": "T", "answer": "1"})
    rows = ({"problem": f"P{i}", "answer": "3", "solution": ["a", "b"]} for i in range(40))
    written(tmp_path / "train.jsonl", *rows)
    task = opened(f"math?path={tmp_path}")
    shown = task.demonstrations(task.items("train", 1)[0], 4, np.random.default_rng(0))
    assert sorted(shown) == ["a\n\\boxed{3}"] * 2 + ["b\n\\boxed{3}"] * 2


def test_every_public_file_is_pinned_to_a_commit() -> None:
    unpinned = {
        (name, split)
        for name, data in DATA_SETS.items()
        for split, file in data.files.items()
        if not (len(file.revision) == 40 and set(file.revision) <= set("0123456789abcdef"))
    }
    assert unpinned == {("math", "train")}  # no commit of that repository is known here; revision= gives one


def test_without_a_network_the_file_and_its_place_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        DataError,
        match=r"^aime24 \(test\) is not in the cache .*download https://raw\.github.* to /.*, or name a folder",
    ):
        opened("aime24").items("test")


def test_a_fetched_file_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = written(tmp_path / "source.jsonl", {"problem": "P", "answer": "5"})
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(hub.GitFile, "url", source.as_uri())
    task = opened("amc23?revision=0123abcd")
    assert task.available("test") is None
    assert task.items("test")[0].prompt.endswith("\\boxed{}.\n")
    source.unlink()
    from capacity.tasks import data_sets

    data_sets._read_fetched.cache_clear()
    assert len(opened("amc23?revision=0123abcd").items("test")) == 1


@pytest.mark.skipif(not DATA, reason="CAPACITY_DATA names the folder of the real files")
@pytest.mark.filterwarnings("ignore::capacity.errors.DataWarning")
@pytest.mark.parametrize("name", [n for n in MATHEMATICS if n != "math"])
def test_published_sets_load_with_all_their_problems(name: str) -> None:
    if not (Path(str(DATA)) / name).is_dir():
        pytest.skip(f"the folder of the real files has no {name}")
    assert len(opened(f"{name}?path={DATA}/{name}").items("test")) == DATA_SETS[name].sizes["test"]


@pytest.mark.skipif(not DATA, reason="CAPACITY_DATA names the folder of the real files")
@pytest.mark.parametrize(("name", "size"), [("aime24", 30), ("olympiadbench", 675), ("math500", 500)])
def test_all_references_of_the_real_files_are_graded_right(name: str, size: int) -> None:
    """By math-verify itself, without the quick yes for answers that are written alike."""
    pytest.importorskip("math_verify")
    task = opened(f"{name}?path={DATA}/{name}")
    items = task.items("test")
    assert len(items) == size
    asked = verifier("math")
    wrong = [i.id for i in items if not asked.right(answer=i.answer, text=i.answer, stated=True)]
    assert wrong == []
    form = task.template.form
    assert all(task.grade_strict(item, answers.shown(item.answer, form)) for item in items)
