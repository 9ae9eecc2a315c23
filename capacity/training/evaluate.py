"""Evaluation under a fixed protocol: every run answers the same items with the same uniforms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from capacity.config import EvaluationSpec
from capacity.tasks.task import Task
from capacity.training.batches import encode_prompts
from capacity.training.rollout import pad_left, sample

_BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """`outcomes`: one row an item, `item`, `correct` (0 or 1 a sample), `completions`."""

    outcomes: list[dict[str, Any]]
    n_items: int
    n_correct: int
    samples_per_item: int

    @property
    def accuracy(self) -> float:
        """Share of right samples."""
        return self.n_correct / (self.n_items * self.samples_per_item)


def evaluate(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    spec: EvaluationSpec,
    on_items: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Samples and grades `samples_per_item` completions of each item.

    The uniforms of item i, sample j depend on the protocol's seed and on i and j only, so two runs differ in an
    item only where their models differ. `on_items` is called with (done, all) after each batch.

    Raises:
        DataError: the split has fewer items than asked for.
    """
    items = [item for item in task.items(spec.split, spec.items) for _ in range(spec.samples_per_item)]
    generator = torch.Generator().manual_seed(spec.seed)
    uniforms = torch.rand(len(items), spec.max_new_tokens, generator=generator, dtype=torch.float64)
    device = next(model.parameters()).device
    model.eval()
    texts: list[str] = []
    for start in range(0, len(items), _BATCH):
        chunk = items[start : start + _BATCH]
        ids, mask = pad_left(encode_prompts(tokenizer, chunk), tokenizer.pad_token_id)
        rollout = sample(
            model,
            ids.to(device),
            mask.to(device),
            uniforms[start : start + _BATCH],
            temperature=spec.temperature,
            eos=tokenizer.eos_token_id,
            pad=tokenizer.pad_token_id,
        )
        texts.extend(tokenizer.batch_decode(rollout.completion_ids, skip_special_tokens=True))
        if on_items is not None:
            on_items(len(texts), len(items))
    correct = [int(task.grade(item, text)) for item, text in zip(items, texts, strict=True)]
    k = spec.samples_per_item
    outcomes = [
        {"item": items[i].id, "correct": correct[i : i + k], "completions": texts[i : i + k]}
        for i in range(0, len(items), k)
    ]
    return Evaluation(outcomes, len(outcomes), sum(correct), k)
