"""Code length of held-out sequences of the kind that a run was trained on, after the training.

What it still costs to code such sequences is what excess description length subtracts (Donoway et al., arXiv
2601.04728).
"""

from typing import Any

import torch
from torch import nn

from capacity.adapters.inject import AdaptedModel
from capacity.config import RunSpec
from capacity.tasks.task import Task
from capacity.training import losses
from capacity.training.arms import Arm
from capacity.training.batches import HELDOUT_STREAM, generator
from capacity.training.rft import RftArm
from capacity.training.rollout import Rollout, forward_logits
from capacity.training.sft import SftArm

_ITEMS = 256
_SEED = 0  # the same held-out sequences for all runs of one kind


def heldout_code_length(adapted: AdaptedModel, tokenizer: Any, task: Task, spec: RunSpec) -> dict[str, float]:
    """Bits of held-out sequences under the trained and under the untrained model, summed over tokens.

    `sft`: one demonstration of each of the first 256 validation items. `rft`: the right ones of the base's own samples,
    one of each. Nothing for the other methods: what they are trained on changes with the model, or is not coded at all.

    Returns:
        `heldout_code_length_bits`, `heldout_base_code_length_bits`, `heldout_demonstrations`, `heldout_tokens`; empty
        if the method has no such sequences.
    """
    rng = generator(_SEED, HELDOUT_STREAM)
    items = task.items("validation")[:_ITEMS]
    arm: Arm
    if spec.method == "sft":
        arm = SftArm(adapted, tokenizer, task, spec)
        rollout = arm.written(items, arm.demonstrated(items, 1, rng))
    elif spec.method == "rft":
        arm = RftArm(adapted, tokenizer, task, spec)
        right = arm.right_samples(items, 1, rng, rounds=1)
        kept = [(item, samples[0]) for item, samples in zip(items, right, strict=True) if samples]
        if not kept:
            return {}
        rollout = arm.written([item for item, _ in kept], [tokens for _, tokens in kept])
    else:
        return {}
    with adapted.switched_off():
        base = _bits(adapted.model, rollout)
    return {
        "heldout_code_length_bits": _bits(adapted.model, rollout),
        "heldout_base_code_length_bits": base,
        "heldout_demonstrations": len(rollout.completion_ids),
        "heldout_tokens": int(rollout.completion_mask.sum()),
    }


@torch.no_grad()
def _bits(model: nn.Module, rollout: Rollout) -> float:
    model.eval()
    logprobs = losses.token_logprobs(forward_logits(model, rollout).float(), rollout.completion_ids)
    return losses.code_length_bits(logprobs, rollout.completion_mask)
