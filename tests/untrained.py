"""Arms on a model of random weights and a grader that is passed now and then: quick, and no matter what is shipped."""

import copy
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from small import SMALLEST, small_spec

from capacity.adapters.attach import attach
from capacity.adapters.model import AdaptedModel
from capacity.models.pretrain import build_model
from capacity.models.tokenizer import build_tokenizer
from capacity.spec.methods import Method
from capacity.spec.run import RunSpec
from capacity.tasks.abacus import AbacusTask
from capacity.tasks.task import Item
from capacity.training.arm import Arm
from capacity.training.batch import Batch, Cost, Recorder
from capacity.training.phases import ARMS

TOKENIZER = build_tokenizer()


class LuckyTask(AbacusTask):
    """Abacus, but two of five completions pass, whatever they say: which ones depends on their text."""

    def grade(self, item: Item, completion: str) -> bool:
        return hashlib.sha256((item.id + completion).encode()).digest()[0] < 102


class HopelessTask(AbacusTask):
    """Nothing passes."""

    def grade(self, item: Item, completion: str) -> bool:  # noqa: ARG002
        return False


def spec_of(method: Method, seed: int = 0, **training: Any) -> RunSpec:
    return small_spec(method, seed=seed, model=SMALLEST, **training)


@cache
def _model() -> Any:
    torch.set_num_threads(1)
    return build_model(SMALLEST, seed=0).eval()


def adapted_model(spec: RunSpec, scale: float = 0.0) -> AdaptedModel:
    """A model with the run's adapter, its update zero or random of deviation `scale`."""
    adapted = attach(copy.deepcopy(_model()), spec.adapter, None)
    if scale:
        start = adapted.vector()
        adapted.set_vector(scale * torch.randn(start.shape, generator=torch.Generator().manual_seed(0)))
    return adapted


def arm_of(spec: RunSpec, task: AbacusTask, scale: float = 0.0) -> Any:
    return ARMS[spec.method](adapted_model(spec, scale), TOKENIZER, task, spec, recorder=Recorder([], Cost()))


def laid_out(arm: Arm, prompts: Sequence[Item]) -> list[Item]:
    """The items of a step as the bridge hands them over."""
    return [item for item in prompts for _ in range(arm.sequences_per_prompt)]


def sequences(batch: Batch) -> list[tuple[str, list[int]]]:
    """Prompt and completion tokens of each row of a batch."""
    r = batch.rollout
    prompts = [TOKENIZER.decode(ids, skip_special_tokens=True) for ids in r.prompt_ids]
    completions = [ids[m.bool()].tolist() for ids, m in zip(r.completion_ids, r.completion_mask, strict=True)]
    return list(zip(prompts, completions, strict=True))


def text(tokens: list[int]) -> str:
    return str(TOKENIZER.decode(tokens, skip_special_tokens=True))
