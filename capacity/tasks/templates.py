"""Prompt templates say how a problem becomes a prompt, and where its answer is expected.

The template decides how well an untrained model does. So its name is part of every run.
"""

from dataclasses import dataclass
from typing import Literal

from capacity.errors import SpecError, unknown
from capacity.tasks.grading.answers import MARK, AnswerForm

Chat = Literal["model", "none"]
Messages = tuple[tuple[str, str], ...]  # (role, content) pairs
CHATS: tuple[Chat, ...] = ("model", "none")


@dataclass(frozen=True)
class Template:
    """A template turns a problem into a prompt.

    Attributes:
        user: the text of the prompt, with "{problem}" once.
        form: the form in which strict grading expects the answer.
        system: the system message, if there is one.
        source: the work that the template comes from.
    """

    user: str
    form: AnswerForm
    system: str | None = None
    source: str = "this project"

    def text(self, problem: str) -> str:
        """Returns the prompt as plain text, for models without a chat format."""
        body = self.user.replace("{problem}", problem)
        ended = body if self.form == "whole" or body.endswith("\n") else body + "\n"
        return ended if self.system is None else f"{self.system}\n\n{ended}"

    def messages(self, problem: str) -> Messages:
        """Returns the prompt as (role, content) pairs, for a chat format."""
        user = ("user", self.user.replace("{problem}", problem))
        return (user,) if self.system is None else (("system", self.system), user)


TEMPLATES: dict[str, Template] = {
    "hash": Template(
        user="{problem}\n\nReason step by step. Write the final answer alone on the last line, after " + MARK + ".",
        form="hash",
    ),
    "boxed": Template(
        user="{problem}\nPlease reason step by step, and put your final answer within \\boxed{}.",
        system="You are a helpful assistant.",
        form="boxed",
        source="SimpleRL-Zoo (arXiv 2503.18892), its template for Qwen models",
    ),
    "question": Template(
        user="Question:\n{problem}\nAnswer:\nLet's think step by step.\n",
        form="boxed",
        source="SimpleRL-Zoo (arXiv 2503.18892), its template for models that follow no format",
    ),
    "bare": Template(user="{problem}", form="whole"),
}
# TinyLoRA (arXiv 2602.04118) takes its MATH set-up from SimpleRL-Zoo and does not print its GSM8K prompt.
PAPER = "boxed"


def template(name: str) -> Template:
    """Returns a template by its name. The name "paper" means the template of the reference paper's set-up.

    Raises:
        SpecError: if there is no such template.
    """
    name = PAPER if name == "paper" else name
    if name not in TEMPLATES:
        raise unknown("template", name, [*TEMPLATES, "paper"])
    return TEMPLATES[name]


def folded(messages: Messages) -> Messages:
    """Returns messages with the system message at the beginning of the user's first turn."""
    system = "\n\n".join(content for role, content in messages if role == "system")
    (role, content), *others = (message for message in messages if message[0] != "system")
    return ((role, f"{system}\n\n{content}"), *others)


def chat_choice(text: str) -> Chat:
    """Reads the option that says whether prompts are wrapped in the model's chat format.

    Raises:
        SpecError: if `text` is neither "model" nor "none".
    """
    for chat in CHATS:
        if text == chat:
            return chat
    raise SpecError(f"chat={text}: choose model (the tokenizer's own chat template) or none")
