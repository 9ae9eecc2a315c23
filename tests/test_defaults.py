"""What `compare` takes for a model on which nothing is tuned, and that its result says so."""

import json
from typing import Any

import pytest

from capacity.plan.defaults import default_task, default_weights
from capacity.plan.rates import tuned_rate
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
