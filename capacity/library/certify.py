"""Certifies what a message of a few bits gains: every code is asked, and the best one gets a bound on fresh items."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from capacity.errors import DataError, SpecError
from capacity.library.measured import Asked, Measured, ask, prepare
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.plan.defaults import default_weights
from capacity.plan.sizes import SizeChoice, size_of
from capacity.runs.files import write_atomically
from capacity.studies.device import device
from capacity_analysis.lengths.certificate import Certificate, certificate
from capacity_reports.blocks import Block, Text

LONGEST = 20  # bits: more codes cannot all be asked


@dataclass(frozen=True, repr=False)
class Certified(Shown):
    """The best code of a few bits, and what it provably gains.

    Attributes:
        model: the name of the base.
        asked: the task and the protocol of the test.
        certificate: the bound.
        candidates: the candidate of each parameter's projection.
        values: the value of each parameter.
        update_bytes: what the code takes in an artifact, without the recipe.
        test: the answers of the code to the test items.
        base_test: the answers of the untrained model to them.
        out: the artifact of the code, if it was written.
    """

    model: str
    asked: Asked
    certificate: Certificate
    candidates: tuple[int, ...]
    values: tuple[float, ...]
    update_bytes: int
    test: Measured
    base_test: Measured
    out: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "model": self.model,
            **self.asked.to_json(),
            **asdict(self.certificate),
            "certain_gain": self.certificate.certain_gain,
            "candidates": self.candidates,
            "values": self.values,
            "update_bytes": self.update_bytes,
            "test": self.test.to_json()["accuracy"],
            "base_test": self.base_test.to_json()["accuracy"],
            "out": None if self.out is None else str(self.out),
        }

    @property
    def line(self) -> str:
        """What is certified, in one sentence."""
        found = self.certificate
        limits = f"from at most {100 * found.base_upper:.1f} % to at least {100 * found.lower:.1f} %"
        if found.certain_gain > 0:
            return (
                f"{found.bits} bits raise the accuracy on fresh items {limits} (certain with {100 * found.level:g} %)."
            )
        return f"No gain is certified: the best code of {found.bits} bits may go {limits}."

    @property
    def lines(self) -> tuple[str, ...]:
        """The certificate, and what was seen."""
        found = self.certificate
        seen = (
            f"Training items: {found.correct:,} of {found.items:,} correct, the untrained model "
            f"{found.base_correct:,}. Test items: {_percent(self.test)} against {_percent(self.base_test)}."
        )
        written = () if self.out is None else (f"The code takes {_bytes(self.update_bytes)} in {self.out}.",)
        return (self.line, seen, *written)

    @property
    def blocks(self) -> Sequence[Block]:
        """The lines."""
        return (Text(self.lines),)


def certify(
    model: str = "abacus",
    *,
    task: str = "abacus",
    parameters: int = 1,
    choice_bits: int = 8,
    level_bits: int = 2,
    scale: float = 0.05,
    items: int = 1024,
    seed: int = 0,
    level: float = 0.95,
    out: str | Path | None = None,
    progress: Progress = silent,
) -> Certified:
    """Races all codes of a few bits on training items, and bounds what the best one gains on fresh items.

    A code is a TinyLoRA with one group. It says which candidate is the projection of each parameter, and which level
    each parameter has. The codes are fixed before any item is asked, so the bound holds for the one that wins.

    Args:
        model: the name or folder of the base.
        task: the task, with options.
        parameters: 1 or 2.
        choice_bits: the bits that choose the projection of a parameter.
        level_bits: the bits that choose the level of a parameter.
        scale: the largest magnitude of a level.
        items: the number of training items that the winner answers.
        seed: what the candidates and the random numbers of the training items follow from.
        level: the probability with which the certificate holds.
        out: where the artifact of the winner is written; nowhere if None.
        progress: hears what is done.

    Raises:
        SpecError: if an option is out of range, or a code has more than 20 bits.
        DataError: if the task has fewer training items, or `out` cannot be written.
        CapacityError: if the libraries of training are absent.
    """
    bits = parameters * (choice_bits + level_bits)
    _check(parameters, choice_bits, level_bits, scale, bits, level)
    path = None if out is None else Path(out)
    if path is not None and not path.parent.is_dir():
        raise DataError(f"--out {path}: no folder {path.parent}")
    if path is not None and path.exists():
        raise DataError(f"--out {path} exists already: choose another name, or remove it")
    asked = ask(task, "test", None, 1, None, 0)
    named = default_weights(model)
    choice = SizeChoice(
        adapter="tinylora",
        groups=1,
        u=parameters,
        projection="chosen",
        projection_bits=choice_bits,
        projection_by="own",
    )
    adapter = size_of(named, choice, "fp32").adapter(seed)
    prepare()
    from capacity.adapters.files.artifact import pack, store
    from capacity.adapters.files.codec import payload_bytes
    from capacity.adapters.kinds.tinylora import TinyLoraModel
    from capacity.adapters.layout import Layout
    from capacity.sampling.evaluate import evaluate
    from capacity.sampling.exam import Exam
    from capacity.studies.codes import CodeBook, race
    from capacity.training.base import Base

    base = Base.loaded(named, device())
    adapted = base.adapted(adapter, Layout(candidates=(0,) * parameters))
    assert isinstance(adapted, TinyLoraModel)
    protocol = asked.protocol
    exam = Exam(
        asked.task,
        base.tokenizer,
        "train",
        items,
        temperature=protocol.temperature,
        max_new_tokens=protocol.max_new_tokens,
        seed=seed,
    )
    book = CodeBook(parameters, choice_bits, level_bits, scale)
    with progress("codes") as count:
        winner = race(list(book.codes()), adapted, exam, on_round=lambda codes, _, done: count.on_count(done, codes))
    winner.code.put_on(adapted)
    payload = store(adapted, "fp32", book.levels)
    if path is not None:
        data = pack(adapted, payload, model=named, base=base.fingerprint, dtype="fp32", levels=book.levels)
        write_atomically(path, data)
    with progress("test items") as count:
        test = evaluate(adapted, base.tokenizer, asked.task, protocol, on_items=count.on_count)
    before = evaluate(adapted, base.tokenizer, asked.task, protocol, base=True)
    size = payload_bytes(payload)
    found = certificate(winner.correct, int(exam.hits(adapted, base=True).sum()), items, bits, level)
    code = winner.code
    return Certified(named, asked, found, code.candidates, code.values, size, Measured(test), Measured(before), path)


def _check(parameters: int, choice_bits: int, level_bits: int, scale: float, bits: int, level: float) -> None:
    if parameters not in (1, 2):
        raise SpecError(f"--parameters {parameters}: a code has 1 or 2 parameters")
    if not 0 <= choice_bits <= 16 or level_bits < 0:
        raise SpecError(f"--choice-bits {choice_bits} --level-bits {level_bits}: give 0 to 16, and 0 or more")
    if bits > LONGEST:
        raise SpecError(f"codes of {bits} bits are too many to ask them all: at most {LONGEST} bits")
    if not 0 < scale < float("inf"):
        raise SpecError(f"--scale {scale}: give a positive number")
    if not 0 < level < 1:
        raise SpecError(f"--level {level}: give a number between 0 and 1, such as 0.95")


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count} bytes"


def _percent(measured: Measured) -> str:
    return f"{100 * measured.to_json()['accuracy']:.1f} %"
