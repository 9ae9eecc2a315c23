"""No accuracy, divergence or code length is reported from logits that are not finite."""

import copy
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import PlainEngine
from small import small_spec

from capacity.adapters.attach import attach
from capacity.errors import TrainingError
from capacity.forward.rollout import Rollout
from capacity.sampling.evaluate import evaluate
from capacity.sampling.finite import check_logits, check_logprobs
from capacity.sampling.memory_slices import RowsAtOnce
from capacity.sampling.own_model import TransformersSampler
from capacity.sampling.vllm.engine import Completion
from capacity.sampling.vllm.several import evaluate_several
from capacity.spec.adapters import FullUpdate, NoAdapter
from capacity.spec.parts import EvaluationSpec
from capacity.tasks.abacus import AbacusTask
from capacity.training.measure.divergence import KlMeter
from capacity.training.measure.heldout import demonstration_length
from capacity.training.run import execute
from capacity_cli.app import main

PROTOCOL = EvaluationSpec(split="test", items=6, max_new_tokens=26)
EVERYWHERE = r"the model's logits are not finite at (\d+) of \1 positions"
HEAD = "model.layers.3.mlp.down_proj.weight"


def spoilt(model: Any, kind: str) -> Any:
    """A copy of the model with a NaN among its weights, or in fp16 with weights that overflow there."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        if kind == "nan":
            changed.get_parameter(HEAD)[3, 5] = math.nan
        else:
            changed.get_parameter(HEAD).mul_(6e4)
    return changed.half() if kind == "fp16" else changed


def test_which_logits_give_a_distribution() -> None:
    inf, nan = math.inf, math.nan
    check_logits(torch.tensor([[0.0, 1.0, -inf], [3e38, -3e38, 0.0]]))
    check_logits(torch.zeros(0, 4))
    for bad in ([0.0, nan, 1.0], [0.0, inf, 1.0], [-inf, -inf, -inf], [inf, nan, -inf]):
        with pytest.raises(TrainingError, match=r"logits are not finite at 1 of 2 positions: .*\?dtype=bf16"):
            check_logits(torch.tensor([[0.0, 1.0, 2.0], bad]))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["nan", "fp16"])
def test_no_accuracy_is_reported(smallest: Any, tokenizer: Any, kind: str, temperature: float) -> None:
    protocol = PROTOCOL.model_copy(update={"temperature": temperature})
    with pytest.raises(TrainingError, match=EVERYWHERE):
        evaluate(spoilt(smallest, kind), tokenizer, AbacusTask(), protocol)


def test_what_overflows_in_fp16_alone_is_evaluated_in_fp32(smallest: Any, tokenizer: Any) -> None:
    assert evaluate(spoilt(smallest, "fp32"), tokenizer, AbacusTask(), PROTOCOL).n_items == 6


def test_a_run_on_such_a_model_fails(smallest: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capacity.training.base.load", lambda *_: (spoilt(smallest, "nan"), tokenizer))
    with pytest.raises(TrainingError, match="the model's logits are not finite"):
        execute(small_spec("base", model="abacus-0.2m"), "cpu")


def test_no_samples_are_drawn_for_training(smallest: Any, tokenizer: Any) -> None:
    sampler = TransformersSampler(attach(spoilt(smallest, "nan"), FullUpdate(), None), tokenizer)
    with pytest.raises(TrainingError, match=EVERYWHERE):
        sampler.sample([[1, 4, 5], [1, 4]], np.random.default_rng(0), temperature=1.0, max_new_tokens=3)


def test_no_divergence_and_no_code_length_is_reported(smallest: Any, tokenizer: Any) -> None:
    bad, task = spoilt(smallest, "nan"), AbacusTask()
    rollouts: list[Rollout] = []
    evaluate(smallest, tokenizer, task, PROTOCOL, on_rollout=rollouts.append)
    adapted = attach(bad, NoAdapter(), None)
    with pytest.raises(TrainingError, match="the model's logits are not finite"):
        KlMeter(bad, adapted.switched_off).add(rollouts[0])
    with pytest.raises(TrainingError, match="the model's logits are not finite"):
        demonstration_length(bad, tokenizer, task, task.items("test", 3), RowsAtOnce(adapted, "abacus-0.2m"))


def test_an_engines_samples_are_checked_by_their_log_probabilities(smallest: Any, tokenizer: Any) -> None:
    check_logprobs([[-0.1, 0.0], []])
    with pytest.raises(TrainingError, match="log-probabilities are not finite in 2 of 3 samples"):
        check_logprobs([[-0.1, math.nan], [-math.inf], [-1.0]])

    class Spoilt(PlainEngine):
        def generate(self, *args: Any, **kwargs: Any) -> list[Completion]:
            return [Completion(c.ids, [math.nan] * len(c.ids)) for c in super().generate(*args, **kwargs)]

    engine = Spoilt(smallest, tokenizer.pad_token_id)
    with pytest.raises(TrainingError, match="the engine's log-probabilities are not finite in 6 of 6 samples"):
        evaluate_several(engine, smallest, tokenizer, AbacusTask(), PROTOCOL, {})


def test_the_command_says_so_in_one_line(
    smallest: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in (spoilt(smallest, "nan"), tokenizer):
        part.save_pretrained(tmp_path / "bad")
    monkeypatch.setattr("sys.argv", ["capacity", "evaluate", str(tmp_path / "bad"), "--items", "4"])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert (end.value.code, printed.out) == (1, "")
    assert re.match(f"capacity: {EVERYWHERE}: ", printed.err)
    assert printed.err.count("\n") == 1
