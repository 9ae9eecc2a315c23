"""The accuracy of a model on a task, with whatever form of adapter on it, and of many adapters in one pass."""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from capacity.errors import SpecError
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.plan.protocols import PROTOCOLS
from capacity.runs.points import protocol_name
from capacity.spec.parts import EvaluationSpec, TaskSpec
from capacity.studies.device import check_libraries, device
from capacity.tasks.catalog import open_task, parse_task
from capacity.tasks.task import Task
from capacity_analysis.statistics.estimate import Estimate, accuracy_estimate, difference_estimate
from capacity_reports.blocks import Block, Column, Table, Text

if TYPE_CHECKING:
    from capacity.adapters.open import Opened
    from capacity.sampling.evaluate import Evaluation
    from capacity.training.measure.heldout import DemonstrationLength

Grade = Literal["correct", "strict", "lenient"]


@dataclass(frozen=True)
class Asked:
    """What is evaluated on: a task under a protocol."""

    named: TaskSpec
    task: Task
    protocol: EvaluationSpec

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "task": self.named.name,
            "task_options": self.named.label,
            "split": self.protocol.split,
            "protocol": protocol_name(self.protocol),
        }


def ask(task: str, split: str, items: int | None, samples: int, temperature: float | None, seed: int) -> Asked:
    """The task and the protocol of an evaluation.

    Args:
        task: its name with options.
        split: "test" or "validation".
        items: how many; those of the task's protocol if None.
        samples: completions of each item.
        temperature: of the sampling, 0 is greedy; that of the task's protocol if None.
        seed: of the sampling.

    Raises:
        SpecError: an option out of range.
    """
    if split not in ("test", "validation"):
        raise SpecError(f"--split {split!r}: choose test or validation")
    if temperature is not None and not math.isfinite(temperature):
        raise SpecError(f"--temperature {temperature}: give a finite number, 0 or above")
    if seed >= 2**63:
        raise SpecError(f"--seed {seed}: give a number below 2^63")
    named = parse_task(task)
    problem = open_task(named)
    default = PROTOCOLS[named.name].evaluation(problem, validation=split == "validation", temperature=temperature)
    protocol = EvaluationSpec(
        split=default.split,
        items=default.items if items is None else items,
        samples_per_item=samples,
        temperature=default.temperature,
        max_new_tokens=default.max_new_tokens,
        seed=seed,
    )
    return Asked(named, problem, protocol)


@dataclass(frozen=True)
class Measured:
    """An evaluation with its intervals."""

    evaluation: "Evaluation"

    @cached_property
    def accuracy(self) -> Estimate:
        """The share of right samples."""
        return accuracy_estimate(self.shares("correct"))

    def shares(self, grade: Grade) -> np.ndarray[Any, np.dtype[np.float64]]:
        """One row: the share of right samples of each item."""
        return np.array([[float(np.mean(getattr(outcome, grade))) for outcome in self.evaluation.outcomes]])

    def gain_over(self, other: "Measured") -> Estimate:
        """The difference of accuracy to another evaluation of the same items, paired by item."""
        return difference_estimate(self.shares("correct"), other.shares("correct"))

    def graded(self, grade: Grade) -> dict[str, Any] | None:
        """Accuracy by one way of grading, with its interval; None for tasks that are graded in one way."""
        right = {"strict": self.evaluation.n_strict, "lenient": self.evaluation.n_lenient}[grade]
        if right is None:
            return None
        found = accuracy_estimate(self.shares(grade))
        return {"n_correct": right, "accuracy": found.value, "low": found.low, "high": found.high}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the outcomes of every item."""
        found, accuracy = self.evaluation, self.accuracy
        return {
            "n_items": found.n_items,
            "samples_per_item": found.samples_per_item,
            "n_correct": found.n_correct,
            "accuracy": found.accuracy,
            "low": accuracy.low,
            "high": accuracy.high,
            "interval": accuracy.label,
            "strict": self.graded("strict"),
            "lenient": self.graded("lenient"),
            "pass_at_k": found.pass_at_k,
            "n_unfinished": found.n_unfinished,
            "outcomes": [outcome.model_dump(mode="json") for outcome in found.outcomes],
        }


@dataclass(frozen=True, repr=False)
class Evaluated(Shown):
    """The accuracy of one model.

    Attributes:
        model: name or folder of the base.
        adapter: path of the adapter, if there is one.
        form: "base", "native" or "peft".
        trained_parameters: of a native adapter.
        asked: task and protocol.
        measured: what it answered.
        kl_to_base_bits: mean KL divergence to its base, a token; None without an adapter.
        control: the same model with its adapter off, if asked for.
        demonstrations: what a demonstration of each item costs to code, if asked for.
    """

    model: str
    adapter: Path | None
    form: str
    trained_parameters: int | None
    asked: Asked
    measured: Measured
    kl_to_base_bits: float | None
    control: Measured | None
    demonstrations: "DemonstrationLength | None"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the outcomes of every item."""
        coded = self.demonstrations
        return {
            "model": self.model,
            "adapter": str(self.adapter) if self.adapter is not None else None,
            "form": self.form,
            "trained_parameters": self.trained_parameters,
            **self.asked.to_json(),
            **self.measured.to_json(),
            "kl_to_base_bits": self.kl_to_base_bits,
            "control": None
            if self.control is None
            else {**self.control.to_json(), **_gain(self.measured, self.control)},
            "demonstrations": None
            if coded is None
            else {"n": coded.demonstrations, "tokens": coded.tokens, "code_length_bits": coded.bits},
        }

    @property
    def line(self) -> str:
        """Model, task and accuracy."""
        return self.lines[0]

    @property
    def lines(self) -> tuple[str, ...]:
        """What was found, a sentence each."""
        found, asked = self.to_json(), self.asked
        named = {"base": "", "native": f" with {self.adapter}", "peft": f" with the PEFT adapter {self.adapter}"}
        lines = [
            f"{found['model']}{named[found['form']]} on {found['task']}, {found['split']}: {_percent(found)} of "
            f"{found['n_items']:,} items, protocol {found['protocol']}"
        ]
        if found["strict"] is not None:
            lines.append(f"strict {_percent(found['strict'])}, lenient {_percent(found['lenient'])}")
        k = asked.protocol.samples_per_item
        if k > 1:
            lines.append(f"at least one of {k} samples right: {100 * found['pass_at_k']:.1f} % of the items")
        if found["n_unfinished"]:
            cut, all_samples = found["n_unfinished"], found["n_items"] * k
            lines.append(f"cut off before their end: {cut:,} of {all_samples:,} completions")
        if self.demonstrations is not None:
            n, tokens, bits = (getattr(self.demonstrations, name) for name in ("demonstrations", "tokens", "bits"))
            lines.append(
                f"demonstrations: {bits:,.0f} bits for {n:,}, {bits / n:,.1f} each, {bits / tokens:.3f} a token"
            )
        if self.kl_to_base_bits is not None:
            lines.append(f"KL to the base: {self.kl_to_base_bits:.4g} bits a token")
        if found["control"] is not None:
            lines.append(f"adapter off: {_percent(found['control'])}; gain {_gain_words(found['control'])}")
        lines.append(f"Intervals: {found['interval']}.")
        return tuple(lines)

    @property
    def blocks(self) -> Sequence[Block]:
        """The sentences."""
        return (Text(self.lines),)


def evaluate(
    model: str | None = None,
    adapter: str | Path | None = None,
    *,
    task: str = "abacus",
    split: str = "test",
    items: int | None = None,
    samples: int = 1,
    temperature: float | None = None,
    seed: int = 0,
    control: bool = False,
    code_length: bool = False,
    progress: Progress = silent,
) -> Evaluated:
    """Evaluates a model on a task, with or without an adapter.

    Args:
        model: alias or folder; the base that the adapter names if None.
        adapter: native artifact, run folder or PEFT folder.
        task, split, items, samples, temperature, seed: as of `ask`.
        control: evaluate with the adapter off too.
        code_length: measure what a demonstration of each item costs to code.
        progress: hears what is done.

    Raises:
        SpecError: options out of range, or that do not go together.
        DataError: the adapter is unreadable or does not belong to the model.
        CapacityError: the libraries of training are absent.
    """
    path = None if adapter is None else Path(adapter)
    if model is None and path is None:
        raise SpecError("give a MODEL, or --adapter with an adapter that names its model")
    if control and path is None:
        raise SpecError("--control switches an adapter off: it needs --adapter")
    asked = ask(task, split, items, samples, temperature, seed)
    if code_length and not asked.task.has_demonstrations:
        raise SpecError(f"--code-length: task {asked.named.label} has no demonstrations")
    _prepare()
    from capacity.adapters.open import open_model
    from capacity.sampling.evaluate import evaluate as answers
    from capacity.training.measure.divergence import KlMeter

    with progress("factors") as count:
        opened = open_model(model, path, device(), on_module=count.on_module)
    off = _switch(opened)
    meter = None if off is None else KlMeter(opened.model, off)
    with progress("items") as count:
        found = answers(
            opened.model,
            opened.tokenizer,
            asked.task,
            asked.protocol,
            on_items=count.on_count,
            on_rollout=None if meter is None else meter.add,
        )
    without = None
    if control and off is not None:
        with progress("items, adapter off") as count, off():
            without = answers(opened.model, opened.tokenizer, asked.task, asked.protocol, on_items=count.on_count)
    return Evaluated(
        opened.base,
        path,
        opened.form,
        opened.artifact.recipe.parameters if opened.artifact else None,
        asked,
        Measured(found),
        None if meter is None else meter.bits_per_token,
        None if without is None else Measured(without),
        _demonstrations(opened, asked) if code_length else None,
    )


@dataclass(frozen=True, repr=False)
class EvaluatedAdapters(Shown):
    """The accuracy of several adapters on one base, by one engine.

    Attributes:
        model: the base.
        engine: what sampled, with its version.
        asked: task and protocol.
        adapters: what each answered, by its path.
        base: what the model answered without an adapter, if asked for.
    """

    model: str
    engine: str
    asked: Asked
    adapters: Mapping[str, Measured]
    base: Measured | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the outcomes of every item."""
        return {
            "model": self.model,
            "engine": self.engine,
            **self.asked.to_json(),
            "adapters": [
                {"adapter": name, **found.to_json(), **({} if self.base is None else _gain(found, self.base))}
                for name, found in self.adapters.items()
            ],
            "base": None if self.base is None else self.base.to_json(),
        }

    @property
    def line(self) -> str:
        """Model, task and protocol."""
        protocol, named = self.asked.protocol, self.asked.named
        return (
            f"{self.model} on {named.name}, {protocol.split}: {protocol.items:,} items, "
            f"protocol {protocol_name(protocol)}"
        )

    @property
    def note(self) -> str:
        """What the intervals are for."""
        return f"Intervals: {self.rows[0][1].accuracy.label}."

    @property
    def rows(self) -> list[tuple[str, Measured, Estimate | None]]:
        """What each adapter answered and gained over the base, and the base last."""
        adapters = [
            (name, m, None if self.base is None else m.gain_over(self.base)) for name, m in self.adapters.items()
        ]
        return adapters if self.base is None else [*adapters, ("base", self.base, None)]

    @property
    def blocks(self) -> Sequence[Block]:
        """A table with a row an adapter."""
        columns = (
            Column("adapter", "adapter"), Column("accuracy", "accuracy, %", "percent"),
            Column("low", "95 % low", "percent"), Column("high", "95 % high", "percent"),
            Column("gain", "gain, points", "points"), Column("gain_low", "gain low", "points"),
            Column("gain_high", "gain high", "points"),
        )  # fmt: skip
        rows = tuple(
            (name, m.accuracy.value, m.accuracy.low, m.accuracy.high)
            + ((None, None, None) if gain is None else (gain.value, gain.low, gain.high))
            for name, m, gain in self.rows
        )
        return (Table("adapters", self.line, columns, rows, self.note),)


def evaluate_adapters(
    model: str | None,
    adapters: Sequence[str | Path],
    *,
    task: str = "abacus",
    split: str = "test",
    items: int | None = None,
    samples: int = 1,
    temperature: float | None = None,
    seed: int = 0,
    control: bool = False,
) -> EvaluatedAdapters:
    """Evaluates adapters of one base in one pass of a vLLM engine.

    Args:
        model: alias or folder; the base that the adapters name if None.
        adapters: native artifacts, run folders or PEFT folders; none for the base alone.
        task, split, items, samples, temperature, seed: as of `ask`.
        control: evaluate the base too.

    Raises:
        SpecError: options out of range, an adapter twice, or neither a model nor adapters.
        EngineError: there is no engine, or it refuses.
    """
    if model is None and not adapters:
        raise SpecError("give a MODEL, or --adapter with an adapter that names its model")
    names = [str(path) for path in adapters]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"--adapter {twice} is given twice")
    asked = ask(task, split, items, samples, temperature, seed)
    _prepare()
    from capacity.sampling.vllm.folders import peft_folders
    from capacity.sampling.vllm.several import AT_ONCE, BASE, evaluate_several
    from capacity.sampling.vllm.start import close_quietly, open_local

    with tempfile.TemporaryDirectory() as scratch:
        opened = peft_folders(model, [Path(name) for name in names], Path(scratch), device())
        engine = open_local(
            opened.base,
            device(),
            opened.dtype,
            rank=opened.rank,
            adapters=min(len(names), AT_ONCE),
            new_tokens=asked.protocol.max_new_tokens,
        )
        try:
            base = control or not names
            found = evaluate_several(
                engine, opened.model, opened.tokenizer, asked.task, asked.protocol, opened.folders, base=base
            )
        finally:
            close_quietly(engine)
    return EvaluatedAdapters(
        opened.base,
        f"vllm {engine.version}",
        asked,
        {name: Measured(found[name]) for name in names},
        Measured(found[BASE]) if BASE in found else None,
    )


def _prepare() -> None:
    """Checks that the libraries are there, and keeps them quiet."""
    check_libraries()
    from capacity.studies.quiet import quiet

    quiet()


def _demonstrations(opened: "Opened", asked: Asked) -> "DemonstrationLength":
    """What one demonstration of each of the evaluated items costs to code."""
    from capacity.adapters.model import AdaptedModel
    from capacity.sampling.memory_slices import RowsAtOnce
    from capacity.spec.adapters import NoAdapter
    from capacity.training.measure.heldout import demonstration_length

    adapted = opened.adapted or AdaptedModel(opened.model.requires_grad_(False), NoAdapter(), opened.model)
    items = asked.task.items(asked.protocol.split, asked.protocol.items)
    return demonstration_length(opened.model, opened.tokenizer, asked.task, items, RowsAtOnce(adapted, opened.base))


def _switch(opened: "Opened") -> Callable[[], AbstractContextManager[object]] | None:
    """What gives a context without the adapter; None if there is none."""
    if opened.adapted is not None:
        return opened.adapted.switched_off
    if opened.form == "peft":
        disable: Callable[[], AbstractContextManager[object]] = opened.model.disable_adapter  # type: ignore[assignment]
        return disable
    return None


def _gain(measured: Measured, base: Measured) -> dict[str, float | None]:
    gain = measured.gain_over(base)
    return {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}


def _percent(values: Mapping[str, Any]) -> str:
    return f"{100 * values['accuracy']:.1f} % ({100 * values['low']:.1f}–{100 * values['high']:.1f})"


def _gain_words(values: Mapping[str, Any]) -> str:
    low, high = 100 * values["gain_low"], 100 * values["gain_high"]
    return f"{100 * values['gain']:+.1f} points ({low:+.1f} to {high:+.1f})"
