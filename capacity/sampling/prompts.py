"""Turns an item into the token ids of its prompt, in the model's own chat format where the task asks for it."""

from typing import Any

from capacity.errors import SpecError
from capacity.tasks.task import Item

# Some chat templates write today's date into the prompt, by which a run could not be made again. Theirs is the date
# that Llama 3's template itself falls back to.
_DATE = "26 Jul 2024"


def prompt_ids(tokenizer: Any, item: Item) -> list[int]:
    """The token ids of an item's prompt, with whatever the tokenizer or its chat template puts around it.

    Raises:
        SpecError: the task asks for a chat format and the tokenizer has none.
    """
    if not item.messages:
        ids: list[int] = tokenizer.encode(item.prompt)
        return ids
    if not getattr(tokenizer, "chat_template", None):
        raise SpecError("the model's tokenizer has no chat template: add chat=none to the task")
    messages = [{"role": role, "content": content} for role, content in item.messages]
    found: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False, date_string=_DATE
    )
    return found
