"""Finds the tokens that end what a model writes. They follow from the model's own configuration and chat format."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from capacity.errors import SpecError
from capacity.models.chat import chat_text
from capacity.tasks.task import Item

_WORD = "4711"  # stands for an answer whose end is looked for


@dataclass(frozen=True)
class EndTokens:
    """The tokens that end what a model writes.

    Attributes:
        ids: a completion ends at the first of these tokens, which stand in ascending order.
        text: the token that ends a demonstration after a plain prompt, the tokenizer's end of sequence.
        turn: the token that ends a demonstration after a prompt in the chat format.
    """

    ids: tuple[int, ...]
    text: int
    turn: int

    def after(self, item: Item) -> int:
        """Returns the token that ends a demonstration of `item`."""
        return self.turn if item.messages else self.text

    def unended(self, completions: Sequence[Sequence[int]]) -> int:
        """Returns how many completions were cut off before their end."""
        return sum(not set(self.ids).intersection(ids) for ids in completions)

    def texts(self, tokenizer: Any, completions: Sequence[Sequence[int]]) -> list[str]:
        """Returns the texts of completions, without special tokens and the tokens that end them."""
        kept = [[token for token in ids if token not in self.ids] for ids in completions]
        found: list[str] = tokenizer.batch_decode(kept, skip_special_tokens=True)
        return found


def end_tokens(model: nn.Module, tokenizer: Any) -> EndTokens:
    """Returns the tokens that end what a model writes.

    A completion ends at every token that the model's generation config lists, and at the tokenizer's end of sequence.
    It also ends at the token that ends the assistant's turn in the chat format. Such models as Gemma 3 and Phi 3.5 end
    their turns with another token than the tokenizer's.

    Args:
        model: a transformers model, or a PEFT model around one.
        tokenizer: its tokenizer, with an end of sequence.
    """
    listed = listed_ends(getattr(model, "generation_config", None))
    text = int(tokenizer.eos_token_id)
    turn = turn_end(tokenizer, listed)
    turn = text if turn is None else turn
    return EndTokens(tuple(sorted({*listed, text, turn})), text, turn)


def listed_ends(generation_config: Any) -> tuple[int, ...]:
    """Returns the end tokens that a generation config lists."""
    found = getattr(generation_config, "eos_token_id", None)
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list | tuple) else (int(found),)


def turn_end(tokenizer: Any, listed: Sequence[int] = ()) -> int | None:
    """Returns the token that ends the assistant's turn in the chat format.

    It is the first token after an answer that is special or one of `listed`.

    Returns:
        The token, or None if there is no chat format that takes an answer, or no such token in it.
    """
    try:
        text = chat_text(tokenizer, (("user", "?"), ("assistant", _WORD)), asks=False)
    except SpecError:  # prompts in this format say what is wrong with it, and plain prompts do without
        return None
    _, word, rest = text.rpartition(_WORD)
    if not word:
        return None
    special = tokenizer.added_tokens_decoder
    for token in tokenizer.encode(rest, add_special_tokens=False):
        if token in listed or (token in special and special[token].special):
            return int(token)
    return None
