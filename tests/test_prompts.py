"""Prompts in the chat formats that models bring, and the tokenizers and templates that are refused."""

from typing import Any

import pytest
from chatting import FORMATS, appending, tokenizer_of

from capacity.errors import SpecError
from capacity.sampling.prompts import folds_system, prompt_ids
from capacity.tasks.task import Item
from capacity.tasks.templates import TEMPLATES, folded

BOXED = Item("i", "Q", "4", TEMPLATES["boxed"].messages("2+2?"))
SYSTEM, USER = "You are a helpful assistant.", TEMPLATES["boxed"].user.replace("{problem}", "2+2?")


def text_of(tokenizer: Any, item: Item) -> str:
    return str(tokenizer.decode(prompt_ids(tokenizer, item)))


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("gemma3", f"<bos><start_of_turn>user\n{SYSTEM}\n\n{USER}<end_of_turn>\n<start_of_turn>model\n"),
        ("mistral", f"<bos> [INST] {SYSTEM}\n\n{USER} [/INST]"),
        ("phi3.5", f"<|system|>\n{SYSTEM}<|end|>\n<|user|>\n{USER}<|end|>\n<|assistant|>\n"),
    ],
)
def test_a_system_message_that_a_template_refuses_or_drops_stands_in_the_users_turn(name: str, prompt: str) -> None:
    tokenizer = tokenizer_of(FORMATS[name])
    assert text_of(tokenizer, BOXED) == prompt
    assert folds_system(tokenizer, [BOXED]) == (name != "phi3.5")


def test_prompts_without_a_system_message_are_as_they_were() -> None:
    tokenizer = tokenizer_of(FORMATS["gemma3"])
    item = Item("i", "Q", "4", (("user", "2+2?"),))
    assert text_of(tokenizer, item) == "<bos><start_of_turn>user\n2+2?<end_of_turn>\n<start_of_turn>model\n"
    assert not folds_system(tokenizer, [item])
    assert not folds_system(tokenizer, [])


def test_folding_keeps_the_order_of_the_others() -> None:
    messages = (("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C"))
    assert folded(messages) == (("user", "S\n\nA"), ("assistant", "B"), ("user", "C"))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ bos_token }}\n{% for m in messages %}{{ m['content'] }\n{% endfor %}", "line 2: unexpected '}'"),
        ("{% for m in messages %}{{ m['content'] }}", "line 1: Unexpected end of template"),
        ("{{ raise_exception('Only tools\n are asked') }}", "Only tools are asked"),
        ("{{ messages[0]['content'] + 1 }}", "can only concatenate str"),
    ],
)
@pytest.mark.parametrize("item", [BOXED, Item("i", "Q", "4", (("user", "Q"),))], ids=["system", "user"])
def test_a_chat_template_with_a_fault_is_refused_in_one_line(template: str, reason: str, item: Item) -> None:
    tokenizer = tokenizer_of(FORMATS["gemma3"])
    tokenizer.chat_template = template
    with pytest.raises(SpecError, match=r"the chat template cannot be used: .*add chat=none to the task") as refusal:
        prompt_ids(tokenizer, item)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["2+2?", "What does </s>"])
def test_a_tokenizer_that_appends_its_end_to_prompts_is_refused(text: str) -> None:
    item = Item("i", text, "4")
    with pytest.raises(SpecError, match=r"appends </s> to prompts, .*set add_eos_token to false"):
        prompt_ids(appending(tokenizer_of(FORMATS["plain"])), item)
    assert text_of(tokenizer_of(FORMATS["plain"]), item) == text  # a problem may itself end with such a token
