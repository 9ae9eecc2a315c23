"""The parts of `make gpu-check`, with tiny models on the CPU. What they find on a GPU only a GPU can say."""

from pathlib import Path
from typing import Any

import pytest
import torch

from capacity.errors import TrainingError
from capacity.forward import attention
from capacity.models.loading import load
from capacity.spec.adapters import Lora
from capacity.training.run import execute
from proofs.gpu_check import memory, packed, together, training
from proofs.gpu_check.finding import Finding, tried, within
from proofs.gpu_check.parts import TINY, Check
from proofs.gpu_check.run import Part, checked, main, table
from proofs.gpu_check.world import bases, run_spec


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    torch.set_num_threads(1)
    return Check(TINY, "cpu", tmp_path_factory.mktemp("gpu-check"))


@pytest.mark.parametrize("name", ["packed ≡ padded", "training", "memory", "speed", "together"])
def test_a_part_finds_no_fault_on_a_cpu(check: Check, name: str) -> None:
    found = list(check.parts()[name]())
    assert [f for f in found if f.verdict in ("fault", "not run")] == []
    assert len(found) == {"packed ≡ padded": 10, "training": 18, "memory": 4, "speed": 3, "together": 8}[name]
    assert {f.part for f in found} == {name}


def test_a_model_of_random_numbers_is_an_ordinary_folder(check: Check) -> None:
    model, tokenizer = load(check._model("small"), "cpu")
    assert next(model.parameters()).dtype == torch.bfloat16
    assert tokenizer.encode("w5 w96 w2") == [5, 96, 2]
    assert tokenizer.decode([5, 96]) == "w5 w96"
    item = bases("cpu", Path(), TINY.small, TINY.kinds).coin.items("test", 1)[0]
    assert len(tokenizer.encode(item.prompt)) == TINY.kinds.prompt_tokens


def test_a_wrong_attention_is_a_fault(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_unseen", lambda distance, _: torch.zeros_like(distance, dtype=torch.bool))
    found = list(check.packed())
    assert {f.verdict for f in found if "log-probabilities" in f.what} == {"fault"}


def test_a_missing_metric_is_a_fault(check: Check) -> None:
    spec = run_spec(check._folder("small"), "grpo", Lora(rank=2, init_seed=0), TINY.kinds)
    record = execute(spec, "cpu", bases=bases("cpu", check.scratch, TINY.small, TINY.kinds))
    assert training.faults(spec, record) == []
    broken = record.steps[1].model_copy(update={"reward": None})
    changed = type(record)(record.result, [record.steps[0], broken], record.outcomes[1:], None)
    assert [fault.split()[0] for fault in training.faults(spec, changed)] == ["reward", "no", "3"]


def test_memory_above_the_plan_is_a_fault(check: Check) -> None:
    spec = run_spec(check._folder("small"), "sft", Lora(rank=2, init_seed=0), TINY.steps)
    loaded = bases("cpu", check.scratch, TINY.small, TINY.steps)
    (found,) = memory.near_the_plan([("small", spec)], loaded, TINY.steps, high=0.3)
    assert found.verdict == "fault"


def test_other_losses_than_alone_are_a_fault(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = together._trained

    def shifted(*args: Any, together: bool) -> tuple[float, list[float]]:
        seconds, losses = taken(*args, together=together)
        return seconds, [loss * (1.1 if together else 1.0) for loss in losses]

    monkeypatch.setattr(together, "_trained", shifted)
    found = list(check.together())
    assert [f.verdict for f in found if "losses" in f.what] == ["fault"] * len(TINY.counts)


def test_numbers_are_held_against_their_bounds() -> None:
    assert within("p", "w", 0.5, 0.5, 1.0).verdict == "ok"
    assert within("p", "w", 1.1, 0.5, 1.0).verdict == "fault"
    assert within("p", "w", float("nan"), 0.0, 1.0).verdict == "fault"


def test_an_error_is_a_fault_and_the_check_goes_on() -> None:
    def fails() -> list[Finding]:
        raise TrainingError("no gradient\nat all")

    (found,) = tried("p", "w", fails)
    assert (found.verdict, found.measured) == ("fault", "TrainingError: no gradient")
    good = Finding("second", "w", "1", "", "ok")
    parts = [Part("first", lambda: iter(fails())), Part("second", lambda: iter([good]))]
    assert [f.verdict for f in checked(parts, 60, lambda _: None)] == ["fault", "ok"]


def test_what_is_left_when_the_time_is_over_is_not_run() -> None:
    good = Finding("first", "w", "1", "", "ok")
    parts = [Part("first", lambda: iter([good, good])), Part("second", lambda: iter([good]))]
    found = checked(parts, -1.0, lambda _: None)
    assert [(f.part, f.verdict) for f in found] == [("first", "not run"), ("second", "not run")]
    assert "the time was over" in table(found)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("proofs.gpu_check.run.own_device", lambda: "cpu")
    monkeypatch.setattr("sys.argv", ["gpu-check"])
    assert main() == 2
    assert "torch sees no GPU" in capsys.readouterr().err


def test_without_vllm_its_part_is_not_run(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proofs.gpu_check.engine.find_spec", lambda _: None)
    assert [(f.measured, f.verdict) for f in check.engine()] == [("not installed", "not run")]
    assert packed.PART in check.parts()
