"""Finds faulty rows before anything is trained: answers that no completion meets, and rows that contradict."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from capacity.tasks.grading import answers
from capacity.tasks.grading.latex import decided, latex_is_right
from capacity.tasks.grading.numbers import number
from capacity.tasks.rows import ReadRow, Row

Compare = Literal["number", "latex", "text"]
# Tokens that end a sequence or a turn. In a demonstration they would end it, and no completion contains them.
_ENDS = re.compile(r"<eos>|</s>|<end_of_turn>|<\|[a-z_]{3,}\|>")
PLACES = {"hash": f'on the line after "{answers.MARK}"', "boxed": r"in \boxed{…}", "whole": "as the whole completion"}
_SHOWN = 60  # characters of an answer in an error


@dataclass(frozen=True)
class Rule:
    """What a task asks of its rows.

    Attributes:
        compare: how answers are compared.
        form: the form in which a completion states its answer.
        solved: True if the solutions of the rows are demonstrated.
    """

    compare: Compare
    form: answers.AnswerForm
    solved: bool

    def fault(self, row: Row) -> str | None:
        """Returns what is wrong with a row; None if the task can use it.

        A row is wrong if no completion can be graded right on it, or if one of its solutions states another answer.
        """
        answer = row.answer.strip()
        if answer.lower() == "nan":
            return f"the answer is {answer!r}, which marks a missing value"
        found = _ENDS.search(answer)
        if found:
            return f"the answer holds {found[0]!r}, which ends a sequence: take it out"
        if self.compare == "number" and number(answer) is None:
            return f"the answer {_short(answer)} is no number, and compare=number asks for one"
        stated = answers.stated(answers.shown(row.answer, self.form), self.form)
        if stated is None or not self.equal(stated, answer):
            return f"the answer {_short(answer)} cannot stand {PLACES[self.form]}"
        faults = (self._fault_of(solution, answer) for solution in row.solutions if self.solved)
        return next(filter(None, faults), None)

    def equal(self, one: str, other: str) -> bool | None:
        """Tells whether two answers are equal; None if only math-verify can tell."""
        if self.compare == "latex":
            return decided(one, other)
        if self.compare == "text":
            return one.strip() == other.strip()
        return number(one) is not None and number(one) == number(other)

    def contradict(self, one: Row, other: Row) -> bool:
        """Tells whether two rows of the same problem have different answers."""
        known = self.equal(one.answer, other.answer)
        if known is None:
            shown = answers.shown(other.answer, self.form)
            return not latex_is_right(shown, one.answer, self.form, lenient=False)
        return not known

    def checked(self, read: ReadRow) -> ReadRow:
        """Returns a reader that raises ValueError at rows that the task cannot use."""

        def row_of(record: Mapping[str, Any], number_: int) -> Row:
            row, answer = read(record, number_), record.get("answer")
            if self.compare == "text" and isinstance(answer, float | Decimal):
                raise ValueError(
                    f"the answer {answer} is a number, and compare=text compares letters: "
                    "take compare=number, or write the answer as text"
                )
            fault = self.fault(row)
            if fault:
                raise ValueError(fault)
            return row

        return row_of

    def _fault_of(self, solution: str, answer: str) -> str | None:
        found = _ENDS.search(solution)
        if found:
            return f"a solution holds {found[0]!r}, which ends a sequence: take it out"
        stated = None if self.form == "whole" else answers.stated(solution, self.form)
        if stated is not None and self.equal(stated, answer) is False:
            return f"a solution states {_short(stated)}, and the answer is {_short(answer)}"
        return None


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
