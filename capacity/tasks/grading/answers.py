"""Finds the answer in a completion, and compares it as number or text. `latex` compares LaTeX, `numbers` reads numbers.

There are two ways to find an answer, and both grades are reported side by side. *Strict* grading looks only where the
prompt asked for the answer. That is after the last "####", in the last \\boxed{…}, or the whole text. *Lenient* grading
also looks elsewhere. For numbers, it also accepts the last one of the text. An answer that is correct by strict grading
is also correct by lenient grading. Every function takes time linear in the length of its text.
"""

import re
from typing import Literal

from capacity.tasks.grading.numbers import last_number, number

AnswerForm = Literal["hash", "boxed", "whole"]
MARK = "####"

_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")  # \{ and \} are no braces


def marked(text: str) -> str | None:
    """Returns the text after the last "####", up to the end of the line.

    It is None if there is no mark, or nothing after it.
    """
    _, found, rest = text.rpartition(MARK)
    line = rest.strip().partition("\n")[0].strip() if found else ""
    return line or None


def boxed(text: str) -> str | None:
    """Returns the content of the last \\boxed{…} or \\fbox{…} whose braces close; None if there is none.

    An empty box also gives None.
    """
    opened: list[int | None] = []  # of each open brace: where its content starts, if it is that of a box
    start, end = -1, -1
    for brace in _BRACE.finditer(text):
        if brace[0] in (r"\{", r"\}"):
            continue
        if brace[0].endswith("{"):
            opened.append(brace.end() if len(brace[0]) > 1 else None)
        elif opened:
            content = opened.pop()
            if content is not None and content > start:
                start, end = content, brace.start()
    return text[start:end].strip() or None if start >= 0 else None


def stated(text: str, form: AnswerForm) -> str | None:
    """Returns the answer that stands where the prompt asked for it; None if there is none.

    With `form` "whole", the answer is the whole text.
    """
    if form == "whole":
        return text.strip() or None
    return marked(text) if form == "hash" else boxed(text)


def shown(answer: str, form: AnswerForm) -> str:
    """Returns the answer in the form in which a completion states it."""
    return {"hash": f"{MARK} {answer}", "boxed": f"\\boxed{{{answer}}}", "whole": answer}[form]


def number_is_right(completion: str, answer: str, form: AnswerForm, *, lenient: bool) -> bool:
    """Tells whether the completion's number equals the answer's: "18.00" equals "18", "3/4" equals "0.75"."""
    wanted = number(answer)
    if wanted is None:
        return False
    found = stated(completion, form)
    if found is not None and number(found) == wanted:
        return True
    return lenient and last_number(completion) == wanted


def text_is_right(completion: str, answer: str, form: AnswerForm, *, lenient: bool) -> bool:
    """Tells whether the stated answer is `answer`, letter for letter.

    Lenient grading ignores case and spacing, and also accepts the last line of the completion.
    """
    wanted, found = answer.strip(), stated(completion, form)
    if found == wanted:
        return True
    if not lenient:
        return False
    lines = completion.strip().splitlines()
    candidates = [found or "", lines[-1] if lines else ""]
    return any(_folded(c) == _folded(wanted) for c in candidates if c)


def _folded(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").casefold()
