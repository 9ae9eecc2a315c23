"""Prompt templates, and how a prompt becomes token ids."""

from typing import Any

import pytest

from capacity.errors import SpecError
from capacity.sampling.prompts import prompt_ids
from capacity.tasks.task import Item
from capacity.tasks.templates import PAPER, TEMPLATES, chat_choice, template


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_holds_the_problem_once_and_asks_for_its_form(name: str) -> None:
    found = TEMPLATES[name]
    assert found.user.count("{problem}") == 1
    assert found.text("2+2={}?").count("2+2={}?") == 1
    roles = [role for role, _ in found.messages("2+2?")]
    assert roles == (["user"] if found.system is None else ["system", "user"])
    if found.form == "hash":
        assert "####" in found.user
    assert found.source


def test_problems_with_braces_are_taken_as_they_are() -> None:
    assert TEMPLATES["bare"].text(r"\frac{1}{2} {problem}") == r"\frac{1}{2} {problem}"


def test_text_ends_where_a_completion_begins() -> None:
    assert TEMPLATES["hash"].text("Q").endswith("\n")
    assert TEMPLATES["bare"].text("Q") == "Q"
    assert TEMPLATES["boxed"].text("Q").startswith("You are a helpful assistant.\n\nQ\n")


def test_names() -> None:
    assert template("paper") is TEMPLATES[PAPER]
    with pytest.raises(SpecError, match=r"unknown template 'boxd': did you mean boxed"):
        template("boxd")
    with pytest.raises(SpecError, match="chat=yes: choose model"):
        chat_choice("yes")


class _Tokenizer:
    chat_template: str | None = "…"
    all_special_ids: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def apply_chat_template(self, messages: Any, **options: Any) -> list[int] | str:
        assert options["add_generation_prompt"]
        assert options["date_string"]  # else some templates write today's date
        text = "".join(f"<{m['role']}>{m['content']}" for m in messages)
        return list(text.encode()) if options["tokenize"] else text


def test_messages_go_through_the_models_own_chat_template() -> None:
    chat = Item("i", "Q\n", "1", (("system", "S"), ("user", "Q")))
    assert bytes(prompt_ids(_Tokenizer(), chat)) == b"<system>S<user>Q"
    assert bytes(prompt_ids(_Tokenizer(), Item("i", "Q\n", "1"))) == b"Q\n"


def test_a_tokenizer_without_chat_template_is_refused() -> None:
    bare = _Tokenizer()
    bare.chat_template = None
    with pytest.raises(SpecError, match="no chat template: add chat=none to the task"):
        prompt_ids(bare, Item("i", "Q", "1", (("user", "Q"),)))
