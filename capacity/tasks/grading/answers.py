"""Finding the answer in a completion, and comparing it. Pure functions; LaTeX is compared by `verifier`.

Two ways of finding are reported side by side. *Strict*: the answer stands where the prompt asked for it: behind the
last "####", in the last \\boxed{…}, or as the whole text. *Lenient*: also anywhere else; for numbers, the last one of
the text. Whatever is right strictly is right leniently. Every function takes time linear in its text, whatever it is.
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
    """The number that `text` is, with thousands commas, a currency sign, a per-cent sign or a final stop allowed."""
    if len(text) > 4 * _DIGITS:
        return None
    bare = text.strip().replace(",", "").replace("$", "").strip().removesuffix(".").removesuffix("%").strip()
    return Decimal(bare) if _PLAIN.fullmatch(bare) else None


def last_number(text: str) -> Decimal | None:
    """The last number that stands in `text`."""
    for match in reversed(_IN_TEXT.findall(text[-_TAIL:])):
        found = number(match)
        if found is not None:
            return found
    return None


def marked(text: str) -> str | None:
    """What stands behind the last "####", up to the end of the line; None if there is no mark or nothing behind it."""
    _, found, rest = text[-_TAIL:].rpartition(MARK)
    line = rest.strip().partition("\n")[0].strip() if found else ""
    return line or None


def boxed(text: str) -> str | None:
    """The content of the last \\boxed{…} or \\fbox{…} whose braces close; None if there is none or it is empty."""
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
    """The answer where the prompt asked for it; with "whole" nothing but the answer was asked for."""
    if form == "whole":
        return text[-_TAIL:].strip() or None
    return marked(text) if form == "hash" else boxed(text)


def shown(answer: str, form: AnswerForm) -> str:
    """The answer as a completion states it."""
    return {"hash": f"{MARK} {answer}", "boxed": f"\\boxed{{{answer}}}", "whole": answer}[form]


def number_is_right(completion: str, answer: str, form: AnswerForm, *, lenient: bool) -> bool:
    """Whether the completion's number equals the answer's: "18.00" equals "18", "1,000" equals "1000"."""
    wanted = number(answer)
    found = stated(completion, form)
    value = None if found is None else number(_MARKUP.sub(r"\1", found.replace("{,}", ",")))
    if value is not None and value == wanted:
        return True
    if not lenient or wanted is None:
        return False
    return last_number(completion) == wanted


def text_is_right(completion: str, answer: str, form: AnswerForm, *, lenient: bool) -> bool:
    """Whether the stated answer is `answer`, letter for letter; leniently whatever its case, or as the last line."""
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
    """Whether two LaTeX answers are written alike but for spacing and sizes: a quick yes, never a no."""
    return _plain_latex(one) == _plain_latex(other) != ""


def _plain_latex(text: str) -> str:
    text = _WORDS.sub(r"\1", text[:_TAIL])
    return _SPACES.sub("", text).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac").removesuffix(".")
