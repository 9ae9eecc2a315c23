"""Measures whether a trained update changes what the model says at all."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from capacity.adapters.model import AdaptedModel
from capacity.forward.rollout import pad_left
from capacity.spec.result import Result
from capacity.tasks.task import Item
from capacity.training.batches import encode_prompts

PROMPTS = 8


@torch.no_grad()
def output_change(adapted: AdaptedModel, tokenizer: Any, items: Sequence[Item]) -> float:
    """Returns the largest difference between the logits of the trained and of the untrained model.

    They are the logits of the first completion token after the prompts of at most eight items. The result is 0.0 if an
    update is too small for the precision of the weights, or does not reach the output.
    """
    ids, mask = pad_left(encode_prompts(tokenizer, items[:PROMPTS]), tokenizer.pad_token_id)
    device = next(adapted.model.parameters()).device
    ids, mask = ids.to(device), mask.to(device)
    adapted.model.eval()

    def logits() -> Tensor:
        found: Tensor = adapted.model(input_ids=ids, attention_mask=mask).logits[:, -1]
        return found.float()

    trained = logits()
    with adapted.switched_off():
        untrained = logits()
    return float((trained - untrained).abs().max())


def remarks_of(result: Result) -> tuple[str, ...]:
    """Returns what a result says against its update, a sentence each; nothing for an update that had an effect."""
    found = []
    if result.gradient_steps == 0:
        found.append("no step after its warm start had a gradient, so its update is that of the warm start")
    if result.output_change == 0:
        found.append(f"its stored update changes no output of the model at {PROMPTS} prompts")
    return tuple(found)
