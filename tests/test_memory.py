"""Memory estimated from shapes: against what a backward pass really keeps, and what is said where it does not fit."""

import contextlib
import json
import sys
from typing import Any
from unittest import mock

import pytest
import torch
from small import SMALLEST, small_spec
from untrained import LuckyTask, arm_of, laid_out, spec_of

from capacity.adapters.attach import attach
from capacity.errors import SpecError, TrainingError
from capacity.models.device_memory import total_memory
from capacity.models.loading import DTYPES
from capacity.models.pretrain import build_model
from capacity.plan.memory import (
    CPU_PASS_BYTES,
    HEADROOM,
    check_memory,
    gigabytes,
    kept_numbers,
    memory_plan,
    parse_memory,
    row_bytes,
    rows_at_once,
    rows_that_fit,
    run_memory,
)
from capacity.plan.models import ALIASES
from capacity.spec.adapters import Adapter, Lora, LoraXs, TinyLora, UniLora, VbLora, Vera
from capacity.spec.run import RunSpec
from capacity_cli import app

SHAPE = ALIASES["qwen2.5-3b"].shape
TOKENS: dict[str, Any] = {"prompt_tokens": 256, "new_tokens": 512}


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("budget", ["100", "full"])
def test_activations_are_those_that_a_backward_pass_keeps(budget: str, packs: bool) -> None:
    arm = arm_of(spec_of("sft", budget=budget), LuckyTask())
    arm.forward.packs = packs
    batch = arm.batch(laid_out(arm, LuckyTask().items("train", arm.prompts_per_step)))
    parameters = {p.untyped_storage().data_ptr() for p in arm.adapted.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = arm.loss(batch)
    assert torch.isfinite(loss)
    prompt, new = batch.rollout.prompt_ids.shape[1], batch.rollout.completion_ids.shape[1]
    row = row_bytes(ALIASES[SMALLEST].shape, prompt, new)
    share = batch.sequences * row.activations / sum(kept.values())
    # The plan counts padded rows, as some models need them. Packed rows take less: a prompt stands once.
    assert 1 < share < 2.5 if packs else 0.6 < share < 1.7


UPDATES: dict[str, Adapter] = {
    "tinylora": TinyLora(groups=4, u=2, projection_seed=0),
    "lora-xs": LoraXs(rank=4),
    "lora": Lora(rank=8, init_seed=0),
    "vera": Vera(rank=16, projection_seed=0),
    "vb-lora": VbLora(rank=2, vectors=16, vector_length=64, init_seed=0),
    "uni-lora": UniLora(rank=2, length=256, projection_seed=0),
    "some": Lora(rank=8, init_seed=0, targets=("q_proj", "down_proj")),
}


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("kind", UPDATES)
def test_the_plan_counts_what_the_gradient_of_an_update_needs(kind: str, dtype: str) -> None:
    """Of a step whose tokens stand once, as the plan counts them, so that it is exact but for small change."""
    shape, adapter = ALIASES[SMALLEST].shape, UPDATES[kind]
    model = build_model(SMALLEST, seed=0).to(DTYPES[dtype]).requires_grad_(False)
    adapted = attach(model, adapter, None)
    parameters = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.arange(4 * 16).view(4, 16) % shape.vocabulary
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        adapted.model(input_ids=tokens, logits_to_keep=1)
    extra = kept_numbers(adapter, shape, dtype)
    planned = 4 * row_bytes(shape, 16, 0, dtype, extra=extra).activations
    assert 0.6 < sum(kept.values()) / planned < HEADROOM


def test_rows_fill_the_room_that_weights_and_update_leave() -> None:
    row = row_bytes(SHAPE, **TOKENS, dtype="bf16")
    weights = 2 * SHAPE.parameters
    for available in (24 * 10**9, 80 * 10**9):
        rows = rows_at_once(SHAPE, **TOKENS, dtype="bf16", resident=weights, device_bytes=available)
        plan = memory_plan(SHAPE, trained=100, sequences=1, micro_batch=rows, **TOKENS, dtype="bf16")
        assert plan.training <= 0.9 * available + HEADROOM * 1600
        assert plan.training + HEADROOM * (row.activations + row.logits) > 0.9 * available
    assert rows_at_once(SHAPE, **TOKENS, resident=weights, device_bytes=weights) == 1


def test_a_pass_on_a_cpu_takes_two_gigabytes_whatever_the_machine() -> None:
    shape = ALIASES["smollm2-135m"].shape
    row = row_bytes(shape, **TOKENS)
    assert rows_at_once(shape, **TOKENS) == CPU_PASS_BYTES // (row.activations + row.logits)
    assert rows_at_once(shape, **TOKENS, resident=10**12) == rows_at_once(shape, **TOKENS)
    row = row_bytes(shape, **TOKENS, backward=False)
    assert rows_at_once(shape, **TOKENS, backward=False) == CPU_PASS_BYTES // 2 // (row.activations + row.logits)


def test_a_run_that_cannot_fit_is_refused_before_it_is_loaded() -> None:
    check_memory(small_spec("grpo"), total_memory("cpu"))
    with pytest.raises(TrainingError, match=r"needs about .* there are 10.0 GB: the weights alone do not fit; load"):
        check_memory(small_spec("grpo", model="qwen2.5-3b"), 10**10)
    full = small_spec("sft", model="qwen2.5-3b", budget="full")
    with pytest.raises(TrainingError, match="weights and update with its moments do not fit"):
        check_memory(full, 50 * 10**9)


@pytest.mark.parametrize("budget", ["100", "5000", "full"])
def test_a_run_takes_the_memory_of_its_model_update_and_tokens(budget: str) -> None:
    spec = small_spec("sft", budget=budget, model="qwen2.5-3b?dtype=bf16")
    assert spec.training is not None
    full, trained = budget == "full", SHAPE.parameters if budget == "full" else {"100": 100, "5000": 252 * 4**2}[budget]
    longer = spec.model_copy(update={"training": spec.training.model_copy(update={"max_new_tokens": 512})})
    options: dict[str, Any] = {"trained": trained, "full": full, "dtype": "bf16", **TOKENS}
    assert run_memory(longer) == memory_plan(SHAPE, **options, sequences=1, micro_batch=1)
    assert run_memory(longer, sampled=9, rows=99) == memory_plan(SHAPE, **options, sequences=9, micro_batch=16)
    untrained = small_spec("base", model="qwen2.5-3b?dtype=bf16")
    assert (run_memory(untrained, rows=9).activations, rows_that_fit(untrained, 10**12)) == (0, 0)
    assert run_memory(untrained).update == 0


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command line prints as JSON."""
    with mock.patch.object(sys, "argv", ["capacity", *arguments, "--json"]), contextlib.suppress(SystemExit):
        app.main()
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("model", ["qwen2.5-3b", "qwen2.5-3b?dtype=fp32", "qwen2.5-7b?quantised=nf4", "abacus-0.9m"])
def test_every_command_names_the_same_memory_for_the_same_run(capsys: pytest.CaptureFixture[str], model: str) -> None:
    planned = told(capsys, "plan", "--model", model)["training_memory"]
    compared = told(capsys, "compare", "--model", model, "--seeds", "1", "--dry-run")
    assert told(capsys, "models", model)["training_memory"] == planned
    assert compared["least_memory_bytes"] == planned["least"]
    for run in compared["runs"]:
        spec = RunSpec.model_validate(run["spec"])
        check_memory(spec, planned["least"])
        if spec.training is not None:
            with pytest.raises(TrainingError, match=f"needs about {gigabytes(planned['least'])}, there are"):
                check_memory(spec, planned["least"] - 1)


@pytest.mark.parametrize(("count", "text"), [(400, "400 B"), (4 * 10**6, "4.0 MB"), (15_231_233_024, "15.2 GB")])
def test_sizes_in_words(count: int, text: str) -> None:
    assert gigabytes(count) == text


def test_memory_of_a_gpu_is_read() -> None:
    assert (parse_memory("24GB"), parse_memory("1.5 GiB")) == (24 * 10**9, 3 * 2**29)
    assert (parse_memory("1,500 MB"), parse_memory("2TB")) == (15 * 10**8, 2 * 10**12)
    for wrong in ("24", "24G", "0GB", "GB", "24 XB"):
        with pytest.raises(SpecError, match="write 24GB or 40GiB"):
            parse_memory(wrong)


@pytest.mark.parametrize(
    ("memory", "said"),
    [("80GB", "Training fits 80.0 GB, with"), ("20GB", "for one sequence at a time: lower the task's")],
)
def test_plan_says_whether_training_fits(capsys: pytest.CaptureFixture[str], memory: str, said: str) -> None:
    asked = ("plan", "--model", "qwen2.5-7b?dtype=bf16", "--budget", "13", "--memory", memory)
    found = told(capsys, *asked)["training_memory"]
    assert (found["advice"] is None) == (memory == "80GB")
    assert found["weights"] == 2 * ALIASES["qwen2.5-7b"].shape.parameters
    app.app(list(asked), standalone_mode=False)
    assert said in capsys.readouterr().out
