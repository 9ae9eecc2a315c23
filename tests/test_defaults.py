"""What `compare` takes for a model on which nothing is tuned, and that its result says so."""

import json
from typing import Any

import pytest

from capacity.plan.defaults import default_size, default_task, default_weights
from capacity.plan.rates import tuned_rate
from capacity.plan.sizes import SizeChoice
from capacity.spec.parts import TaskSpec
from capacity_cli.app import app


@pytest.mark.parametrize(
    ("given", "name", "task"),
    [
        ("abacus", "abacus-0.9m", "abacus"),
        ("smollm2-135m", "smollm2-135m", "gsm8k"),
        ("Qwen2.5-3B", "qwen2.5-3b?dtype=bf16", "gsm8k"),
        ("qwen2.5-3b?dtype=fp16", "qwen2.5-3b?dtype=fp16", "gsm8k"),
        ("qwen2.5-3b?dtype=fp32", "qwen2.5-3b", "gsm8k"),
        ("qwen2.5-7b?quantised=nf4", "qwen2.5-7b?dtype=bf16&quantised=nf4", "gsm8k"),
    ],
)
def test_task_and_dtype_where_nothing_is_said(given: str, name: str, task: str) -> None:
    assert default_weights(given) == name
    assert default_task(name) == task


@pytest.mark.parametrize(("adapter", "rate"), [("tinylora", 1e-4), ("lora-xs", 1e-4), ("lora", 1e-5), ("full", 1e-6)])
def test_other_models_get_an_untuned_rate(adapter: str, rate: float) -> None:
    task = TaskSpec(name="gsm8k", demonstrations="solutions")
    for method in ("sft", "grpo"):
        found = tuned_rate("qwen2.5-3b?dtype=bf16", task, method, adapter, 100)  # type: ignore[arg-type]
        assert (found.learning_rate, found.at_edge, found.tuned_at) == (rate, False, None)
        assert 1e-7 <= found.learning_rate <= 2e-4  # the range that the paper tried


@pytest.mark.parametrize(
    ("model", "asked", "size"),
    [
        ("abacus-0.9m", {}, "84 + 1008 bits"),
        ("abacus-0.2m", {}, "84 + 1008 bits"),
        ("abacus-3m", {"budget": 13}, "13 + 156 bits"),
        ("abacus-0.9m", {"budget": "26B"}, "7 + 84 bits"),  # the bits of the choice are part of the budget
        ("abacus-0.9m", {"budget": 13, "projection_bits": 4}, "13 + 52 bits"),
        ("abacus-0.9m", {"groups": 2, "u": 3}, "6 + 72 bits"),
        ("abacus-0.9m", {"budget": 168}, "168 + 2016 bits"),
        ("abacus-0.9m", {"budget": 196}, "196"),
        ("abacus-0.9m", {"budget": 13, "projection": "random"}, "13"),
        ("abacus-0.9m", {"adapter": "lora-xs"}, "lora-xs r=2"),
        ("abacus-0.9m", {"adapter": "lora-xs", "projection": "random"}, "lora-xs r=2"),
        ("abacus-0.9m", {"budget": 13, "adapter": "tinylora"}, "13 + 156 bits"),
        ("qwen2.5-3b", {}, "100"),
        ("qwen2.5-3b", {"projection": "chosen"}, "100 + 1200 bits"),
    ],
)
def test_small_updates_of_embedded_models_have_a_chosen_projection(
    model: str, asked: dict[str, Any], size: str
) -> None:
    assert default_size(model, SizeChoice(**asked), "bf16").template.label == size


def dry_run(capsys: pytest.CaptureFixture[str], model: str, *options: str) -> dict[str, Any]:
    asked = ["compare", "--model", model, "--methods", "sft,grpo", "--seeds", "1", *options, "--dry-run", "--json"]
    app(asked, standalone_mode=False)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_result_says_what_nobody_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    plan = dry_run(capsys, "qwen2.5-3b")
    trained = [run["spec"] for run in plan["runs"] if run["spec"]["training"]]
    assert {s["model"] for s in trained} == {"qwen2.5-3b?dtype=bf16"}
    assert {s["task"]["name"] for s in trained} == {"gsm8k"}
    assert {s["adapter"]["groups"] * s["adapter"]["u"] for s in trained} == {100}
    assert {s["training"]["learning_rate"] for s in trained} == {1e-4}
    assert any(r.startswith("The rates sft 0.0001, grpo 0.0001 are untuned defaults") for r in plan["remarks"])
    assert any(r.startswith("Weights in bf16") for r in plan["remarks"])
    given = dry_run(capsys, "qwen2.5-3b?dtype=bf16", "--learning-rates", "2e-5")
    assert given["remarks"] == []
