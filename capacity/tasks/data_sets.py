"""Tasks whose problems are rows of a data set: what is common to GSM8K, MATH, the evaluation sets and own files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal, get_args

import numpy as np

from capacity.errors import DataError, SpecError, unknown
from capacity.spec.parts import TaskSpec
from capacity.tasks.grading import answers
from capacity.tasks.grading.verifier import verifier
from capacity.tasks.hub import GitFile, HubFile, fetch
from capacity.tasks.rows import SPLITS, ReadRow, Row, Rows, carved, keep, kept, named_files, read_rows
from capacity.tasks.task import Item, Split
from capacity.tasks.templates import Chat, Template, chat_choice, template

Compare = Literal["number", "latex", "text"]
Grading = Literal["strict", "lenient"]
Style = Literal["solutions", "answers", "none"]
VALIDATION_SHARE = 1 / 16  # of train, where a data set brings no validation split
_MOST_TOKENS = 1_000_000
_LONGEST_ANSWER = 1_000  # characters; a longer one is not compared, no reference comes near


@dataclass(frozen=True)
class DataSet:
    """A data set and the way it is usually asked and graded.

    Attributes:
        name: of the task.
        splits: that can be read; a validation split that is not among them is carved from train.
        read: what makes a row of a record.
        files: where its splits are, pinned; empty for a user's own data.
        sizes: rows of its splits after carving, where known.
        compare: as numbers, as LaTeX (math-verify) or as text.
        template, max_new_tokens: the defaults.
        solved: it has worked solutions.
        about: one line for the list of tasks.
    """

    name: str
    splits: tuple[Split, ...]
    read: ReadRow
    compare: Compare
    template: str
    max_new_tokens: int
    about: str
    files: Mapping[Split, HubFile | GitFile] = field(default_factory=dict)
    sizes: Mapping[Split, int] = field(default_factory=dict)
    solved: bool = True

    @property
    def styles(self) -> tuple[Style, ...]:
        """Kinds of demonstrations that there can be, the default first."""
        if "train" not in self.splits:
            return ("none",)
        return ("solutions", "answers", "none") if self.solved else ("answers", "none")


@dataclass(frozen=True)
class WordTask:
    """Problems of a data set in a template, graded strictly or leniently.

    Attributes:
        name: in the catalogue.
        template: of the prompts; it also says where the answer is expected.
        chat: whether prompts are wrapped in the model's own chat format.
        compare: how answers are compared.
        grading: which grade is the reward, and `grade`.
        style: of the demonstrations: the data set's solutions, its bare answers, or none.
        max_new_tokens: of a completion.
        load: gives the rows by split when they are first needed.
        sizes: rows by split, where known before that.
    """

    name: str
    template: Template
    chat: Chat
    compare: Compare
    grading: Grading
    style: Style
    max_new_tokens: int
    load: Callable[[], Rows]
    sizes: Mapping[Split, int]

    @property
    def has_demonstrations(self) -> bool:
        """Whether there is anything for `sft` to learn from."""
        return self.style != "none"

    def available(self, split: Split) -> int | None:
        """Items of a split, where known without reading the data."""
        return self.sizes.get(split)

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return {row.id: row for part in self.load().values() for row in part}

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """The first `count` items of `split`, or all.

        Raises:
            DataError: the split is empty or has fewer than `count`, or the data is not there.
        """
        rows = self.load().get(split, ())
        if not rows:
            raise DataError(f"task {self.name} has no {split} split")
        if count is not None and count > len(rows):
            raise DataError(f"task {self.name}: {split} has {len(rows):,} items, {count:,} were asked for")
        return [self._item(row) for row in rows[:count]]

    def _item(self, row: Row) -> Item:
        messages = self.template.messages(row.problem) if self.chat == "model" else ()
        return Item(row.id, self.template.text(row.problem), row.answer, messages)

    def demonstrations(self, item: Item, count: int, rng: np.random.Generator) -> list[str]:
        """`count` demonstrations of `item`: its solutions in random order, repeated where there are fewer.

        Raises:
            SpecError: the task was opened without demonstrations.
            DataError: this item has no solution.
        """
        different = self.different_demonstrations(item)
        order = rng.permutation(len(different))
        return [different[order[i % len(order)]] for i in range(count)]

    def different_demonstrations(self, item: Item) -> list[str]:
        """The demonstrations that there are of `item`; most data sets have one, which is repeated."""
        if self.style == "none":
            raise SpecError(f"task {self.name}?demonstrations=none has no demonstrations")
        statement = answers.shown(item.answer, self.template.form)
        if self.style == "answers":
            return [statement]
        solutions = self._rows[item.id].solutions
        if not solutions:
            raise DataError(f"task {self.name}: item {item.id} has no solution: take demonstrations=answers, or grpo")
        return [self._ended(solution, item, statement) for solution in solutions]

    def _ended(self, solution: str, item: Item, statement: str) -> str:
        """The solution, with the answer stated as the template asks if it does not do so itself."""
        form = self.template.form
        if form == "whole" or (form == "boxed" and answers.boxed(solution) is not None):
            return solution
        return f"{solution.rstrip()}\n{statement}" if answers.stated(solution, form) != item.answer else solution

    def grade(self, item: Item, completion: str) -> bool:
        """The reward: strict grading unless the task was opened with grading=lenient."""
        return self._right(item, completion, lenient=self.grading == "lenient")

    def grade_strict(self, item: Item, completion: str) -> bool:
        """Whether the answer stands where the template asks for it, and is right."""
        return self._right(item, completion, lenient=False)

    def grade_lenient(self, item: Item, completion: str) -> bool:
        """Whether the answer that the completion seems to give is right."""
        return self._right(item, completion, lenient=True)

    def _right(self, item: Item, completion: str, *, lenient: bool) -> bool:
        form = self.template.form
        if self.compare == "number":
            return answers.number_is_right(completion, item.answer, form, lenient=lenient)
        if self.compare == "text":
            return answers.text_is_right(completion, item.answer, form, lenient=lenient)
        return latex_is_right(completion, item.answer, form, lenient=lenient)


def latex_is_right(completion: str, answer: str, form: answers.AnswerForm, *, lenient: bool) -> bool:
    """Whether the completion's answer equals `answer` by math-verify; False beyond its limits of time and memory."""
    found = answers.stated(completion, form)
    comparable = found is not None and len(found) <= _LONGEST_ANSWER
    if comparable and (answers.same_latex(str(found), answer) or _equal(answer, str(found), stated=True)):
        return True
    return lenient and bool(completion.strip()) and _equal(answer, completion, stated=False)


@lru_cache(maxsize=65_536)  # strict and lenient grades of a completion, and its repetitions, are worked out once
def _equal(answer: str, text: str, *, stated: bool) -> bool:
    return verifier("math").right(answer=answer, text=text, stated=stated)


_FILES = ("path", "train", "validation", "test")
OPTIONS = ("demonstrations", "template", "chat", "grading", "compare", "max_new_tokens", "data", "revision")


def parse_words(data: DataSet, options: Mapping[str, str]) -> TaskSpec:
    """Reads the options of a task; files that they name are read, checked and kept in the cache.

    Raises:
        SpecError: an unknown option, or a value out of range.
        DataError: a file that is missing or not of the schema.
    """
    for name in options:
        if name not in OPTIONS + _FILES:
            raise unknown(f"option of task {data.name}", name, OPTIONS + _FILES)
    given = {name: value for name, value in options.items() if name in _FILES}
    if given and ("data" in options or "revision" in options):
        raise SpecError(f"task {data.name}: files and data= or revision= cannot be given together")
    chosen: dict[str, float | str] = {k: v for k, v in options.items() if k not in ("demonstrations", *_FILES)}
    style = options.get("demonstrations")
    if given:
        paths = named_files(given, data.splits if data.splits[0] == "test" else SPLITS)
        rows = carved({s: read_rows(p, numbered(data.read, s)) for s, p in paths.items()}, data.name, VALIDATION_SHARE)
        chosen["data"] = keep(rows)
        style = style or style_of(rows)
    return complete_spec(data, style, chosen)


def style_of(rows: Rows) -> Style:
    """The kind of demonstrations that rows have: solutions if every row of train has one."""
    train = rows.get("train", ())
    if not train:
        return "none"
    return "solutions" if all(row.solutions for row in train) else "answers"


def numbered(read: ReadRow, prefix: str) -> ReadRow:
    """Rows without an id of their own are numbered within their file."""

    def row_of(record: Mapping[str, Any], number: int) -> Row:
        row = read(record, number)
        return row if row.id else Row(f"{prefix}-{number}", row.problem, row.answer, row.solutions)

    return row_of


def complete_spec(data: DataSet, style: str | None, chosen: Mapping[str, float | str]) -> TaskSpec:
    """The spec with every option that decides results written out.

    Raises:
        SpecError: a value out of range.
    """
    name = data.name
    styles = data.styles
    style = styles[0] if style is None else style
    if style not in get_args(Style):
        raise unknown("demonstrations", style, get_args(Style))
    if style not in styles and "data" not in chosen:
        raise SpecError(f"task {name} has no {style} to demonstrate: choose from {', '.join(styles)}")
    graded, compared = str(chosen.get("grading", "strict")), str(chosen.get("compare", data.compare))
    if graded not in get_args(Grading):
        raise unknown("grading", graded, get_args(Grading))
    if compared not in get_args(Compare):
        raise unknown("comparison", compared, get_args(Compare))
    asked = str(chosen.get("template", data.template))
    template(asked)
    try:
        tokens = float(chosen.get("max_new_tokens", data.max_new_tokens))
    except ValueError:
        tokens = 0.0
    if not (1 <= tokens <= _MOST_TOKENS and tokens == int(tokens)):
        raise SpecError(f"task {name}: max_new_tokens={chosen['max_new_tokens']} is no whole number above 0")
    full: dict[str, float | str] = {
        "template": asked,
        "chat": chat_choice(str(chosen.get("chat", "none" if asked == "bare" else "model"))),
        "grading": graded,
        "compare": compared,
        "max_new_tokens": tokens,
    }
    full |= {k: str(chosen[k]) for k in ("data", "revision") if k in chosen}
    if "data" not in full and not data.files:
        raise SpecError(f"task {name} needs a file or a folder: {name}:PATH")
    return TaskSpec(name=name, demonstrations=style, options=full)


def open_words(data: DataSet, spec: TaskSpec) -> WordTask:
    """The task of a spec; its data is read when first needed.

    Raises:
        SpecError: options that it does not have.
        DataError: data that is no longer in the cache.
    """
    options = complete_spec(data, spec.demonstrations, spec.options).options
    digest, revision = options.get("data"), options.get("revision")
    if digest is not None:
        local = kept(str(digest))
        sizes: Mapping[Split, int] = {split: len(rows) for split, rows in local.items()}
    else:
        sizes = data.sizes if revision is None else {}

    def load() -> Rows:
        return kept(str(digest)) if digest is not None else fetched(data, None if revision is None else str(revision))

    return WordTask(
        name=data.name,
        template=template(str(options["template"])),
        chat=chat_choice(str(options["chat"])),
        compare=next(c for c in get_args(Compare) if c == options["compare"]),
        grading="lenient" if options["grading"] == "lenient" else "strict",
        style=next(s for s in get_args(Style) if s == spec.demonstrations),
        max_new_tokens=int(options["max_new_tokens"]),
        load=load,
        sizes=sizes,
    )


def fetched(data: DataSet, revision: str | None) -> Rows:
    """The rows of a public data set, at its pinned revision or another."""
    files = {s: f if revision is None else type(f)(f.repository, f.path, revision) for s, f in data.files.items()}
    return _read_fetched(data.name, data.read, tuple(files.items()))


@lru_cache(maxsize=4)
def _read_fetched(name: str, read: ReadRow, files: tuple[tuple[Split, HubFile | GitFile], ...]) -> Rows:
    rows = {split: read_rows(fetch(file, f"{name} ({split})"), numbered(read, split)) for split, file in files}
    return carved(rows, name, VALIDATION_SHARE)
