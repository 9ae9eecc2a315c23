import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from capacity.errors import DataError, SpecError
from capacity.tasks import abacus_language as language
from capacity.tasks.abacus import SPLIT_SIZES, AbacusTask, partition
from capacity.tasks.catalog import parse_task
from capacity.tasks.task import Item

TASK = AbacusTask()


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


@pytest.mark.parametrize("style", TASK.demonstration_styles)
def test_every_demonstration_is_graded_right(style: str) -> None:
    rng = np.random.default_rng(0)
    for item in TASK.items("train", 200):
        for text in TASK.demonstrations(item, style, 2, rng):
            assert TASK.grade(item, text)


def test_worked_demonstrations_show_running_sums() -> None:
    item = Item("x", "12+34+56+78=", "180")
    (text,) = TASK.demonstrations(item, "worked", 1, np.random.default_rng(0))
    for part in ("34=46", "56=102", "78#180"):
        assert part in text


@pytest.mark.parametrize(
    ("completion", "right"),
    [("#180", True), ("first 34=46 then 56=102 finally 78#180", True), ("#181", False), ("180", False), ("", False),
     ("#180 ", False), ("#180#", False), ("#0180", False), ("#18", False), ("#99#180", True)],
)  # fmt: skip
def test_grader_wants_the_exact_answer_at_the_end(completion: str, right: bool) -> None:
    assert TASK.grade(Item("x", "12+34+56+78=", "180"), completion) is right


def test_tokenizer_round_trips_every_style(tokenizer: Any) -> None:
    rng = np.random.default_rng(0)
    for item in TASK.items("train", 50):
        for style in language.STYLES:
            text = language.completion(language.operands_of(item.prompt), style, language.SYNONYM_ODDS, rng)
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert tokenizer.decode(ids) == text
            assert not {0, 1, 2} & set(ids)
        assert tokenizer.decode(tokenizer.encode(item.prompt), skip_special_tokens=True) == item.prompt
    assert tokenizer.convert_ids_to_tokens(list(range(len(language.VOCABULARY)))) == list(language.VOCABULARY)


def test_another_hand_has_equal_entropy_and_known_shift() -> None:
    base, other = language.SYNONYM_ODDS, language.OTHER_HAND_ODDS
    assert language.style_bits(other) == pytest.approx(language.style_bits(base), abs=1e-12)
    assert language.style_shift(base) == 0.0
    assert language.style_shift(other) > 1
    rng, n = np.random.default_rng(0), 20_000
    words = Counter(word for _ in range(n) for word in language.draw_words(other, rng))
    logs = {w: (math.log2(other[i]), math.log2(base[i])) for slot in language.SLOTS for i, w in enumerate(slot)}
    entropy = -sum(c * logs[w][0] for w, c in words.items()) / n
    shift = sum(c * (logs[w][0] - logs[w][1]) for w, c in words.items()) / n
    spread = math.sqrt(3 * sum(other * np.log2(other) ** 2) / n)
    assert entropy == pytest.approx(language.style_bits(other), abs=5 * spread)
    assert shift == pytest.approx(language.style_shift(other), abs=10 * spread)


def test_task_grammar() -> None:
    assert parse_task("abacus").demonstrations == "worked"
    assert parse_task("abacus?demonstrations=own").demonstrations == "own"
    for text, message in [
        ("abakus", "did you mean abacus"),
        ("abacus?demonstrations=wroked", "did you mean worked"),
        ("abacus?hardness=3", "unknown option 'hardness=3'"),
    ]:
        with pytest.raises(SpecError, match=message):
            parse_task(text)


def test_more_items_than_a_split_has_are_refused() -> None:
    with pytest.raises(DataError, match="abacus test has 1024 items, 2000 were asked for"):
        TASK.items("test", 2000)
