"""Puts messages into a model's own chat format, which its tokenizer holds as a template."""

from collections.abc import Sequence
from typing import Any

from capacity.errors import SpecError
from capacity.tasks.templates import Messages, folded

# Some chat templates write today's date into the prompt, by which a run could not be made again. Theirs is the date
# that Llama 3's template itself falls back to.
_DATE = "26 Jul 2024"
_MARK = "system-4711"  # stands for a system message that may be left out


def chat_text(tokenizer: Any, messages: Messages, *, asks: bool = True) -> str:
    """Returns messages as the text that the chat template makes of them.

    Args:
        tokenizer: the tokenizer of the model.
        messages: (role, content) pairs.
        asks: True if the text is to end where the assistant's turn begins.

    Raises:
        SpecError: if the tokenizer has no chat template, or its template has a fault or refuses the messages.
    """
    text: str = _applied(tokenizer, messages, asks=asks, tokenize=False)
    return text


def chat_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """Returns the token ids of messages in the chat format, up to where the assistant's turn begins.

    A system message that the template does not take stands in the user's turn.

    Raises:
        SpecError: as `chat_text`.
    """
    ids: list[int] = _applied(tokenizer, taken(tokenizer, messages), asks=True, tokenize=True)
    return ids


def taken(tokenizer: Any, messages: Messages) -> Messages:
    """Returns messages in the form in which the chat template takes them.

    Some templates, such as Gemma's, refuse a system message, and some leave it out. It then comes first in the user's
    turn, as the documents of these models say.
    """
    if all(role != "system" for role, _ in messages):
        return messages
    marked = tuple((role, _MARK if role == "system" else content) for role, content in messages)
    try:
        text = chat_text(tokenizer, marked)
    except SpecError:
        return folded(messages)
    return messages if _MARK in text else folded(messages)


def _applied(tokenizer: Any, messages: Sequence[tuple[str, str]], *, asks: bool, tokenize: bool) -> Any:
    if not getattr(tokenizer, "chat_template", None):
        raise SpecError("the model's tokenizer has no chat template: add chat=none to the task")
    given = [{"role": role, "content": content} for role, content in messages]
    options = {"add_generation_prompt": asks, "tokenize": tokenize, "return_dict": False, "date_string": _DATE}
    try:
        return tokenizer.apply_chat_template(given, **options)
    except Exception as error:  # a template is a program of the model's author: it may raise anything
        line = getattr(error, "lineno", None)
        place = "" if line is None else f"line {line}: "
        where = getattr(tokenizer, "name_or_path", "") or "the model"
        raise SpecError(
            f"{where}: the chat template cannot be used: {place}{' '.join(str(error).split())}: mend the tokenizer's "
            "chat_template, or add chat=none to the task"
        ) from None
