"""Finds the answer in a completion, and compares it as number or text. `verifier` compares LaTeX.

There are two ways to find an answer, and both grades are reported side by side. *Strict* grading looks only where the
prompt asked for the answer. That is after the last "####", in the last \\boxed{…}, or the whole text. *Lenient* grading
also looks elsewhere. For numbers, it also accepts the last one of the text. An answer that is correct by strict grading
is also correct by lenient grading. Every function takes time linear in the length of its text.
"""

import re
from decimal import Decimal
from typing import Literal

AnswerForm = Literal["hash", "boxed", "whole"]
MARK = "####"
_DIGITS = 40  # a longer number is no answer of any task here, and is not read
_TAIL = 20_000  # characters from the end in which an answer is looked for

# ASCII digits only: int() and Decimal() would also read those of other scripts.
_PLAIN = re.compile(rf"[-+]?(?:[0-9]{{1,{_DIGITS}}}(?:\.[0-9]{{0,{_DIGITS}}})?|\.[0-9]{{1,{_DIGITS}}})")
_IN_TEXT = re.compile(r"(?<![0-9.,])[-+]?\$?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")
_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")  # \{ and \} are no braces
_MARKUP = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}|\\[,!;: ]|\\left|\\right|\\(?=[$%])")


def number(text: str) -> Decimal | None:
    """Returns the number that `text` is; None if it is no number.

    The text may have thousands commas, a currency sign, a per-cent sign or a final stop.
    """
    if len(text) > 4 * _DIGITS:
        return None
    bare = text.strip().replace(",", "").replace("$", "").strip().removesuffix(".").removesuffix("%").strip()
    return Decimal(bare) if _PLAIN.fullmatch(bare) else None


def last_number(text: str) -> Decimal | None:
    """Returns the last number in `text`; None if there is none."""
    for match in reversed(_IN_TEXT.findall(text[-_TAIL:])):
        found = number(match)
        if found is not None:
            return found
    return None


def marked(text: str) -> str | None:
    """Returns the text after the last "####", up to the end of the line.

    It is None if there is no mark, or nothing after it.
    """
    _, found, rest = text[-_TAIL:].rpartition(MARK)
    line = rest.strip().partition("\n")[0].strip() if found else ""
    return line or None


def boxed(text: str) -> str | None:
    """Returns the content of the last \\boxed{…} or \\fbox{…} whose braces close; None if there is none.

    An empty box also gives None.
    """
    tail = text[-_TAIL:]
    opened: list[int | None] = []  # of each open brace: where its content starts, if it is that of a box
    start, end = -1, -1
    for brace in _BRACE.finditer(tail):
        if brace[0] in (r"\{", r"\}"):
            continue
        if brace[0].endswith("{"):
            opened.append(brace.end() if len(brace[0]) > 1 else None)
        elif opened:
            content = opened.pop()
            if content is not None and content > start:
                start, end = content, brace.start()
    return tail[start:end].strip() or None if start >= 0 else None


def stated(text: str, form: AnswerForm) -> str | None:
    """Returns the answer that stands where the prompt asked for it; None if there is none.

    With `form` "whole", the answer is the whole text.
    """
    if form == "whole":
        return text[-_TAIL:].strip() or None
    return marked(text) if form == "hash" else boxed(text)


def shown(answer: str, form: AnswerForm) -> str:
    """Returns the answer in the form in which a completion states it."""
    return {"hash": f"{MARK} {answer}", "boxed": f"\\boxed{{{answer}}}", "whole": answer}[form]


def number_is_right(completion: str, answer: str, form: AnswerForm, *, lenient: bool) -> bool:
    """Tells whether the completion's number equals the answer's: "18.00" equals "18", "1,000" equals "1000"."""
    wanted = number(answer)
    found = stated(completion, form)
    value = None if found is None else number(_MARKUP.sub(r"\1", found.replace("{,}", ",")))
    if value is not None and value == wanted:
        return True
    if not lenient or wanted is None:
        return False
    return last_number(completion) == wanted


def text_is_right(completion: str, answer: str, form: AnswerForm, *, lenient: bool) -> bool:
    """Tells whether the stated answer is `answer`, letter for letter.

    Lenient grading ignores case and spacing, and also accepts the last line of the completion.
    """
    wanted, found = answer.strip(), stated(completion, form)
    if found == wanted:
        return True
    if not lenient:
        return False
    lines = completion[-_TAIL:].strip().splitlines()
    candidates = [found or "", lines[-1] if lines else ""]
    return any(_folded(c) == _folded(wanted) for c in candidates if c)


def _folded(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").casefold()


_SPACES = re.compile(r"\\[,!;: ]|\\(?:left|right|displaystyle)(?![a-zA-Z])|[\s$~]+")
_WORDS = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")


def same_latex(one: str, other: str) -> bool:
    """Tells whether two LaTeX answers are written alike but for spacing and sizes.

    Answers that are written differently may still be equal, so False decides nothing.
    """
    return _plain_latex(one) == _plain_latex(other) != ""


def _plain_latex(text: str) -> str:
    text = _WORDS.sub(r"\1", text[:_TAIL])
    return _SPACES.sub("", text).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac").removesuffix(".")
