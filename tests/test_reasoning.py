"""Tasks of the package reasoning-gym."""

import numpy as np
import pytest

from capacity.errors import CapacityError, SpecError
from capacity.plan.protocols import PROTOCOLS
from capacity.tasks import reasoning
from capacity.tasks.catalog import open_task, parse_task
from capacity.tasks.reasoning import SIZES, GymTask

pytest.importorskip("reasoning_gym")
SUMS = "reasoning-gym:chain_sum?min_terms=2&max_terms=3&template=hash"


def opened(text: str) -> GymTask:
    task = open_task(parse_task(text))
    assert isinstance(task, GymTask)
    return task


def test_splits_share_no_question() -> None:
    task = opened(SUMS)
    splits = {split: [i.prompt for i in task.items(split)] for split in SIZES}
    assert len(set(splits["test"])) == len(splits["test"]) > 200
    assert not set(splits["test"]) & (set(splits["train"]) | set(splits["validation"]))
    assert not set(splits["validation"]) & set(splits["train"])
    assert [i.prompt for i in opened(SUMS).items("test", 5)] == splits["test"][:5]


def test_references_are_demonstrated_and_graded_right() -> None:
    task = opened(SUMS)
    for item in task.items("validation", 20):
        assert task.demonstrations(item, 2, np.random.default_rng(0)) == [f"#### {item.answer}"] * 2
        assert task.grade(item, f"so\n#### {item.answer}")
        assert not task.grade(item, f"so {item.answer}")
        assert task.grade_lenient(item, f"so {item.answer}")
        assert not task.grade_lenient(item, f"#### {item.answer}9")


def test_answers_that_differ_from_the_reference_go_to_the_tasks_own_verifier() -> None:
    task = opened("reasoning-gym:countdown?template=bare&min_numbers=3&max_numbers=3")
    item = task.items("test", 1)[0]
    assert task.grade(item, item.answer)
    assert task.grade(item, f"({item.answer})")
    assert not task.grade(item, "1")
    assert not task.grade(item, "")


def test_options_pass_through_and_are_recorded() -> None:
    spec = parse_task(SUMS)
    assert spec.options == {
        "task": "chain_sum", "min_terms": 2.0, "max_terms": 3.0, "template": "hash", "chat": "model",
        "grading": "strict", "max_new_tokens": 256.0,
    }  # fmt: skip
    assert parse_task(spec.label) == spec
    assert open_task(spec.unseen()).has_demonstrations is False
    assert PROTOCOLS[spec.name].evaluation(opened(SUMS)).items == 256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reasoning-gym:chainsum", "unknown reasoning-gym task 'chainsum': did you mean chain_sum"),
        ("reasoning-gym:chain_sum?min_term=2", "unknown option of task reasoning-gym:chain_sum 'min_term'"),
        ("reasoning-gym:chain_sum?min_terms=-2", "task reasoning-gym:chain_sum: min_terms must be positive"),
        ("reasoning-gym:chain_sum?max_new_tokens=x", "max_new_tokens=x is no whole number"),
        ("reasoning-gym:chain_sum?demonstrations=solutions", "has no solutions to demonstrate"),
        ("reasoning-gym", "needs the name of a task"),
    ],
)
def test_wrong_names_and_options(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_task(text)


def test_options_that_generate_nothing_are_refused() -> None:
    task = opened("reasoning-gym:countdown?min_numbers=2&max_numbers=2&max_target=100")
    with pytest.raises(SpecError, match=r"reasoning-gym:countdown: with these options it generates no problem \d+: "):
        task.items("test")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning, "find_spec", lambda _: None)
    with pytest.raises(CapacityError, match=r"^reasoning-gym needs a package: pip install reasoning-gym$"):
        parse_task(SUMS)
