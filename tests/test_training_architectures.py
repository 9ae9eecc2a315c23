"""Every method trains on every architecture: whole runs of two steps on tiny random models."""

from pathlib import Path
from typing import Any

import pytest
from architectures import ATTENTION, CONFIGS, MIXTURES, tiny
from sizes import chosen
from small import TASK
from untrained import TOKENIZER, LuckyTask

from capacity.plan.model_shapes import FAMILIES
from capacity.plan.specs import base_spec, trained_spec, zero_specs
from capacity.runs.fingerprint import Trainer
from capacity.spec.methods import METHODS, TRAINED, Method
from capacity.spec.run import RunSpec
from capacity.tasks.task import Split
from capacity.training.run import execute

SHORT = 12  # tokens of a completion: models of random weights seldom end one


class FewItems(LuckyTask):
    """The lucky task with a validation split of eight items."""

    def items(self, split: Split, count: int | None = None) -> Any:
        return super().items(split, 8 if split == "validation" and count is None else count)


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of one architecture, saved with the tokenizer of the abacus models."""
    where = tmp_path_factory.mktemp(request.param) / request.param
    model = tiny(request.param)
    if request.param in MIXTURES:
        model.config.output_router_logits = True  # as some checkpoints of mixtures have it
    model.save_pretrained(where)
    TOKENIZER.save_pretrained(where)
    return where


def spec_on(folder: Path, method: Method) -> RunSpec:
    """Two steps of 4 prompts × 4 sequences with a LoRA-XS of rank 2, and 4 items of evaluation."""
    model = str(folder)
    targets = ATTENTION if folder.name in MIXTURES else None
    size = chosen(model, "lora-xs", rank=2, targets=targets)
    if method == "base":
        spec = base_spec(model, TASK)
    elif method == "zero":
        (spec,) = zero_specs(model, TASK, size, "fp32", seeds=[0])
    else:
        spec = trained_spec(model, TASK, method, size, 0, "fp32", rates=dict.fromkeys(METHODS, 0.01))
        assert spec.training is not None
        sizes: dict[str, int] = {"steps": 2, "warmup_steps": 0, "prompts_per_step": 4, "samples_per_prompt": 4}
        if not METHODS[method].sees_demonstrations:
            sizes["max_new_tokens"] = SHORT
        spec = spec.model_copy(update={"training": spec.training.model_copy(update=sizes)})
    return spec.model_copy(
        update={"evaluation": spec.evaluation.model_copy(update={"items": 4, "max_new_tokens": SHORT})}
    )


def test_every_supported_architecture_is_here() -> None:
    assert set(CONFIGS) == set(FAMILIES)


def check(folder: Path, method: Method, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a run of a method on the model of a folder."""
    monkeypatch.setattr("capacity.training.base.open_task", lambda _: FewItems())
    record = execute(spec_on(folder, method), "cpu", trainer=trainer)
    trains = method not in ("base", "zero")
    assert len(record.steps) == (2 if trains else 0)
    assert record.result.family == folder.name
    assert record.result.n_items == len(record.outcomes) == 4
    if trains:
        assert record.result.update_square_sum > 0
        assert record.steps[1].kl_to_base_bits > 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_every_architecture(
    folder: Path, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(folder, method, "loop", monkeypatch)


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("folder", MIXTURES, indirect=True)
def test_every_method_trains_on_mixtures_of_experts_by_trls_trainers(
    folder: Path, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's trainer of sft switches router logits on, with which sampling fails."""
    check(folder, method, "trl", monkeypatch)
