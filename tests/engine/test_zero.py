"""A control run of a study through the real engine: it loads an adapter of zeros, and its rows go through it."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from small import SMALLEST, small_spec

from capacity.adapters.files.peft_folder import TENSORS
from capacity.plan.sampling import with_rollouts
from capacity.sampling.vllm.in_process import LocalEngine
from capacity.spec.parts import RolloutSpec
from capacity.training.run import RunRecord, execute


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The adapters that engines have loaded, and whether the update of each is zero."""
    found: list[tuple[str, bool]] = []
    load = LocalEngine.load

    def watched(self: LocalEngine, name: str, folder: Path) -> None:
        ups = [tensor for key, tensor in load_file(folder / TENSORS).items() if "lora_B" in key]
        found.append((name, bool(ups) and not any(tensor.any() for tensor in ups)))
        load(self, name, folder)

    monkeypatch.setattr(LocalEngine, "load", watched)
    return found


def answers(record: RunRecord) -> list[Any]:
    return [(outcome.item, outcome.completions, outcome.correct) for outcome in record.outcomes]


def test_a_control_run_goes_through_a_loaded_adapter_and_answers_as_the_base(
    loaded: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str | None]] = []
    generate = LocalEngine.generate

    def watched(self: LocalEngine, requests: Any, **options: Any) -> Any:
        asked.append({request.adapter for request in requests})
        return generate(self, requests, **options)

    monkeypatch.setattr(LocalEngine, "generate", watched)
    zero, base = (
        execute(with_rollouts(small_spec(method, model=SMALLEST), RolloutSpec()), "cpu") for method in ("zero", "base")
    )
    ((name, zeros),) = loaded
    assert zeros
    assert asked == [{None}, {name}, {None}, {None}]  # a probe of the base and the control, a probe and the base
    assert answers(zero) == answers(base)
    assert zero.result.engine == base.result.engine != ""
