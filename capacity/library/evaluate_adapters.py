"""The accuracy of many adapters on one base, in one pass of one engine."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.errors import SpecError
from capacity.library.measured import Asked, Measured, ask, prepare
from capacity.library.passes import Control, Passes, check_control, gain_json
from capacity.library.shown import Shown
from capacity.runs.points import protocol_name
from capacity.studies.device import device
from capacity_analysis.statistics.estimate import Estimate
from capacity_reports.blocks import Block, Column, Table

if TYPE_CHECKING:
    from capacity.sampling.evaluate import Evaluation


@dataclass(frozen=True, repr=False)
class EvaluatedAdapters(Shown):
    """The accuracy of several adapters on one base, by one engine.

    Attributes:
        model: the base.
        engine: what sampled, with its version.
        asked: task and protocol.
        adapters: what each answered, by its path, in one pass or in two if drift was asked for.
        base: what the model answered without an adapter, if asked for.
        zero: what it answered with an adapter of zeros, if asked for.
    """

    model: str
    engine: str
    asked: Asked
    adapters: Mapping[str, Passes]
    base: Passes | None
    zero: Passes | None

    @property
    def control(self) -> Passes | None:
        """What gains are over: the base or the adapter of zeros."""
        return self.zero or self.base

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the outcomes of every item."""
        return {
            "model": self.model,
            "engine": self.engine,
            **self.asked.to_json(),
            "adapters": [
                {"adapter": name, **_json(found), **({} if self.control is None else gain_json(found, self.control))}
                for name, found in self.adapters.items()
            ],
            "base": None if self.base is None else _json(self.base),
            "zero": None if self.zero is None else _json(self.zero),
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
        """What the intervals are for, and the drift of each row."""
        label = f"Intervals: {self.rows[0][1].first.accuracy.label}."
        drifts = [f"Drift of {name}: {passes.drift_words()}." for name, passes, _ in self.rows if passes.second]
        return " ".join((label, *drifts))

    @property
    def rows(self) -> list[tuple[str, Passes, Estimate | None]]:
        """What each adapter answered and gained over the control, and the control last."""
        control = self.control
        adapters = [(name, p, None if control is None else p.gain_over(control)) for name, p in self.adapters.items()]
        last = [("base", self.base), ("adapter of zeros", self.zero)]
        return [*adapters, *((name, passes, None) for name, passes in last if passes is not None)]

    @property
    def blocks(self) -> Sequence[Block]:
        """A table with a row an adapter."""
        columns = (
            Column("adapter", "adapter"), Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
            Column("low", "95 % low", "percent"), Column("high", "95 % high", "percent"),
            Column("gain", "gain, points", "points", ends=("gain_low", "gain_high")),
            Column("gain_low", "gain low", "points"), Column("gain_high", "gain high", "points"),
        )  # fmt: skip
        rows = tuple(
            (name, passes.accuracy.value, passes.accuracy.low, passes.accuracy.high)
            + ((None, None, None) if gain is None else (gain.value, gain.low, gain.high))
            for name, passes, gain in self.rows
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
    control: Control | None = None,
    drift: bool = False,
) -> EvaluatedAdapters:
    """Evaluates adapters of one base in one pass of a vLLM engine.

    Args:
        model: alias or folder; the base that the adapters name if None.
        adapters: native artifacts, run folders or PEFT folders; none for the base alone.
        task, split, items, samples, temperature, seed: as of `capacity.library.measured.ask`.
        control: evaluate the base ("off") or an adapter of zeros ("zero") too. The zeros have the modules and the rank
            of the first adapter of the largest rank.
        drift: evaluate all twice, the second time in the opposite order; gains are those of both passes.

    Raises:
        SpecError: options out of range, an adapter twice, neither a model nor adapters, or a control of none.
        EngineError: there is no engine, or it refuses.
    """
    if model is None and not adapters:
        raise SpecError("give a MODEL, or --adapter with an adapter that names its model")
    check_control(control, drift)
    if control == "zero" and not adapters:
        raise SpecError("--control zero takes an adapter's place: it needs --adapter")
    names = [str(path) for path in adapters]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"--adapter {twice} is given twice")
    asked = ask(task, split, items, samples, temperature, seed)
    prepare()
    from capacity.sampling.spelling import check_spelling
    from capacity.sampling.vllm.folders import peft_folders, zero_folder
    from capacity.sampling.vllm.several import AT_ONCE, evaluate_several
    from capacity.sampling.vllm.start import close_quietly, open_local

    with tempfile.TemporaryDirectory() as scratch:
        opened = peft_folders(model, [Path(name) for name in names], Path(scratch), device())
        zero = zero_folder(opened.folders, Path(scratch)) if control == "zero" else None
        check_spelling(opened.tokenizer, asked.task.items(asked.protocol.split, asked.protocol.items), opened.base)
        engine = open_local(
            opened.base,
            device(),
            opened.dtype,
            rank=opened.rank,
            adapters=min(len(names) + (zero is not None), AT_ONCE),
            new_tokens=asked.protocol.max_new_tokens,
        )
        try:
            base = control == "off" or not names
            found = [
                evaluate_several(
                    engine,
                    opened.model,
                    opened.tokenizer,
                    asked.task,
                    asked.protocol,
                    opened.folders,
                    base=base,
                    zero=zero,
                    backwards=backwards,
                )
                for backwards in ((False, True) if drift else (False,))
            ]
        finally:
            close_quietly(engine)
    return EvaluatedAdapters(
        opened.base,
        f"vllm {engine.version}",
        asked,
        {name: _passes([one.adapters[name] for one in found]) for name in names},
        _passes([one.base for one in found if one.base is not None]) if base else None,
        _passes([one.zero for one in found if one.zero is not None]) if zero is not None else None,
    )


def _passes(evaluations: "Sequence[Evaluation]") -> Passes:
    return Passes(*map(Measured, evaluations))


def _json(passes: Passes) -> dict[str, Any]:
    drift = passes.drift_json()
    return {**passes.first.to_json(), **({} if drift is None else drift)}
