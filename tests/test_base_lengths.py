"""Code lengths under the base: known from sampling or from earlier runs, and never other than a run's own would be."""

from typing import Any

import pytest
import torch
from small import SMALLEST, small_spec

from capacity.forward.rollout import Rollout
from capacity.spec.adapters import LoraXs, TinyLora
from capacity.spec.run import RunSpec
from capacity.training.arm import Arm
from capacity.training.base import Bases
from capacity.training.base_lengths import BaseLengths
from capacity.training.run import RunRecord, execute


def run(method: Any, adapter: Any = None, *, seed: int = 0, budget: str = "100") -> RunSpec:
    """Three steps: the KL divergence is measured at the first and at the last."""
    spec = small_spec(method, budget, seed=seed, model=SMALLEST, steps=3, rate=1e-3)
    return spec if adapter is None else spec.model_copy(update={"adapter": adapter})


def facts(record: RunRecord) -> Any:
    """All that a run found, but for its seconds and the memory of its process."""
    changing = {"wall_seconds", "training_seconds", "worker_peak_memory_bytes"}
    return record.steps, record.outcomes, record.artifact, record.result.model_dump(exclude=changing)


RUNS = [
    run("sft", TinyLora(groups=5, u=2, projection_seed=3)),
    run("sft", LoraXs(rank=3)),
    run("sft", seed=1),
    run("sft", budget="full"),
    run("rft", LoraXs(rank=3)),
    run("sft+grpo", LoraXs(rank=3)),
]


def test_what_a_worker_has_made_before_moves_no_bit_of_a_run() -> None:
    alone = [facts(execute(spec, "cpu")) for spec in RUNS]
    for order in (1, -1):
        bases = Bases("cpu")
        found = [facts(execute(spec, "cpu", bases=bases)) for spec in RUNS[::order]]
        assert found[::order] == alone


def test_runs_of_one_seed_ask_the_base_once_between_its_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    by_base = Arm.by_base

    def counted(self: Arm, rollout: Rollout) -> Any:
        asked.append(len(self.recorder.steps))
        return by_base(self, rollout)

    monkeypatch.setattr(Arm, "by_base", counted)
    bases, passes = Bases("cpu"), []
    for spec in RUNS[:4]:
        asked.clear()
        record = execute(spec, "cpu", bases=bases)
        passes.append(asked.copy())
        assert [step.kl_to_base_bits is not None for step in record.steps] == [True, False, True]
        assert all(step.base_code_length_bits for step in record.steps)
    assert passes == [[0, 1, 2], [0, 2], [0, 1, 2], [0, 2]]  # the third run has a seed of its own


def test_the_code_length_of_the_bases_samples_is_the_samplers(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RUNS[4]
    known = execute(spec, "cpu").steps[1]
    assert known.kl_to_base_bits is None
    monkeypatch.setattr("capacity.training.sft._KL_EVERY", 1)
    passed = execute(spec, "cpu").steps[1]
    assert passed.kl_to_base_bits is not None
    assert known.base_code_length_bits == pytest.approx(passed.base_code_length_bits, rel=1e-5)


def test_another_order_or_mask_is_another_batch() -> None:
    ids, mask = torch.tensor([[1, 2], [3, 4]]), torch.ones(2, 2, dtype=torch.long)
    rollout = Rollout(ids, mask, ids, mask, torch.zeros(2, 2))
    lengths, values = BaseLengths(), iter(torch.tensor([[1.0], [2.0], [3.0]]))
    shorter = Rollout(ids, mask, ids, torch.tensor([[1, 1], [1, 0]]), torch.zeros(2, 2))
    batches = [rollout, rollout.rows(0, 2), rollout.selected(torch.tensor([1, 0])), shorter, rollout]
    assert [float(lengths.of(batch, lambda: next(values))) for batch in batches] == [1.0, 1.0, 2.0, 3.0, 1.0]
