"""Defines the tasks `reasoning-gym:NAME`, over a hundred generated tasks of the package reasoning-gym.

Each task has a verifier of its own. Problems are generated from a seed: first those of test, then validation, then
train. So a larger train split changes neither of the others. A task with few different problems repeats them. Train and
validation leave out what is in test.
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
from capacity.tasks.grading.answer_type import same_type
from capacity.tasks.grading.numbers import last_number, shown
from capacity.tasks.grading.verifier import verifier
from capacity.tasks.references import PLACES
from capacity.tasks.task import Item, Split
from capacity.tasks.templates import Chat, Template, chat_choice, template

NAME = "reasoning-gym"
SIZES: dict[Split, int] = {"test": 256, "validation": 128, "train": 2048}
_TOTAL = sum(SIZES.values())
_OWN = ("task", "demonstrations", "template", "chat", "grading", "max_new_tokens")
_SEED = 42


@dataclass(frozen=True)
class GymTask:
    """A gym task is a task of reasoning-gym with its options.

    Attributes:
        task: the name of the task in reasoning-gym.
        config: the options of the task with `size` and `seed`, as canonical JSON.
        template: the template of the prompts. It also says where the answer is expected.
        chat: "model" if prompts are wrapped in the model's own chat format, else "none".
        grading: the grading, strict or lenient, that gives the reward.
        style: "answers" if the reference answer is the demonstration, else "none".
        max_new_tokens: the largest number of tokens of a completion.
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
        """Tells whether the task has demonstrations for `sft`."""
        return self.style != "none"

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """Returns the first `count` items of `split`, or all of them if `count` is None.

        Raises:
            DataError: if the split has fewer than `count` items.
            SpecError: if a reference answer cannot stand where the template asks for it.
        """
        problems = _problems(self.task, self.config, split)
        form = self.template.form
        for index, _, answer in problems:
            if answers.stated(answers.shown(answer, form), form) != (answer.strip() or None):
                raise SpecError(
                    f"task {NAME}:{self.task}: the answer of problem {index} cannot stand {PLACES[form]}: "
                    "take template=boxed or template=bare"
                )
        if count is not None and count > len(problems):
            raise DataError(
                f"task {NAME}:{self.task}: {split} has {len(problems):,} different items, {count:,} were asked for"
            )
        return [self._item(*problem) for problem in problems[:count]]

    def _item(self, index: int, question: str, answer: str) -> Item:
        messages = self.template.messages(question) if self.chat == "model" else ()
        return Item(f"{self.task}-{index}", self.template.text(question), answer, messages)

    def demonstrations(self, item: Item, count: int, rng: np.random.Generator) -> list[str]:  # noqa: ARG002
        """Returns the reference answer `count` times. These tasks have no worked solutions.

        Raises:
            SpecError: if the task was opened without demonstrations, or the item has no reference answer.
        """
        if self.style == "none":
            raise SpecError(f"task {NAME}:{self.task}?demonstrations=none has no demonstrations")
        if not item.answer:
            raise SpecError(f"task {NAME}:{self.task}: item {item.id} has no reference answer to demonstrate: use grpo")
        return [answers.shown(item.answer, self.template.form)] * count

    def grade(self, item: Item, completion: str) -> bool:
        """Tells whether a completion is rewarded. Grading is strict unless the task was opened with grading=lenient."""
        return (
            self.grade_lenient(item, completion) if self.grading == "lenient" else self.grade_strict(item, completion)
        )

    def grade_strict(self, item: Item, completion: str) -> bool:
        """Tells whether the verifier gives full marks to the answer that stands where the template asks for it."""
        found = answers.stated(completion, self.template.form)
        return found is not None and self._full_marks(item, found)

    def grade_lenient(self, item: Item, completion: str) -> bool:
        """Tells whether strict grading, the last line of the completion or its last number gets full marks."""
        lines = completion.strip().splitlines()
        number = last_number(completion)
        candidates = [lines[-1].strip() if lines else "", "" if number is None else shown(number)]
        return self.grade_strict(item, completion) or any(self._full_marks(item, c) for c in candidates if c)

    def _full_marks(self, item: Item, answer: str) -> bool:
        if answer == item.answer:
            return True
        index = int(item.id.rpartition("-")[2])
        return same_type(answer, item.answer) and _full_marks(self.task, self.config, index, answer)


@lru_cache(maxsize=65_536)
def _full_marks(task: str, config: str, index: int, answer: str) -> bool:
    return verifier("gym").right(task=task, config=config, index=index, text=answer)


@lru_cache(maxsize=8)
def _problems(task: str, config: str, split: Split) -> tuple[tuple[int, str, str], ...]:
    """Returns (index, question, reference answer) of the items of a split, without items of earlier splits.

    Generating a problem may take a while, so only the split that is asked for is generated. In test and validation all
    questions differ. Train may repeat a question as often as the generator does.
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
    """Returns the options of a reasoning-gym task as canonical JSON, after reasoning-gym itself has checked them."""
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
    """Reads `reasoning-gym:NAME?option=value&…`. NAME comes as the option `task`.

    Options of the named task are handed to reasoning-gym.

    Raises:
        SpecError: if a task or option is unknown, or reasoning-gym refuses a value.
        CapacityError: if reasoning-gym is not installed.
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
    """Opens the reasoning-gym task of a spec.

    Raises:
        SpecError: if a task or option is unknown, or reasoning-gym refuses a value.
        CapacityError: if reasoning-gym is not installed.
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
