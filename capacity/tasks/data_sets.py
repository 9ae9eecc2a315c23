"""Defines tasks whose problems are rows of a data set.

Such tasks are GSM8K, MATH, the evaluation sets and the user's own files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from typing import Any, Literal, get_args

import numpy as np

from capacity.errors import DataError, SpecError, unknown
from capacity.spec.parts import TaskSpec
from capacity.tasks.grading import answers
from capacity.tasks.grading.latex import latex_is_right
from capacity.tasks.hub import GitFile, HubFile, fetch
from capacity.tasks.references import Compare, Rule
from capacity.tasks.rows import SPLITS, ReadRow, Row, Rows, carved, check_ids, keep, kept, named_files, read_rows
from capacity.tasks.task import Item, Split
from capacity.tasks.templates import Chat, Template, chat_choice, template

Grading = Literal["strict", "lenient"]
Style = Literal["solutions", "answers", "none"]
VALIDATION_SHARE = 1 / 16  # of train, where a data set brings no validation split
_MOST_TOKENS = 1_000_000


@dataclass(frozen=True)
class DataSet:
    """A data set knows its files, and how it is asked and graded by default.

    Attributes:
        name: the name of the task.
        splits: the splits that can be read. If validation is not among them, it is carved from train.
        read: the function that turns a record into a row.
        files: the pinned files of the splits; empty for a user's own data.
        sizes: the numbers of rows of the splits after carving, if they are known.
        compare: how answers are compared: as numbers, as LaTeX (by math-verify) or as text.
        template, max_new_tokens: the defaults of these options.
        solved: True if the data set has worked solutions.
        ambiguous: True if problems are published twice with different answers. They are kept as they are.
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
    ambiguous: bool = False

    @property
    def styles(self) -> tuple[Style, ...]:
        """Returns the kinds of demonstrations that the data set allows. The default comes first."""
        if "train" not in self.splits:
            return ("none",)
        return ("solutions", "answers", "none") if self.solved else ("answers", "none")


@dataclass(frozen=True)
class WordTask:
    """A word task puts the problems of a data set into a template, and grades answers strictly or leniently.

    Attributes:
        name: the name of the task in the catalogue.
        template: the template of the prompts. It also says where the answer is expected.
        chat: "model" if prompts are wrapped in the model's own chat format, else "none".
        compare: how answers are compared.
        grading: the grading, strict or lenient, that gives the reward.
        style: what the demonstrations are: the solutions of the data set, its bare answers, or none.
        max_new_tokens: the largest number of tokens of a completion.
        load: a function that returns the rows by split. It is called when rows are first needed.
        sizes: the numbers of rows by split, if they are known before loading.
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
        """Tells whether the task has demonstrations for `sft`."""
        return self.style != "none"

    def available(self, split: Split) -> int | None:
        """Returns the number of items of a split; None if it is known only after the data has been read."""
        return self.sizes.get(split)

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return {row.id: row for part in self.load().values() for row in part}

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """Returns the first `count` items of `split`, or all of them if `count` is None.

        Raises:
            DataError: if the split is empty or has fewer than `count` items, or if the data is missing.
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
        """Returns `count` demonstrations of `item`: its solutions in random order, repeated if they are fewer.

        Raises:
            SpecError: if the task was opened without demonstrations.
            DataError: if the item has no solution.
        """
        different = self.different_demonstrations(item)
        order = rng.permutation(len(different))
        return [different[order[i % len(order)]] for i in range(count)]

    def different_demonstrations(self, item: Item) -> list[str]:
        """Returns the different demonstrations of `item`. Most data sets have one solution per item.

        Raises:
            SpecError: if the task was opened without demonstrations.
            DataError: if the item has no solution.
        """
        if self.style == "none":
            raise SpecError(f"task {self.name}?demonstrations=none has no demonstrations")
        statement = answers.shown(item.answer, self.template.form)
        if self.style == "answers":
            return [statement]
        solutions = self._rows[item.id].solutions
        if not solutions:
            raise DataError(f"task {self.name}: item {item.id} has no solution: take demonstrations=answers, or grpo")
        return [self._ended(solution, statement) for solution in solutions]

    def is_demonstrated(self, item: Item) -> bool:
        """Tells whether `item` has a demonstration."""
        return self.style == "answers" or (self.style == "solutions" and bool(self._rows[item.id].solutions))

    def _ended(self, solution: str, statement: str) -> str:
        """Appends the answer, as the template asks for it, unless the solution already states one there.

        A solution that states another answer was refused when its row was read.
        """
        if answers.stated(solution, self.template.form) is not None:
            return solution
        return f"{solution.rstrip()}\n{statement}"

    def grade(self, item: Item, completion: str) -> bool:
        """Tells whether a completion is rewarded. Grading is strict unless the task was opened with grading=lenient."""
        return self._right(item, completion, lenient=self.grading == "lenient")

    def grade_strict(self, item: Item, completion: str) -> bool:
        """Tells whether the answer stands where the template asks for it, and is correct."""
        return self._right(item, completion, lenient=False)

    def grade_lenient(self, item: Item, completion: str) -> bool:
        """Tells whether the answer that the completion seems to give is correct, wherever it stands."""
        return self._right(item, completion, lenient=True)

    def _right(self, item: Item, completion: str, *, lenient: bool) -> bool:
        form = self.template.form
        if self.compare == "number":
            return answers.number_is_right(completion, item.answer, form, lenient=lenient)
        if self.compare == "text":
            return answers.text_is_right(completion, item.answer, form, lenient=lenient)
        return latex_is_right(completion, item.answer, form, lenient=lenient)


_FILES = ("path", "train", "validation", "test")
OPTIONS = ("demonstrations", "template", "chat", "grading", "compare", "max_new_tokens", "data", "revision")


def parse_words(data: DataSet, options: Mapping[str, str]) -> TaskSpec:
    """Reads the options of a task. Files that they name are read, checked and copied into the cache.

    Raises:
        SpecError: if an option is unknown, or a value is out of range.
        DataError: if a file is missing, or does not have the schema of the task.
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
        rule = rule_of(data, options)
        contradict = None if data.ambiguous else rule.contradict
        read = {s: read_rows(p, rule.checked(numbered(data.read, s)), contradict) for s, p in paths.items()}
        rows = carved(read, data.name, VALIDATION_SHARE)
        chosen["data"] = keep(rows)
        style = style or style_of(rows)
    return complete_spec(data, style, chosen)


def rule_of(data: DataSet, options: Mapping[str, float | str]) -> Rule:
    """Returns what the options of a task ask of its rows.

    Raises:
        SpecError: if the comparison or the template is unknown.
    """
    compared = str(options.get("compare", data.compare))
    known = next((c for c in get_args(Compare) if c == compared), None)
    if known is None:
        raise unknown("comparison", compared, get_args(Compare))
    solved = options.get("demonstrations", "solutions") == "solutions"
    return Rule(known, template(str(options.get("template", data.template))).form, solved)


def style_of(rows: Rows) -> Style:
    """Returns the kind of demonstrations that rows allow: "solutions" if every row of train has one, else "answers".

    Without a train split it is "none".
    """
    train = rows.get("train", ())
    if not train:
        return "none"
    return "solutions" if all(row.solutions for row in train) else "answers"


def numbered(read: ReadRow, prefix: str) -> ReadRow:
    """Returns a reader that numbers rows without an id of their own within their file."""

    def row_of(record: Mapping[str, Any], number: int) -> Row:
        row = read(record, number)
        return row if row.id else Row(f"{prefix}-{number}", row.problem, row.answer, row.solutions)

    return row_of


def complete_spec(data: DataSet, style: str | None, chosen: Mapping[str, float | str]) -> TaskSpec:
    """Returns the spec with every option that decides results written out.

    Raises:
        SpecError: if a value is unknown or out of range.
    """
    name = data.name
    styles = data.styles
    style = styles[0] if style is None else style
    if style not in get_args(Style):
        raise unknown("demonstrations", style, get_args(Style))
    if style not in styles and "data" not in chosen:
        raise SpecError(f"task {name} has no {style} to demonstrate: choose from {', '.join(styles)}")
    graded, asked = str(chosen.get("grading", "strict")), str(chosen.get("template", data.template))
    if graded not in get_args(Grading):
        raise unknown("grading", graded, get_args(Grading))
    compared = rule_of(data, chosen).compare
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
    """Opens the task of a spec. Its data is read when it is first needed.

    Raises:
        SpecError: if the spec has options that the task does not have.
        DataError: if the data is no longer in the cache.
    """
    options = complete_spec(data, spec.demonstrations, spec.options).options
    digest, revision = options.get("data"), options.get("revision")
    if digest is not None:
        local = kept(str(digest))
        sizes: Mapping[Split, int] = {split: len(rows) for split, rows in local.items()}
    else:
        sizes = data.sizes if revision is None else {}

    rule = rule_of(data, {**options, "demonstrations": spec.demonstrations})

    @cache
    def load() -> Rows:
        found = kept(str(digest)) if digest is not None else fetched(data, None if revision is None else str(revision))
        check_ids(found, f"task {data.name}")  # an earlier version kept rows whose ids were not apart
        for row in (row for part in found.values() for row in part):
            fault = rule.fault(row)
            if fault:
                raise DataError(f"task {data.name}: item {row.id}: {fault}")
        return found

    return WordTask(
        name=data.name,
        template=template(str(options["template"])),
        chat=chat_choice(str(options["chat"])),
        compare=rule.compare,
        grading="lenient" if options["grading"] == "lenient" else "strict",
        style=next(s for s in get_args(Style) if s == spec.demonstrations),
        max_new_tokens=int(options["max_new_tokens"]),
        load=load,
        sizes=sizes,
    )


def fetched(data: DataSet, revision: str | None) -> Rows:
    """Fetches the rows of a public data set, at its pinned revision or at `revision` if that is given."""
    files = {s: f if revision is None else type(f)(f.repository, f.path, revision) for s, f in data.files.items()}
    return _read_fetched(data.name, data.read, tuple(files.items()))


@lru_cache(maxsize=4)
def _read_fetched(name: str, read: ReadRow, files: tuple[tuple[Split, HubFile | GitFile], ...]) -> Rows:
    rows = {split: read_rows(fetch(file, f"{name} ({split})"), numbered(read, split)) for split, file in files}
    return carved(rows, name, VALIDATION_SHARE)
