"""`reasoning-gym:NAME`: over a hundred procedural tasks with verifiers of their own, from the package reasoning-gym.

Problems are generated from a seed: those of test first, then validation, then train, so a larger train split changes
neither of the others. A task with few different problems repeats them; train and validation leave out what is in test.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from capacity.errors import CapacityError, DataError, SpecError, unknown
from capacity.spec.parts import TaskSpec
from capacity.tasks.data_sets import Grading
from capacity.tasks.grading import answers
from capacity.tasks.grading.verifier import verifier
from capacity.tasks.task import Item, Split
from capacity.tasks.templates import Chat, Template, chat_choice, template

NAME = "reasoning-gym"
SIZES: dict[Split, int] = {"test": 256, "validation": 128, "train": 2048}
_TOTAL = sum(SIZES.values())
_OWN = ("task", "demonstrations", "template", "chat", "grading", "max_new_tokens")
_SEED = 42


@dataclass(frozen=True)
class GymTask:
    """A task of reasoning-gym.

    Attributes:
        task: its name there.
        config: its options, as canonical JSON, with `size` and `seed`.
        template, chat, grading, max_new_tokens: as for other tasks.
        style: "answers" (the reference answer is the demonstration) or "none".
    """

    task: str
    config: str
    template: Template
    chat: Chat
    grading: Grading
    style: Literal["answers", "none"]
    max_new_tokens: int

    name = NAME

    @property
    def has_demonstrations(self) -> bool:
        """Whether there is anything for `sft` to learn from."""
        return self.style != "none"

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """The first `count` items of `split`, or all.

        Raises:
            DataError: the split has fewer than `count`.
        """
        problems = _problems(self.task, self.config, split)
        if count is not None and count > len(problems):
            raise DataError(
                f"task {NAME}:{self.task}: {split} has {len(problems):,} different items, {count:,} were asked for"
            )
        return [self._item(*problem) for problem in problems[:count]]

    def _item(self, index: int, question: str, answer: str) -> Item:
        messages = self.template.messages(question) if self.chat == "model" else ()
        return Item(f"{self.task}-{index}", self.template.text(question), answer, messages)

    def demonstrations(self, item: Item, count: int, rng: np.random.Generator) -> list[str]:  # noqa: ARG002
        """The reference answer `count` times: these tasks bring no worked solutions.

        Raises:
            SpecError: the task was opened without demonstrations, or this item has no reference answer.
        """
        if self.style == "none":
            raise SpecError(f"task {NAME}:{self.task}?demonstrations=none has no demonstrations")
        if not item.answer:
            raise SpecError(f"task {NAME}:{self.task}: item {item.id} has no reference answer to demonstrate: use grpo")
        return [answers.shown(item.answer, self.template.form)] * count

    def grade(self, item: Item, completion: str) -> bool:
        """The reward: strict grading unless the task was opened with grading=lenient."""
        return (
            self.grade_lenient(item, completion) if self.grading == "lenient" else self.grade_strict(item, completion)
        )

    def grade_strict(self, item: Item, completion: str) -> bool:
        """Whether the task's verifier gives full marks to what stands where the template asks for the answer."""
        found = answers.stated(completion, self.template.form)
        return found is not None and self._full_marks(item, found)

    def grade_lenient(self, item: Item, completion: str) -> bool:
        """Also where the last line of the completion, or its last number, gets full marks."""
        lines = completion.strip().splitlines()
        number = answers.last_number(completion)
        candidates = [lines[-1].strip() if lines else "", "" if number is None else f"{number:f}"]
        return self.grade_strict(item, completion) or any(self._full_marks(item, c) for c in candidates if c)

    def _full_marks(self, item: Item, answer: str) -> bool:
        return answer == item.answer or _full_marks(self.task, self.config, int(item.id.rpartition("-")[2]), answer)


@lru_cache(maxsize=65_536)
def _full_marks(task: str, config: str, index: int, answer: str) -> bool:
    return verifier("gym").right(task=task, config=config, index=index, text=answer)


@lru_cache(maxsize=8)
def _problems(task: str, config: str, split: Split) -> tuple[tuple[int, str, str], ...]:
    """(index, question, reference answer) of the items of a split, without those of the splits before it.

    Generating a problem may take a while, so only what is asked for is generated. In test and validation no question
    stands twice; train may repeat one as often as the generator does.
    """
    order = list(SIZES)
    before = order[: order.index(split)]
    seen = {question for earlier in before for _, question, _ in _problems(task, config, earlier)}
    first = sum(SIZES[earlier] for earlier in before)
    generated = _gym().create_dataset(task, **json.loads(config))
    problems = []
    for index in range(first, first + SIZES[split]):
        try:
            problem = generated[index]
        except (ValueError, RuntimeError) as error:
            raise SpecError(
                f"task {NAME}:{task}: with these options it generates no problem {index}: {error}"
            ) from None
        question, answer = str(problem["question"]), problem["answer"]
        if question in seen:
            continue
        problems.append((index, question, "" if answer is None else str(answer)))
        if split != "train":
            seen.add(question)
    return tuple(problems)


def _gym() -> Any:
    if find_spec("reasoning_gym") is None:
        raise CapacityError(f"{NAME} needs a package: pip install reasoning-gym")
    import reasoning_gym

    return reasoning_gym


def _config_of(task: str, options: Mapping[str, float | str]) -> str:
    """The options of a reasoning-gym task as canonical JSON, checked by reasoning-gym itself."""
    gym = _gym()
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        raise unknown(f"{NAME} task", task, DATASETS)
    fields = {f.name: f for f in dataclasses.fields(DATASETS[task][1]) if f.name not in ("seed", "size")}
    for name in options:
        if name not in fields:
            raise unknown(f"option of task {NAME}:{task}", name, (*_OWN[1:], *fields))
    given = {name: int(v) if isinstance(v, float) and v == int(v) else v for name, v in options.items()}
    config = json.dumps({**given, "seed": _SEED, "size": _TOTAL}, sort_keys=True)
    try:
        gym.create_dataset(task, **json.loads(config))
    except (AssertionError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"task {NAME}:{task}: {' '.join(str(error).split()) or type(error).__name__}") from None
    return config


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def parse_gym(options: Mapping[str, str]) -> TaskSpec:
    """Reads `reasoning-gym:NAME?option=value&…`; NAME comes as the option `task`. Its own options pass through.

    Raises:
        SpecError: an unknown task or option (the nearest is offered), or a value that reasoning-gym refuses.
    """
    if not options.get("task"):
        raise SpecError(f"{NAME} needs the name of a task: {NAME}:chain_sum, {NAME}:countdown, …")
    own: dict[str, float | str] = {
        "template": options.get("template", "hash"),
        "chat": options.get("chat", "model"),
        "grading": options.get("grading", "strict"),
        "max_new_tokens": _value(options.get("max_new_tokens", "256")),
        "task": options["task"],
    }
    passed = {name: _value(value) for name, value in options.items() if name not in _OWN}
    spec = TaskSpec(name=NAME, demonstrations=options.get("demonstrations", "answers"), options={**passed, **own})
    open_gym(spec)
    return spec


def open_gym(spec: TaskSpec) -> GymTask:
    """The task of a spec.

    Raises:
        SpecError: as `parse_gym`.
        CapacityError: reasoning-gym is not installed.
    """
    options = dict(spec.options)
    task, asked, chat = str(options.pop("task")), str(options.pop("template")), str(options.pop("chat"))
    graded, tokens = options.pop("grading"), options.pop("max_new_tokens")
    if graded not in ("strict", "lenient"):
        raise unknown("grading", str(graded), ("strict", "lenient"))
    if not isinstance(tokens, float | int) or tokens < 1 or tokens != int(tokens):
        raise SpecError(f"task {NAME}: max_new_tokens={tokens} is no whole number above 0")
    if spec.demonstrations not in ("answers", "none"):
        raise SpecError(f"task {NAME} has no {spec.demonstrations} to demonstrate: choose from answers, none")
    return GymTask(
        task=task,
        config=_config_of(task, options),
        template=template(asked),
        chat=chat_choice(chat),
        grading="lenient" if graded == "lenient" else "strict",
        style="answers" if spec.demonstrations == "answers" else "none",
        max_new_tokens=int(tokens),
    )
