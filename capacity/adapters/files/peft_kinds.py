"""Says which of PEFT's adapters are opened. They are those that answer here as they do under PEFT's own `generate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capacity.errors import DataError

# They change what the layers of a model compute, and nothing else. `tests/test_peft_kinds.py` holds each of them
# against `generate`. Others put virtual tokens before the prompt, which `generate` counts in positions and cache, or
# choose by the task or by the whole prompt.
KINDS = (
    "ADALORA", "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3",
    "LILY", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA", "RANDLORA", "ROAD",
    "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT",
)  # fmt: skip
# Starts of A and B that leave the weights of the base alone. The others, such as "pissa", subtract B A from them.
_STARTS = (True, False, "gaussian", "orthogonal", "eva")


def check_kind(config: Mapping[str, Any], folder: Path) -> None:
    """Checks that a PEFT adapter is of a kind that is evaluated as PEFT itself evaluates it.

    Args:
        config: the content of its `adapter_config.json`.
        folder: its folder, for the message.

    Raises:
        DataError: if it is not; the message says why.
    """
    kind = config.get("peft_type")
    if kind not in KINDS:
        raise DataError(
            f"{folder}: PEFT adapters of kind {kind} are not supported: only those that change the layers of the model "
            f"and nothing else, {', '.join(KINDS)}"
        )
    if config.get("alora_invocation_tokens"):
        raise DataError(
            f"{folder}: an activated LoRA (alora_invocation_tokens) is switched on by tokens of the prompt, which is "
            "not supported: take a plain LoRA"
        )


def changes_base(config: Mapping[str, Any]) -> str | None:
    """Says by which of its settings a supported PEFT adapter changes the base itself; None if by none.

    Such an adapter answers as PEFT itself does, but switched off it does not give the base back.
    """
    if config.get("layer_replication"):
        return "layer_replication"
    if config.get("bias", "none") != "none":
        return f"bias={config['bias']}"
    start = config.get("init_lora_weights", True)
    return None if start in _STARTS else f"init_lora_weights={start}"
