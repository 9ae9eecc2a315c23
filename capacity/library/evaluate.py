"""The accuracy of a model on a task, with whatever form of adapter on it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.errors import SpecError
from capacity.library.measured import Asked, Measured, ask, prepare
from capacity.library.passes import CONTROL_NAMES, Control, Passes, check_control, gain_json
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.studies.device import device
from capacity_analysis.words import minus
from capacity_reports.blocks import Block, Text

if TYPE_CHECKING:
    from capacity.adapters.open import Opened
    from capacity.forward.rollout import Rollout
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
        kl_to_base_bits: mean KL divergence to its base, a token; None without an adapter that can be switched off.
        control: which control was asked for.
        passes: what the model answered in one pass, or in two if drift was asked for.
        control_passes: what the control answered, if asked for.
        demonstrations: what a demonstration of each item costs to code, if asked for.
    """

    model: str
    adapter: Path | None
    form: str
    trained_parameters: int | None
    asked: Asked
    kl_to_base_bits: float | None
    control: Control | None
    passes: Passes
    control_passes: Passes | None
    demonstrations: "DemonstrationLength | None"

    @property
    def measured(self) -> Measured:
        """What the model answered in the first pass."""
        return self.passes.first

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
            if self.control_passes is None
            else {
                "kind": self.control,
                **self.control_passes.first.to_json(),
                **gain_json(self.passes, self.control_passes),
            },
            "drift": None
            if self.control_passes is None or self.passes.second is None
            else {"adapter": self.passes.drift_json(), "control": self.control_passes.drift_json()},
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
        if self.control is not None and self.control_passes is not None:
            name, told = CONTROL_NAMES[self.control], found["control"]
            lines.append(f"{name}: {_percent(told)}; gain {_gain_words(told)}")
            if self.passes.second is not None:
                lines.append(f"drift of the adapter: {self.passes.drift_words()}")
                lines.append(f"drift of the control: {self.control_passes.drift_words()}")
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
    control: Control | None = None,
    drift: bool = False,
    code_length: bool = False,
    progress: Progress = silent,
) -> Evaluated:
    """Evaluates a model on a task, with or without an adapter.

    Args:
        model: alias or folder; the base that the adapter names if None.
        adapter: native artifact, run folder or PEFT folder.
        task, split, items, samples, temperature, seed: as of `capacity.library.measured.ask`.
        control: evaluate with the adapter off ("off") or with an adapter of zeros ("zero") too.
        drift: evaluate adapter, control, control, adapter, in this order; gains are those of both passes.
        code_length: measure what a demonstration of each item costs to code.
        progress: hears what is done.

    Raises:
        SpecError: options out of range or that do not go together, or an adapter that the control does not exist for.
        DataError: the adapter is unreadable or does not belong to the model.
        CapacityError: the libraries of training are absent.
    """
    path = None if adapter is None else Path(adapter)
    if model is None and path is None:
        raise SpecError("give a MODEL, or --adapter with an adapter that names its model")
    check_control(control, drift)
    if control is not None and path is None:
        raise SpecError(f"--control {control} takes an adapter's place: it needs --adapter")
    asked = ask(task, split, items, samples, temperature, seed)
    if code_length and not asked.task.has_demonstrations:
        raise SpecError(f"--code-length: task {asked.named.label} has no demonstrations")
    prepare()
    from capacity.adapters.controls import context_of_control, switch
    from capacity.adapters.open import open_model
    from capacity.sampling.evaluate import evaluate as answers
    from capacity.sampling.spelling import check_spelling
    from capacity.training.measure.divergence import KlMeter

    with progress("factors") as count:
        opened = open_model(model, path, device(), on_module=count.on_module)
    under = None if control is None or path is None else context_of_control(control, opened, path)
    check_spelling(opened.tokenizer, asked.task.items(asked.protocol.split, asked.protocol.items), opened.base)
    off = switch(opened)
    meter = None if off is None else KlMeter(opened.model, off)

    def measure(phase: str, on_rollout: "Callable[[Rollout], None] | None" = None) -> Measured:
        with progress(phase) as count:
            return Measured(
                answers(
                    opened.model,
                    opened.tokenizer,
                    asked.task,
                    asked.protocol,
                    on_items=count.on_count,
                    on_rollout=on_rollout,
                )
            )

    passes = Passes(measure("items", None if meter is None else meter.add))
    control_passes = None
    if control is not None and under is not None:
        phase = f"items, {CONTROL_NAMES[control]}"
        with under():
            control_passes = Passes(measure(phase), measure(phase) if drift else None)
        if drift:
            passes = Passes(passes.first, measure("items"))
    return Evaluated(
        opened.base,
        path,
        opened.form,
        opened.artifact.recipe.parameters if opened.artifact else None,
        asked,
        None if meter is None else meter.bits_per_token,
        control,
        passes,
        control_passes,
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


def _percent(values: Mapping[str, Any]) -> str:
    return f"{100 * values['accuracy']:.1f} % ({100 * values['low']:.1f}–{100 * values['high']:.1f})"


def _gain_words(values: Mapping[str, Any]) -> str:
    low, high = 100 * values["gain_low"], 100 * values["gain_high"]
    return minus(f"{100 * values['gain']:+.1f} points ({low:+.1f} to {high:+.1f})")
