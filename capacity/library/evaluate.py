"""The accuracy of a model on a task, with whatever form of adapter on it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.errors import SpecError
from capacity.library.measured import Asked, Measured, ask, gain_json, prepare
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.studies.device import device
from capacity_analysis.words import minus
from capacity_reports.blocks import Block, Text

if TYPE_CHECKING:
    from capacity.adapters.open import Opened
    from capacity.training.measure.heldout import DemonstrationLength


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
        kl_to_base_bits: mean KL divergence to its base, a token; None without an adapter that can be switched off.
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
            else {**self.control.to_json(), **gain_json(self.measured, self.control)},
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
        if found["system_folded"]:
            lines.append("The chat template takes no system message: it stands at the beginning of the user's turn.")
        if self.demonstrations is not None:
            n, tokens, bits = (getattr(self.demonstrations, name) for name in ("demonstrations", "tokens", "bits"))
            lines.append(
                f"demonstrations: {bits:,.0f} bits for {n:,}, {bits / n:,.1f} each, {bits / tokens:.3f} a token"
            )
        if self.kl_to_base_bits is not None:
            lines.append(f"KL to the base: {self.kl_to_base_bits:.4g} bits a token")
        elif found["form"] == "peft":
            lines.append("KL to the base: not measured, because the adapter changes the base itself")
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
        task, split, items, samples, temperature, seed: as of `capacity.library.measured.ask`.
        control: evaluate with the adapter off too.
        code_length: measure what a demonstration of each item costs to code.
        progress: hears what is done.

    Raises:
        SpecError: options out of range or that do not go together, or an adapter that cannot be switched off for a
            control.
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
    prepare()
    from capacity.adapters.open import open_model
    from capacity.sampling.evaluate import evaluate as answers
    from capacity.sampling.spelling import check_spelling
    from capacity.training.measure.divergence import KlMeter

    with progress("factors") as count:
        opened = open_model(model, path, device(), on_module=count.on_module)
    off = _switch(opened)
    if control and off is None:
        raise SpecError(f"--control: {path} changes the base itself ({_changed_by(opened)}): it cannot be switched off")
    check_spelling(opened.tokenizer, asked.task.items(asked.protocol.split, asked.protocol.items), opened.base)
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
    """What gives a context without the adapter; None if there is none, or it cannot be switched off."""
    if opened.adapted is not None:
        return opened.adapted.switched_off
    if opened.form == "peft" and _changed_by(opened) is None:
        disable: Callable[[], AbstractContextManager[object]] = opened.model.disable_adapter  # type: ignore[assignment]
        return disable
    return None


def _changed_by(opened: "Opened") -> str | None:
    """By which of its settings a PEFT adapter changes the base itself; None if by none."""
    from capacity.adapters.files.peft_kinds import changes_base

    (config,) = opened.model.peft_config.values()  # type: ignore[operator]
    return changes_base(config.to_dict())


def _percent(values: Mapping[str, Any]) -> str:
    return f"{100 * values['accuracy']:.1f} % ({100 * values['low']:.1f}–{100 * values['high']:.1f})"


def _gain_words(values: Mapping[str, Any]) -> str:
    low, high = 100 * values["gain_low"], 100 * values["gain_high"]
    return minus(f"{100 * values['gain']:+.1f} points ({low:+.1f} to {high:+.1f})")
