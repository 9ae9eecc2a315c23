"""Turns an item into the token ids of its prompt, in the model's own chat format where the task asks for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from capacity.errors import SpecError
from capacity.models.chat import chat_ids, taken
from capacity.tasks.task import Item


def prompt_ids(tokenizer: Any, item: Item) -> list[int]:
    """The token ids of an item's prompt, with whatever the tokenizer or its chat template puts around it.

    Raises:
        SpecError: the tokenizer appends a token to prompts, or the task asks for a chat format that it lacks or that
            has a fault.
    """
    if item.messages:
        return chat_ids(tokenizer, item.messages)
    ids: list[int] = tokenizer.encode(item.prompt)
    if ids and ids[-1] in tokenizer.all_special_ids:
        plain = tokenizer.encode(item.prompt, add_special_tokens=False)
        if plain != ids[len(ids) - len(plain) :]:
            raise SpecError(
                f"{tokenizer.name_or_path}: the tokenizer appends {tokenizer.decode(ids[-1:])} to prompts, after which "
                "a model writes no answer: set add_eos_token to false in tokenizer_config.json, or take the token out "
                "of the post_processor in tokenizer.json"
            )
    return ids


def folds_system(tokenizer: Any, items: Sequence[Item]) -> bool:
    """Tells whether the system message of the items' prompts stands in the user's turn.

    It does where the chat template takes no system message.
    """
    return any(taken(tokenizer, item.messages) != item.messages for item in items[:1])


def check_room(context: int | None, lengths: Mapping[str, int], new_tokens: int) -> None:
    """Checks that each prompt and its completion fit the model's context.

    Args:
        context: tokens of the longest sequence that the model takes; None if it does not say.
        lengths: tokens of each prompt, by the name of its item.
        new_tokens: length of a completion, at most.

    Raises:
        SpecError: they do not; the message names the longest.
    """
    if context is None or not lengths:
        return
    longest = max(lengths, key=lengths.__getitem__)
    if lengths[longest] + new_tokens > context:
        raise SpecError(
            f"item {longest} has a prompt of {lengths[longest]:,} tokens, which with {new_tokens:,} new ones exceeds "
            f"the model's context of {context:,}: lower max_new_tokens, or take a model with a longer context"
        )
