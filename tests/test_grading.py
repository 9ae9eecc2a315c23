"""Finding and comparing answers: pure functions, and the process that runs math-verify within limits."""

import time
from decimal import Decimal

import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.errors import CapacityError
from capacity.tasks.data_sets import latex_is_right
from capacity.tasks.grading import answers as grading
from capacity.tasks.grading import verifier as verifier_module
from capacity.tasks.grading.verifier import Verifier, verifier

FORMS = ("hash", "boxed", "whole")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", "18"), (" $1,234.50 ", "1234.50"), ("-7", "-7"), ("12%", "12"), ("3.", "3"), (".5", "0.5"), ("+4", "4"),
        ("1e5", None), ("", None), ("eighteen", None), ("1 2", None), ("١٨", None), ("9" * 10**6, None), ("--1", None),
    ],
)  # fmt: skip
def test_number_reads_plain_numbers_only(text: str, value: str | None) -> None:
    assert grading.number(text) == (None if value is None else Decimal(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("She has 3 apples and 4 pears, so 7.", 7), ("costs $1,250 in all", 1250), ("no number", None), ("5-3=2", 2),
        ("x = -12", -12), ("in 2024, 18.50 dollars.", Decimal("18.5")), ("= 1,000,000!", 1000000),
    ],
)  # fmt: skip
def test_last_number(text: str, value: object) -> None:
    assert grading.last_number(text) == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{5}.", "5"), (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"), (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{3} then \boxed{4", "3"), (r"\boxed{}", None), ("none", None), (r"\fbox{7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"), (r"\boxed {9}", "9"), (r"}}\boxed{a}", "a"),
    ],
)  # fmt: skip
def test_boxed_is_the_last_box_that_closes(text: str, found: str | None) -> None:
    assert grading.boxed(text) == found


@pytest.mark.parametrize(
    ("text", "found"), [("a\n#### 18", "18"), ("#### 1\n#### 2\nbye", "2"), ("####", None), ("18", None)]
)
def test_marked_is_what_follows_the_last_mark(text: str, found: str | None) -> None:
    assert grading.marked(text) == found


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("16-7=9, 9*2=18\n#### 18", True, True),
        ("#### $18.00", True, True),
        ("The answer is 18.", False, True),
        ("#### 18 dollars", False, True),
        ("#### 18\nIs there anything else? 3", True, True),
        ("#### 17, no, 18", False, True),
        ("#### 180", False, False),
        ("", False, False),
    ],
)
def test_numbers_strictly_and_leniently(text: str, strict: bool, lenient: bool) -> None:
    assert grading.number_is_right(text, "18", "hash", lenient=False) is strict
    assert grading.number_is_right(text, "18", "hash", lenient=True) is lenient


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("Paris", True, True), (" Paris \n", True, True), ("paris.", False, True),
        ("It is:\nParis", False, True), ("Rome", False, False), ("", False, False),
    ],
)  # fmt: skip
def test_texts_strictly_and_leniently(text: str, strict: bool, lenient: bool) -> None:
    assert grading.text_is_right(text, "Paris", "whole", lenient=False) is strict
    assert grading.text_is_right(text, "Paris", "whole", lenient=True) is lenient


@given(st.text(max_size=200), st.integers(-(10**6), 10**6), st.sampled_from(FORMS))
@unhurried
def test_what_is_right_strictly_is_right_leniently(text: str, answer: int, form: grading.AnswerForm) -> None:
    for completion in (text, text + grading.shown(str(answer), form), grading.shown(str(answer), form) + text):
        for right in (grading.number_is_right, grading.text_is_right):
            strict = right(completion, str(answer), form, lenient=False)
            assert not strict or right(completion, str(answer), form, lenient=True)
    assert grading.number_is_right(grading.shown(f"{answer:,}", form), str(answer), form, lenient=False)


HOSTILE = {
    "many digits": "9" * 10**6,
    "open boxes": "\\boxed{" * 10**5 + "5",
    "nested braces": "\\boxed{" + "{" * 5000 + "5" + "}" * 5000 + "}",
    "other digits": "#### ١٨",
    "nulls": "\x00\\boxed{5\x00}",
    "half a character": "\\boxed{\ud800}",
    "commas": "#### " + "," * 10**5,
    "marks": "####" * 50_000,
    "code": "\\boxed{__import__('os')._exit(0)}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_strings_are_wrong_and_quick(text: str) -> None:
    began = time.process_time()
    for form in FORMS:
        for right in (grading.number_is_right, grading.text_is_right):
            assert not right(text, "18", form, lenient=True)  # type: ignore[arg-type]
    assert time.process_time() - began < 1


def test_thirteen_hundred_numbers_take_less_than_a_second() -> None:
    began = time.process_time()
    text = "Each of the 12 eggs costs $3, that is 12*3=36 dollars a day. " * 10 + "\n#### 36"
    assert all(grading.number_is_right(text, "36", "hash", lenient=True) for _ in range(1319))
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\dfrac{\pi}{2})", True), (r"\text{Evelyn}", "Evelyn", True),
        ("1/2", "0.5", False), ("", "", False),
    ],
)  # fmt: skip
def test_same_latex_is_a_quick_yes(one: str, other: str, same: bool) -> None:
    assert grading.same_latex(one, other) is same


class TestMathVerify:
    """One process for all of them; starting it takes seconds."""

    @pytest.fixture(scope="class", autouse=True)
    def installed(self):
        pytest.importorskip("math_verify")
        yield
        verifier("math").close()

    @pytest.mark.parametrize(
        ("completion", "answer", "strict", "lenient"),
        [
            (r"so \boxed{0.5}", r"\frac{1}{2}", True, True),
            (r"so $x = \frac{1}{2}$.", r"\frac{1}{2}", False, True),
            (r"\boxed{(3,\frac{\pi}{2})}", r"\left( 3, \frac{\pi}{2} \right)", True, True),
            (r"\boxed{x^2+2x+1}", "(x+1)^2", True, True),
            (r"\boxed{2}", "3", False, False),
            ("", "3", False, False),
        ],
    )
    def test_latex(self, completion: str, answer: str, strict: bool, lenient: bool) -> None:
        assert latex_is_right(completion, answer, "boxed", lenient=False) is strict
        assert latex_is_right(completion, answer, "boxed", lenient=True) is lenient

    @pytest.mark.parametrize(
        "content", [r"\frac{1}{0}", "", "{" * 300, "1&" * 300, "\ud800", "__import__('os')._exit(0)", "\x00", "\n"]
    )
    def test_hostile_latex_is_wrong(self, content: str) -> None:
        assert not latex_is_right(f"\\boxed{{{content}}}", "18", "boxed", lenient=True)
        assert latex_is_right(r"\boxed{18.0}", "18", "boxed", lenient=False)

    def test_an_answer_beyond_the_limit_is_wrong_and_the_next_one_is_graded(self) -> None:
        asked = Verifier("math", cpu_seconds=1)
        try:
            assert not asked.right(answer="18", text="10^{10^{10}}", stated=True)
            assert asked.ended == 1
            assert asked.right(answer=r"\frac{1}{2}", text="0.5", stated=True)
        finally:
            asked.close()

    def test_it_works_in_a_thread(self) -> None:
        import threading

        answers: list[bool] = []
        thread = threading.Thread(
            target=lambda: answers.append(verifier("math").right(answer="0.25", text=r"\frac{1}{4}", stated=True))
        )
        thread.start()
        thread.join()
        assert answers == [True]


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier_module, "find_spec", lambda _: None)
    with pytest.raises(CapacityError, match=r"^grading this task needs math-verify: pip install math-verify$"):
        Verifier("math").right(answer="1", text="1", stated=True)
