"""Whether a tokenizer can spell a task's text. One that drops letters gives prompts without words."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from capacity.errors import SpecError
from capacity.tasks.task import Item

_SHOWN = 40  # characters of a text that a message quotes


def check_spelling(tokenizer: Any, items: Iterable[Item], model: str, texts: Iterable[str] = ()) -> None:
    """Checks that prompts, reference answers and further texts survive encoding and decoding.

    Spaces, capitals and the Unicode form of a letter may change, because tokenizers of good models change them.

    Args:
        tokenizer: of the model.
        items: whose prompts and answers are checked.
        model: its name, for the message.
        texts: further texts, such as demonstrations.

    Raises:
        SpecError: characters are lost; the message shows the text and what is left of it.
    """
    for item in items:
        prompts = [content for _, content in item.messages] or [item.prompt]
        for text in (*prompts, item.answer):
            _check(tokenizer, text, model, f"item {item.id}")
    for text in texts:
        _check(tokenizer, text, model, "a demonstration")


def _check(tokenizer: Any, text: str, model: str, where: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    # Special tokens count here: a text that holds one is spelled, and is refused elsewhere for what it is.
    if _letters(tokenizer.decode(ids, skip_special_tokens=False)) != _letters(text):
        read = tokenizer.decode(ids, skip_special_tokens=True)
        raise SpecError(
            f"{where}: the tokenizer of {model} cannot spell this task: it reads {_short(text)} as {_short(read)}: "
            "take a model whose tokenizer knows these characters, or another task"
        )


def _letters(text: str) -> str:
    """The text without what a tokenizer may change."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
