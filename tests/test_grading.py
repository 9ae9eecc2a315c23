"""Finding and comparing answers: pure functions, and the process that runs math-verify within limits."""

import time

import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.errors import CapacityError
from capacity.tasks.grading import answers as grading
from capacity.tasks.grading import verifier as verifier_module
from capacity.tasks.grading.latex import decided, latex_is_right, same_latex
from capacity.tasks.grading.verifier import Verifier, verifier

FORMS = ("hash", "boxed", "whole")


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
        ("1/2", "0.5", False), ("", "", False), ("3 1/2", "31/2", False), (r"\frac12 3", r"\frac123", False),
        (r"3\,4", "34", False), ("5$ $6", "56", False), (r"10,\!000", "10,000", True), ("2 x", "2x", True),
    ],
)  # fmt: skip
def test_same_latex_is_a_quick_yes(one: str, other: str, same: bool) -> None:
    assert same_latex(one, other) is same


@pytest.mark.parametrize(
    ("found", "answer", "equal"),
    [
        ("3 1/2", "31/2", False), ("3 1/2", r"\frac{7}{2}", True), ("1 1/4", "5/4", True),
        (r"1\frac{1}{4}", "1.25", True),
        ("4210_5", "4210_7", False), ("4210_{7}", "4210_7", True), ("4_{10}", "100_2", False), ("4210", "4210_7", None),
        ("ff_{16}", "FF_{16}", True), ("x_2", "X_2", None), ("9_7", "12_7", None), ("a_{99}", "A_{99}", None),
        ("(1,0)", "(1,000)", False), ("(1,000)", "(1,0)", False), ("(3,400)", "(3, 400)", True),
        ("(1/2,1)", "(0.5,1)", True),
        ("(2,1)", "(1,2)", False), ("(1,2,3)", "(1,2)", False), ("[1,2)", "(1,2)", None),
        (r"\{2,1\}", r"\{1,2\}", None),
        ("0.333333", "1/3", False), ("2.75e11", r"2.75 \times 10^{11}", True), ("1,000", "1000", True),
        ("1,000", "1", False),
        (r"12\%", "12", True), (r"12\%", "0.12", None), (r"12\%", r"13\%", False), ("025", "25", True),
        ("x", "5", None),
        ("−5", "-5", True), ("3k", "3000", None), ("2,5", "25", None),
    ],
)  # fmt: skip
def test_latex_that_needs_no_algebra_is_decided_exactly(found: str, answer: str, equal: bool | None) -> None:
    assert decided(found, answer) is equal


def test_an_answer_far_before_the_end_is_found() -> None:
    after = "\nI checked it again." * 5_000
    assert grading.number_is_right("#### 18" + after, "18", "hash", lenient=False)
    assert grading.number_is_right(r"\boxed{18}" + after, "18", "boxed", lenient=False)
    assert grading.number_is_right("It is 18." + after, "18", "hash", lenient=True)
    assert grading.text_is_right("word " * 9_999 + "end", "word " * 9_999 + "end", "whole", lenient=False)


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
        ("found", "answer", "right"),
        [
            (r"\frac{2}{0}", r"\frac{1}{0}", False), (r"\frac{1}{0}", r"\frac{1}{0}", True),
            ("1/2^{91}", "1/2^{90}", False), ("1/2^{90}", "1/2^{90}+0", True), ("1/2007!", "1/2009!", False),
            (r"\sqrt{3}+10^{-20}", r"\sqrt{3}", False), ("(1/2^{91},1)", "(1/2^{90},1)", False),
            (r"\sqrt{2}\sqrt{3}", r"\sqrt{6}", True), (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", True),
            ("4^{50}", "2^{100}", True),
            ("√2", r"\sqrt{2}", True), ("2√3", r"2\sqrt{3}", True), ("√(2)", r"\sqrt{2}", True),
            ("√3", r"\sqrt{2}", False),
            ("x²", "x^2", True), ("x¹²", "x^{12}", True), ("x³", "x^2", False), ("(-∞,3)", r"(-\infty,3)", True),
            ("½x", r"\frac{x}{2}", True),
            ("90°", "90", True), ("2·x", "2x", True), ("√2/2", r"\frac{\sqrt{2}}{2}", True), ("2π", r"2\pi", True),
            (r"\frac{7}{2}", "3 1/2", True), ("31/2", "3 1/2", False), ("4210_5", "4210_7", False),
            ("(1,0)", "(1,000)", False),
            (r"12\%", "0.12", True), (r"12\%", "12", True), (r"12\%", "5", False), ("x=5", "5", True),
            (r"5 \text{ cm}", "5", True),
        ],
    )  # fmt: skip
    def test_what_math_verify_alone_gets_wrong(self, found: str, answer: str, right: bool) -> None:
        assert latex_is_right(f"\\boxed{{{found}}}", answer, "boxed", lenient=False) is right
        assert latex_is_right(f"\\boxed{{{found}}}", answer, "boxed", lenient=True) is right

    @pytest.mark.parametrize(
        ("found", "answer", "right"),
        [
            ("3.14159265", r"\pi", True), ("4210", "4210_7", True), ("1,2", "(1,2)", True), ("5", "x=5", True),
            ("5 dollars", "5", False), (r"e^{i\pi}", "-1", False),
        ],
    )  # fmt: skip
    def test_what_the_documents_list_as_left(self, found: str, answer: str, right: bool) -> None:
        assert latex_is_right(f"\\boxed{{{found}}}", answer, "boxed", lenient=False) is right

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
