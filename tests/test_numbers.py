"""The grammar of numbers: the table of cases in the documents, and every notation of a number against others."""

import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from fakes import unhurried
from hypothesis import assume, given
from hypothesis import strategies as st

from capacity.tasks.grading import answers, numbers

TASKS_PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"
FORMS = ("hash", "boxed", "whole")
FIELDS = re.compile(r"\| (`+)(.+?)\1 +\| (`?)([^|`]+)\3 +\| (correct|wrong) +\| (correct|wrong) +\|")


def cases() -> list[tuple[str, str, bool, bool]]:
    """The rows of the table of cases: the completion, the reference, the strict and the lenient grade."""
    part = TASKS_PAGE.read_text(encoding="utf-8").partition("### Numbers")[2].partition("\n### ")[0]
    found = [FIELDS.fullmatch(line.strip()) for line in part.splitlines() if line.startswith("| `")]
    assert all(found)
    return [(m[2].strip(), m[4], m[5] == "correct", m[6] == "correct") for m in found if m]


def test_the_table_of_cases_has_cases() -> None:
    assert len(cases()) >= 40


@pytest.mark.parametrize(("completion", "answer", "strict", "lenient"), cases())
def test_the_table_of_cases_in_the_documents(completion: str, answer: str, strict: bool, lenient: bool) -> None:
    form: answers.AnswerForm = "boxed" if r"\boxed" in completion else "hash"
    assert answers.number_is_right(completion, answer, form, lenient=False) is strict
    assert answers.number_is_right(completion, answer, form, lenient=True) is lenient


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", "18"), (" $1,234.50 ", "1234.5"), ("-7", "-7"), ("12%", "12"), ("3.", "3"), (".5", "0.5"), ("+4", "4"),
        ("1e5", "100000"), ("1.5E-3", "0.0015"), (r"2.5 \times 10^{5}", "250000"), ("2.5×10^5", "250000"),
        ("−12", "-12"), ("–12", "-12"), ("‑12", "-12"), ("- 12", "-12"), ("-$3", "-3"), ("$-3", "-3"),
        ("negative 5", "-5"),
        ("3/4", "3/4"), (r"\frac{3}{4}", "3/4"), (r"-\frac34", "-3/4"), (r"\dfrac{-3}{4}", "-3/4"), ("¾", "3/4"),
        ("3 1/2", "7/2"), ("3½", "7/2"), (r"1\frac{1}{4}", "5/4"), ("3 and 1/2", "7/2"), ("-3 1/2", "-7/2"),
        (r"\text{\$18}", "18"), (r"\$18", "18"), ("$18$", "18"), ("5 €", "5"), (r"12^\circ", "12"), (r"50\%", "50"),
        ("1{,}000", "1000"), (r"1\,000", "1000"), (r"10,\!000", "10000"), ("12\u202f500", "12500"), ("007", "7"),
        ("5 million", "5000000"), ("2 dozen", "24"), ("1,234,567.89", "1234567.89"), (r"\boxed{\text{18}}", "18"),
    ],
)  # fmt: skip
def test_numbers_of_the_grammar(text: str, value: str) -> None:
    assert numbers.number(text) == Fraction(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "eighteen", "1 2", "12 500", "١٨", "9" * 41, "9" * 10**6, "--1", "2,5", "1,00,000", "1,0000", "0,123",
        "1.000,5",
        "1,000,00", "1,000\u2009000", r"1\,5", "3/0", "3 5/2", "1/2/3", "10^5", "12*3", "5-3", "10–12", "(1,2)",
        "1e1000", "5k",
        "18 dollars", "x", "±4", "√4", ".", "-", "$", "1_000", "0x12", "nan", "inf", "1e", "10:30", "\ud800",
    ],
)  # fmt: skip
def test_everything_else_is_no_number(text: str) -> None:
    assert numbers.number(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("She has 3 apples and 4 pears, so 7.", "7"), ("costs $1,250 in all", "1250"), ("no number", None),
        ("5-3=2", "2"),
        ("x = -12", "-12"), ("x = - 12", "-12"), ("in 2024, 18.50 dollars.", "18.5"), ("= 1,000,000!", "1000000"),
        ("The balance is –12", "-12"), ("the total—12 apples", "12"), ("it is —12", "-12"), ("- 12 eggs", "12"),
        ("Debt:\n- 12", "-12"),
        ("so 3/4 of it", "3/4"), (r"it is $\frac{3}{4}$.", "3/4"), ("3 1/2 cups", "7/2"),
        ("5 million dollars", "5000000"),
        ("$5 + $3 = $8", "8"), ("20 minus 12 equals 8", "8"), ("1. 18", "18"), ("18 cm^2", "18"),
        (r"18 \text{ cm}^2", "18"),
        ("18, by COVID-19", "18"), ("18, from x_2", "18"), ("the 18th", "18"), ("18\n\nDone.", "18"), ("**18**", "18"),
        ("12*3", None), ("12 x 3", None), ("10-12 apples", None), ("10–12", None), ("5 - 3", None),
        ("it is - 12", None), ("2^{10}", None), ("3²", None), ("18 m²", "18"),
        ("2,5", None), ("1,00,000", None), ("12 500", None), ("12/25/2024", None), ("10:30", None), ("3.5.2", None),
        (r"\frac{x}{4}", None), (r"\sqrt{4}", None), ("0x12", None), ("±4", None), ("5k", None), ("(1,2)", None),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text(text: str, value: str | None) -> None:
    assert numbers.last_number(text) == (None if value is None else Fraction(value))


JOINED = ("-", "−", "–", "—", "‑", "－", "negative ")
SIGNS = (*JOINED, "- ")  # in a sentence, a dash between blanks is not read as a sign
VALUES = st.builds(Fraction, st.integers(-(10**9), 10**9), st.sampled_from([1, 1, 1, 2, 3, 4, 5, 7, 8, 10, 100, 1000]))


@st.composite
def rendered(draw: st.DrawFn, value: Fraction, signs: tuple[str, ...] = SIGNS) -> str:
    """Writes a number in any notation of the grammar."""
    sign = draw(st.sampled_from(signs)) if value < 0 else draw(st.sampled_from(["", "", "+"]))
    size = abs(value)
    whole, part = divmod(size, 1)
    comma = draw(st.sampled_from(["", ",", "{,}", r"\,", "\u202f", r",\!"]))
    notations = [
        draw(st.sampled_from([r"\frac{%d}{%d}", r"\dfrac{%d}{%d}", "%d/%d"])) % (size.numerator, size.denominator)
    ]
    if part and whole:
        notations += [f"{whole} {part}", rf"{whole}\frac{{{part.numerator}}}{{{part.denominator}}}"]
    plain = numbers.shown(size)
    if "/" not in plain:
        digits, point, decimals = plain.partition(".")
        zeros = "0" * draw(st.integers(0, 3))
        grouped = f"{int(digits):,}".replace(",", comma)
        notations += [grouped + ("." if point or zeros else "") + decimals + zeros]
        notations += [f"{plain}e0", f"{numbers.shown(size / 1000)}e3", rf"{numbers.shown(size / 100)} \times 10^{{2}}"]
    body = draw(st.sampled_from(notations))
    currency = draw(st.sampled_from(["", "$", r"\$", "€"]))
    unit = "" if currency else draw(st.sampled_from(["", "%", r"\%", "°", " €"]))
    text = sign + currency + body + unit
    return draw(st.sampled_from([text, text, rf"\text{{{text}}}" if "{" not in text else text]))


PROSE = [
    "So the answer is {}.", "She has 5 - 3 = 2 left.\nIt is {} in all", "Is it 17? No: {}\n", "**{}**",
    "= {} apples.",
]  # fmt: skip


@given(st.data(), VALUES, VALUES, st.sampled_from(FORMS), st.sampled_from(PROSE))
@unhurried
def test_any_rendering_is_right_and_any_other_number_wrong(
    data: st.DataObject, value: Fraction, other: Fraction, form: answers.AnswerForm, prose: str
) -> None:
    assume(value != other)
    answer = data.draw(rendered(value))
    text = data.draw(rendered(value))
    wrong = data.draw(rendered(other))
    assert answers.number_is_right(answers.shown(text, form), answer, form, lenient=False)
    assert answers.number_is_right(answers.shown(text, form), answer, form, lenient=True)
    assert answers.number_is_right(prose.format(data.draw(rendered(value, JOINED))), answer, form, lenient=True)
    for lenient in (False, True):
        assert not answers.number_is_right(answers.shown(wrong, form), answer, form, lenient=lenient)
        assert not answers.number_is_right(prose.format(wrong), answer, form, lenient=lenient)


@given(VALUES)
@unhurried
def test_a_number_that_is_shown_is_read_again(value: Fraction) -> None:
    assert numbers.number(numbers.shown(value)) == value


@given(st.text(alphabet="0123456789.,-–/ $%{}^\\ek×*", max_size=40), st.integers(-999, 999))
@unhurried
def test_a_text_is_one_number_at_most(text: str, answer: int) -> None:
    """What is right against one number is wrong against the next."""
    right = [n for n in (answer, answer + 1) if answers.number_is_right(text, str(n), "whole", lenient=False)]
    assert len(right) <= 1


@pytest.mark.parametrize(
    "piece", ["9", "1 ", "1,", "1/", "- ", "$", "—1", r"\frac{1}", r"\text{", "x2", "½", "1e5", "{,}"]
)
def test_long_texts_take_linear_time(piece: str) -> None:
    began = time.process_time()
    numbers.last_number(piece * 50_000)
    numbers.number(piece * 50_000)
    assert time.process_time() - began < 2
