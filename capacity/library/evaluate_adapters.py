"""The accuracy of many adapters on one base, in one pass of one engine."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capacity.errors import SpecError
from capacity.library.measured import Asked, Measured, ask, gain_json, prepare
from capacity.library.shown import Shown
from capacity.runs.points import protocol_name
from capacity.studies.device import device
from capacity_analysis.statistics.estimate import Estimate
from capacity_reports.blocks import Block, Column, Table


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
                {"adapter": name, **found.to_json(), **({} if self.base is None else gain_json(found, self.base))}
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
            Column("adapter", "adapter"), Column("accuracy", "accuracy, %", "percent", ends=("low", "high")),
            Column("low", "95 % low", "percent"), Column("high", "95 % high", "percent"),
            Column("gain", "gain, points", "points", ends=("gain_low", "gain_high")),
            Column("gain_low", "gain low", "points"), Column("gain_high", "gain high", "points"),
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
        task, split, items, samples, temperature, seed: as of `capacity.library.measured.ask`.
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
    prepare()
    from capacity.sampling.spelling import check_spelling
    from capacity.sampling.vllm.folders import peft_folders
    from capacity.sampling.vllm.several import AT_ONCE, BASE, evaluate_several
    from capacity.sampling.vllm.start import close_quietly, open_local

    with tempfile.TemporaryDirectory() as scratch:
        opened = peft_folders(model, [Path(name) for name in names], Path(scratch), device())
        check_spelling(opened.tokenizer, asked.task.items(asked.protocol.split, asked.protocol.items), opened.base)
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
