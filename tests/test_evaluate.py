"""Evaluation: two ways of grading, several samples, limits of context and memory, KL to the base."""

import copy
from typing import Any

import pytest
import torch

from capacity.adapters.attach import attach
from capacity.errors import SpecError
from capacity.sampling.evaluate import evaluate
from capacity.sampling.own_model import batch_size
from capacity.spec.adapters import LoraXs
from capacity.spec.parts import EvaluationSpec
from capacity.tasks.abacus import AbacusTask
from capacity.tasks.task import Item
from capacity.training.measure.divergence import KlMeter


class TwiceGraded(AbacusTask):
    """Abacus whose lenient grader takes every completion with a digit."""

    def grade_strict(self, item: Item, completion: str) -> bool:
        return self.grade(item, completion)

    def grade_lenient(self, item: Item, completion: str) -> bool:  # noqa: ARG002
        return any(c.isdigit() for c in completion)


def protocol(**changes: Any) -> EvaluationSpec:
    return EvaluationSpec.model_validate({"split": "test", "items": 24, "max_new_tokens": 26, **changes})


def test_both_grades_are_counted_and_kept(smallest: Any, tokenizer: Any) -> None:
    found = evaluate(smallest, tokenizer, TwiceGraded(), protocol(samples_per_item=2))
    assert found.n_items == len(found.outcomes) == 24
    assert found.n_strict == found.n_correct == sum(sum(row.correct) for row in found.outcomes)
    assert found.n_lenient == sum(sum(row.lenient) for row in found.outcomes)
    assert found.n_correct < found.n_lenient <= 48
    assert found.accuracy <= found.pass_at_k <= 1
    assert found.pass_at_k == sum(any(row.correct) for row in found.outcomes) / 24


def test_a_task_with_one_grade_has_no_other(smallest: Any, tokenizer: Any) -> None:
    found = evaluate(smallest, tokenizer, AbacusTask(), protocol())
    assert (found.n_strict, found.n_lenient) == (None, None)
    assert found.outcomes[0].model_fields_set == {"item", "correct", "completions"}


def test_completions_that_are_cut_off_are_counted(smallest: Any, tokenizer: Any) -> None:
    cut = evaluate(smallest, tokenizer, AbacusTask(), protocol(max_new_tokens=2))
    whole = evaluate(smallest, tokenizer, AbacusTask(), protocol())
    assert cut.n_unfinished == 24
    assert whole.n_unfinished < 3


def test_smaller_batches_give_the_same_outcomes(smallest: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(smallest, tokenizer, AbacusTask(), protocol(temperature=0.0))
    monkeypatch.setattr("capacity.sampling.own_model.batch_size", lambda *_: 5)
    assert evaluate(smallest, tokenizer, AbacusTask(), protocol(temperature=0.0)).outcomes == whole.outcomes


def test_a_prompt_beyond_the_context_is_refused(smallest: Any, tokenizer: Any) -> None:
    with pytest.raises(
        SpecError, match=r"item test-\d+ has a prompt of 13 tokens, which with 60 new ones exceeds .* 64"
    ):
        evaluate(smallest, tokenizer, AbacusTask(), protocol(max_new_tokens=60))


def test_batches_are_as_large_as_their_keys_and_values_allow(smallest: Any) -> None:
    cpu = torch.device("cpu")
    assert batch_size(smallest, cpu, 40) == 256
    per_token = 2 * 4 * 2 * 32 * 4  # keys and values × layers × heads × head dimension × bytes
    tokens = 512 * 1024**2 // (per_token * 10)
    assert batch_size(smallest, cpu, tokens) == 10
    assert batch_size(smallest, cpu, 10**9) == 1


def test_kl_to_the_base_is_zero_for_no_update_and_grows_with_it(smallest: Any, tokenizer: Any) -> None:
    def divergence(size: float) -> float:
        adapted = attach(copy.deepcopy(smallest), LoraXs(rank=2), None)
        adapted.set_update({name: torch.full_like(theta, size) for name, theta in adapted.update().items()})
        meter = KlMeter(adapted.model, adapted.switched_off)
        evaluate(adapted.model, tokenizer, AbacusTask(), protocol(items=8), on_rollout=meter.add)
        assert meter.tokens > 20
        return meter.bits_per_token

    assert divergence(0.0) == 0.0
    assert 0 < divergence(0.01) < divergence(0.1)
