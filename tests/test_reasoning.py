"""Tasks of the package reasoning-gym."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from capacity.errors import CapacityError, SpecError
from capacity.plan.protocols import PROTOCOLS
from capacity.tasks import reasoning
from capacity.tasks.catalog import open_task, parse_task
from capacity.tasks.grading.answer_type import same_type
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


def numbers_as(text: str, name: str) -> str:
    """Replaces the numbers of a reference."""
    return re.sub(r"[0-9]+(?:\.[0-9]+)?", name, text)


@pytest.fixture
def few_problems(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test split of eight problems, because some tasks take long to generate one."""
    reasoning._problems.cache_clear()
    monkeypatch.setitem(SIZES, "test", 8)
    yield
    reasoning._problems.cache_clear()


@pytest.mark.usefixtures("few_problems")
@pytest.mark.parametrize(
    ("name", "nonsense"),
    [
        ("complex_arithmetic", lambda _: "nan"),
        ("complex_arithmetic", lambda answer: numbers_as(answer, "nan")),
        ("number_sorting", lambda answer: numbers_as(answer, "NaN")),
        ("game_of_life_halting", lambda _: "answer"),
        ("game_of_life_halting", lambda answer: "True" if answer == "False" else "False"),
        ("puzzle24", lambda _: "6*4*1*1"),
        ("coin_flip", lambda _: "0"),
    ],
)
def test_what_is_not_of_the_answers_type_gets_no_reward(name: str, nonsense: Callable[[str], str]) -> None:
    task = opened(f"reasoning-gym:{name}")
    items = [item for item in task.items("test", 8) if sorted("6411") != sorted(re.findall("[0-9]+", item.answer))]
    assert len(items) >= 7
    for item in items:
        assert task.grade(item, f"#### {item.answer}")
        assert not task.grade(item, f"#### {nonsense(item.answer)}")
        assert not task.grade_lenient(item, f"#### {nonsense(item.answer)}")


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("true", "True", True), ("False", "True", False), ("yes", "True", False), ("nan", "-7.0 + 1.0i", False),
        ("1.0i - 7.0", "-7.0 + 1.0i", True), ("inf", "5", False), ("nan", "", False), ("[3, 1]", "", True),
        ("1,000", "1000", True), ("0.126", "0.125", True), ("0", "0.0001220703125", False), ("70 apples", "70", False),
        ("0", "0.0", True), ("1", "0.0", False), ("-5", "-1", False), ("(4 + 3) * 2", "2*4 + 3", True),
        ("6*4", "8*3", False), ("2.50 5", "2.5 5.0", True), ("2.51 5", "2.5 5.0", False), ("25 5", "2.5 5.0", False),
        ("DAN,NAN,NAP", "DAN,DAP,NAP", True), ("[NaN, NaN]", "['1.5', '2']", False), ("[1.5, 2]", "['1.5', '2']", True),
    ],
)  # fmt: skip
def test_types_of_answers(answer: str, reference: str, same: bool) -> None:
    assert same_type(answer, reference) is same


def test_the_scan_finds_verifiers_that_pay_for_nonsense() -> None:
    path = Path(__file__).parents[1] / "proofs" / "gym_verifiers.py"
    spec = importlib.util.spec_from_file_location("gym_verifiers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    paid, guarded, items, whole = module.scan("complex_arithmetic", 3, 60.0)
    assert (items, whole) == (3, True)
    assert paid["'nan'"] == 3
    assert sum(guarded.values()) == 0
    assert not module.scan("chain_sum", 3, 60.0)[0]


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


def test_answers_that_cannot_stand_in_the_template_are_refused() -> None:
    message = r'binary_matrix: the answer of problem 0 cannot stand on the line after "####": take template=boxed or'
    with pytest.raises(SpecError, match=message):
        opened("reasoning-gym:binary_matrix").items("test", 5)
    task = opened("reasoning-gym:binary_matrix?template=boxed")
    item = task.items("test", 1)[0]
    assert "\n" in item.answer
    assert task.grade(item, f"\\boxed{{{item.answer}}}")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning, "find_spec", lambda _: None)
    with pytest.raises(CapacityError, match=r"^reasoning-gym needs a package: pip install reasoning-gym$"):
        parse_task(SUMS)
