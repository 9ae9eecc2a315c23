"""The two controls of an adapter: switched off, or an adapter of zeros that goes through the same kernels.

Switched off, the model runs its own layers. With an adapter of zeros it runs the adapter's layers too, which add
nothing. So what the two differ in is the engine, not the update.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from capacity.adapters.files.peft_folder import CONFIG, TENSORS, save_tensors
from capacity.adapters.files.peft_kinds import changes_base
from capacity.adapters.open import Opened
from capacity.errors import SpecError

Context = Callable[[], AbstractContextManager[object]]
_UPS = ("lora_B", "lora_embedding_B")  # the halves of a LoRA whose zeros make ΔW zero, with the biases they may have
_DOWNS = ("lora_A", "lora_embedding_A")


def switch(opened: Opened) -> Context | None:
    """What gives a context without the adapter; None if there is none, or it cannot be switched off."""
    if opened.adapted is not None:
        return opened.adapted.switched_off
    if opened.form == "peft" and changed_by(opened) is None:
        disable: Context = opened.model.disable_adapter  # type: ignore[assignment]
        return disable
    return None


def changed_by(opened: Opened) -> str | None:
    """By which of its settings a PEFT adapter changes the base itself; None if by none."""
    (config,) = opened.model.peft_config.values()  # type: ignore[operator]
    return changes_base(config.to_dict())


def context_of_control(control: str, opened: Opened, adapter: Path) -> Context:
    """What gives a context under a control.

    Args:
        control: "off" or "zero".
        opened: a model with an adapter on it.
        adapter: path of the adapter, for messages.

    Raises:
        SpecError: the adapter cannot be switched off, or it has no zero.
    """
    if opened.form == "peft" and (setting := changed_by(opened)) is not None:
        done = "be switched off" if control == "off" else "be zero"
        raise SpecError(f"--control {control}: {adapter} changes the base itself ({setting}): it cannot {done}")
    if control == "zero":
        parameters = _zeroed_parameters(opened, adapter)
        return lambda: zeroed(parameters)
    off = switch(opened)
    assert off is not None  # a model with an adapter that leaves the base alone
    return off


def _zeroed_parameters(opened: Opened, adapter: Path) -> dict[nn.Parameter, Tensor]:
    """What the parameters of an adapter are where its update is zero."""
    if opened.adapted is not None:
        untrained = opened.adapted.base_state or {}
        trained = opened.adapted.trained
        return {p: untrained.get(name, torch.zeros_like(p)) for name, p in trained.items()}
    (config,) = opened.model.peft_config.values()  # type: ignore[operator]
    _check_zero(str(config.peft_type.value), load_file(adapter / TENSORS), adapter)
    ups = [p for name, p in opened.model.named_parameters() if not set(_UPS).isdisjoint(name.split("."))]
    return {p: torch.zeros_like(p) for p in ups}


@contextmanager
def zeroed(parameters: dict[nn.Parameter, Tensor]) -> Iterator[None]:
    """Gives parameters other values for the time of the context, and then their own, bit for bit."""
    kept = {p: p.detach().clone() for p in parameters}
    try:
        _fill(parameters)
        yield
    finally:
        _fill(kept)


@torch.no_grad()
def _fill(values: dict[nn.Parameter, Tensor]) -> None:
    for parameter, value in values.items():
        parameter.copy_(value)


def save_zero_lora(folder: Path, out: Path) -> None:
    """Writes a PEFT LoRA folder of zeros: with the modules and the rank of another one, and B = 0.

    Args:
        folder: a PEFT LoRA folder.
        out: an existing, empty folder.

    Raises:
        SpecError: the adapter has no zero.
    """
    text = (folder / CONFIG).read_text(encoding="utf-8")
    config, tensors = json.loads(text), load_file(folder / TENSORS)
    if (setting := changes_base(config)) is not None:
        raise SpecError(f"--control zero: {folder} changes the base itself ({setting}): it cannot be zero")
    _check_zero(str(config.get("peft_type")), tensors, folder)
    (out / CONFIG).write_text(text, encoding="utf-8")
    ups = {key for key in tensors if not set(_UPS).isdisjoint(key.split("."))}
    save_tensors({key: torch.zeros_like(t) if key in ups else t for key, t in tensors.items()}, out)


def _check_zero(kind: str, tensors: dict[str, Tensor], adapter: Path) -> None:
    """Refuses an adapter that is more than A and B: with B = 0 it might still change the model."""
    if kind != "LORA":
        raise SpecError(f"--control zero: {adapter} is of kind {kind}, whose zero is not known: take --control off")
    other = next((key for key in tensors if set(_UPS + _DOWNS).isdisjoint(key.split("."))), None)
    if other is not None:
        raise SpecError(f"--control zero: {adapter} holds {other} beside A and B: take --control off")
