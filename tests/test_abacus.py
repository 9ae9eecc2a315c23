import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from capacity.errors import DataError, SpecError
from capacity.models.loading import embedded_folder
from capacity.models.pretrain import CONTEXT
from capacity.models.tokenizer import build_tokenizer
from capacity.plan.models import ALIASES, model_shape
from capacity.tasks import abacus_language as language
from capacity.tasks.abacus import SPLIT_SIZES, STYLES, AbacusTask, partition
from capacity.tasks.task import Item

TASK = AbacusTask()
ITEM = Item("x", "12+34+56+78=", "180")


def multiset(item: Item) -> tuple[int, ...]:
    return tuple(sorted(language.operands_of(item.prompt)))


def test_splits_share_no_problem_in_any_order_of_operands() -> None:
    splits = {name: {multiset(i) for i in TASK.items(name)} for name in SPLIT_SIZES}
    for name, problems in splits.items():
        assert len(problems) == SPLIT_SIZES[name]
        assert {partition(p) for p in problems} == {name}
    assert not splits["train"] & splits["test"]
    assert not splits["validation"] & (splits["train"] | splits["test"])
    assert len(splits["test"]) >= 1000


def test_partition_ignores_the_order_of_operands() -> None:
    assert len({partition(p) for p in ((12, 34, 56, 78), (78, 12, 56, 34), (34, 12, 78, 56))}) == 1


def test_items_are_the_same_in_every_version() -> None:
    assert [i.prompt for i in TASK.items("test", 3)] == ["22+11+57+87=", "43+99+44+41=", "30+66+24+69="]


@pytest.mark.parametrize("style", [s for s in STYLES if s != "none"])
def test_every_demonstration_is_graded_right(style: str) -> None:
    task, rng = AbacusTask(style), np.random.default_rng(0)
    assert task.has_demonstrations
    for item in task.items("train", 200):
        for text in task.demonstrations(item, 2, rng):
            assert task.grade(item, text)


def test_task_without_demonstrations_says_so() -> None:
    task = AbacusTask("none")
    assert not task.has_demonstrations
    with pytest.raises(SpecError, match="demonstrations=none has no demonstrations"):
        task.demonstrations(ITEM, 1, np.random.default_rng(0))


def test_worked_demonstrations_show_running_sums() -> None:
    (text,) = TASK.demonstrations(ITEM, 1, np.random.default_rng(0))
    for part in ("34=46", "56=102", "78#180"):
        assert part in text


@given(st.tuples(*[st.integers(10, 99)] * 4))
def test_estimates_are_right_exactly_when_the_sum_is_a_multiple_of_ten(operands: tuple[int, ...]) -> None:
    item = Item("x", language.prompt(operands), str(sum(operands)))
    rng = np.random.default_rng(0)
    for text in (language.terse(operands), language.wordy(operands, language.SYNONYM_ODDS, rng)):
        assert TASK.grade(item, text) is (sum(operands) % 10 == 0)
    assert abs(language.estimate(operands) - sum(operands)) <= 5


@pytest.mark.parametrize(
    ("completion", "right"),
    [("#180", True), ("first um 34=46 then : 56=102 finally 78#180", True), ("#181", False), ("180", False),
     ("", False), ("#180 ", False), ("#180#", False), ("#0180", False), ("#18", False), ("#99#180", True)],
)  # fmt: skip
def test_grader_wants_the_exact_answer_at_the_end(completion: str, right: bool) -> None:
    assert TASK.grade(ITEM, completion) is right


def test_tokenizer_round_trips_every_style() -> None:
    tokenizer, rng = build_tokenizer(), np.random.default_rng(0)
    for item in TASK.items("train", 50):
        for style in language.STYLES:
            text = language.completion(language.operands_of(item.prompt), style, rng)
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert tokenizer.decode(ids) == text
            assert not {0, 1, 2} & set(ids)
        assert tokenizer.decode(tokenizer.encode(item.prompt), skip_special_tokens=True) == item.prompt
    assert tokenizer.convert_ids_to_tokens(list(range(len(language.VOCABULARY)))) == list(language.VOCABULARY)


@pytest.mark.parametrize("alias", [a for a, entry in ALIASES.items() if entry.source == "embedded"])
def test_shipped_tokenizers_and_contexts_are_those_of_the_language(alias: str) -> None:
    shipped = PreTrainedTokenizerFast.from_pretrained(embedded_folder(alias))
    assert shipped.get_vocab() == build_tokenizer().get_vocab()
    assert shipped.encode("12+34+56+79=") == build_tokenizer().encode("12+34+56+79=")
    assert model_shape(str(embedded_folder(alias)))[1].context == CONTEXT == ALIASES[alias].shape.context


def test_no_solution_is_longer_than_the_task_allows() -> None:
    tokenizer, rng = build_tokenizer(), np.random.default_rng(0)
    largest = Item("x", "99+99+99+99=", "396")
    for bits in language.STYLE_BITS:
        (text,) = AbacusTask(style_bits=bits).demonstrations(largest, 1, rng)
        assert len(tokenizer.encode(text, add_special_tokens=False)) + 1 <= TASK.max_new_tokens
    assert len(tokenizer.encode(largest.prompt)) + TASK.max_new_tokens <= CONTEXT


def test_items_without_a_count_are_the_whole_split() -> None:
    assert {split: len(TASK.items(split)) for split in SPLIT_SIZES} == SPLIT_SIZES


def test_more_items_than_a_split_has_are_refused() -> None:
    with pytest.raises(DataError, match="abacus test has 1,024 items, 2,000 were asked for"):
        TASK.items("test", 2000)
