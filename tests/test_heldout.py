"""Code length of held-out sequences, against a sum over transformers' own losses."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from untrained import TOKENIZER, HopelessTask, LuckyTask, adapted_model, spec_of

from capacity.spec.run import RunSpec
from capacity.training import batches
from capacity.training.batches import HELDOUT_STREAM, generator
from capacity.training.measure.heldout import demonstration_length, heldout_code_length

TASK = LuckyTask()


@pytest.fixture(autouse=True)
def few_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "HELDOUT_ITEMS", 24)


def measured(spec: RunSpec, scale: float, task: Any = TASK) -> dict[str, float]:
    return heldout_code_length(adapted_model(spec, scale), TOKENIZER, task, spec)


def bits_by_transformers(model: Any, pairs: list[tuple[str, str]]) -> tuple[float, int]:
    """Σ loss × tokens over single unpadded sequences, in bits, and the number of tokens."""
    bits, tokens = 0.0, 0
    for prompt, completion in pairs:
        given = TOKENIZER.encode(prompt)
        coded = [*TOKENIZER.encode(completion, add_special_tokens=False), TOKENIZER.eos_token_id]
        labels = torch.tensor([[-100] * len(given) + coded])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([given + coded]), labels=labels).loss
        bits += float(loss) * len(coded) / math.log(2)
        tokens += len(coded)
    return bits, tokens


def test_sft_is_the_sum_over_demonstrations_of_validation_items() -> None:
    spec = spec_of("sft")
    adapted = adapted_model(spec, 0.3)
    result = heldout_code_length(adapted, TOKENIZER, TASK, spec)
    rng = generator(0, HELDOUT_STREAM)
    pairs = [(i.prompt, TASK.demonstrations(i, 1, rng)[0]) for i in TASK.items("validation", 24)]
    bits, tokens = bits_by_transformers(adapted.model, pairs)
    with adapted.switched_off():
        base, _ = bits_by_transformers(adapted.model, pairs)
    assert result["heldout_code_length_bits"] == pytest.approx(bits, rel=1e-5)
    assert result["heldout_base_code_length_bits"] == pytest.approx(base, rel=1e-5)
    assert abs(bits - base) > 1e-3 * base
    assert (result["heldout_demonstrations"], result["heldout_tokens"]) == (24, tokens)
    each = np.array([bits_by_transformers(adapted.model, [pair])[0] for pair in pairs])
    with adapted.switched_off():
        before = np.array([bits_by_transformers(adapted.model, [pair])[0] for pair in pairs])
    assert result["heldout_sd_bits"] == pytest.approx(each.std(ddof=1), rel=1e-4)
    assert result["heldout_gain_sd_bits"] == pytest.approx((each - before).std(ddof=1), rel=1e-3)


@pytest.mark.parametrize("rows", [3, 100])
def test_demonstrations_cost_what_transformers_says(rows: int) -> None:
    adapted = adapted_model(spec_of("sft"), 0.3)
    items = TASK.items("test", 10)
    found = demonstration_length(adapted.model, TOKENIZER, TASK, items, lambda *_, **__: rows)
    rng = generator(0, HELDOUT_STREAM)
    pairs = [(i.prompt, TASK.demonstrations(i, 1, rng)[0]) for i in items]
    bits, tokens = bits_by_transformers(adapted.model, pairs)
    assert found.bits == pytest.approx(bits, rel=1e-5)
    assert (found.demonstrations, found.tokens) == (10, tokens)


def test_untrained_update_codes_as_the_base_does() -> None:
    for method in ("sft", "rft"):
        result = measured(spec_of(method), 0.0)
        assert result["heldout_code_length_bits"] == result["heldout_base_code_length_bits"] > 0


@pytest.mark.parametrize("method", ["sft", "rft"])
def test_held_out_sequences_are_the_same_for_all_updates_and_seeds(method: Any) -> None:
    fixed = ("heldout_base_code_length_bits", "heldout_demonstrations", "heldout_tokens")
    zero, other, seed = (
        measured(spec_of(method), 0.0),
        measured(spec_of(method), 0.5),
        measured(spec_of(method, 1), 0.5),
    )
    assert [zero[name] for name in fixed] == [other[name] for name in fixed] == [seed[name] for name in fixed]
    assert zero["heldout_code_length_bits"] != other["heldout_code_length_bits"]


def test_rft_codes_right_samples_of_the_base_only() -> None:
    result = measured(spec_of("rft"), 0.5)
    assert 0 < result["heldout_demonstrations"] <= 24
    assert result["heldout_base_code_length_bits"] / result["heldout_tokens"] < math.log2(57) + 1


@pytest.mark.parametrize("method", ["grpo", "rft-online", "random-reward", "sft+grpo"])
def test_methods_without_such_sequences_report_none(method: Any) -> None:
    assert measured(spec_of(method), 0.5) == {}


def test_rft_without_a_right_sample_reports_none() -> None:
    assert measured(spec_of("rft"), 0.0, HopelessTask()) == {}


def test_measuring_costs_the_run_nothing_and_moves_no_update() -> None:
    spec = spec_of("rft")
    adapted = adapted_model(spec, 0.5)
    before = adapted.vector().clone()
    heldout_code_length(adapted, TOKENIZER, TASK, spec)
    assert torch.equal(adapted.vector(), before)
    assert all(p.grad is None for p in adapted.trained.values())
