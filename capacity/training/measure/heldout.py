"""Measures the code length of held-out sequences after training. They are of the kind that the run trained on.

Excess description length subtracts what it still costs to code such sequences (Donoway et al., arXiv 2601.04728).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capacity.adapters.model import AdaptedModel
from capacity.forward.model import Forward
from capacity.forward.rollout import Rollout, pad_left, pad_right
from capacity.models.ends import end_tokens
from capacity.sampling.finite import check_logits
from capacity.spec.run import RunSpec
from capacity.tasks.task import Item, Task
from capacity.training.arm import Arm
from capacity.training.base_lengths import BaseLengths
from capacity.training.batches import HELDOUT_STREAM, encode_completions, encode_prompts, generator, heldout_items
from capacity.training.rft import RftArm
from capacity.training.sft import SftArm

_SEED = 0  # the same held-out sequences for all runs of one kind


def heldout_code_length(
    adapted: AdaptedModel, tokenizer: Any, task: Task, spec: RunSpec, known: BaseLengths | None = None
) -> dict[str, float]:
    """Returns the code lengths of held-out sequences under the trained and under the untrained model.

    For `sft` they are one demonstration of each of the first 256 validation items, where they have one. For `rft` they
    are the base's own samples for these items that are correct, at most one per item. Other methods have no such
    sequences, because they train on samples of the changing model. `known` remembers the code lengths under the base.

    Returns:
        `heldout_code_length_bits` and `heldout_base_code_length_bits` (bits, summed over tokens),
        `heldout_demonstrations` and `heldout_tokens` (counts). Two or more sequences also give `heldout_sd_bits` and
        `heldout_gain_sd_bits`, standard deviations over sequences. The result is empty if there are no such sequences.
    """
    rng = generator(_SEED, HELDOUT_STREAM)
    items = heldout_items(task, demonstrated=spec.method == "sft")
    arm: Arm
    if spec.method == "sft" and items:
        arm = SftArm(adapted, tokenizer, task, spec)
        rollout = arm.written(items, arm.demonstrated(items, 1, rng))
    elif spec.method == "rft":
        arm = RftArm(adapted, tokenizer, task, spec)
        right = arm.answered(arm.right_samples(items, 1, rng, rounds=1))
        kept = [(item, samples[0].ids) for item, samples in zip(items, right, strict=True) if samples]
        if not kept:
            return {}
        rollout = arm.written([item for item, _ in kept], [tokens for _, tokens in kept])
    else:
        return {}
    rows = arm.at_once(rollout, backward=False)
    with adapted.switched_off():
        base = (known or BaseLengths()).of(rollout, lambda: code_lengths(adapted.model, rollout, rows))
    trained = code_lengths(adapted.model, rollout, rows)
    found = {
        "heldout_code_length_bits": float(trained.sum()),
        "heldout_base_code_length_bits": float(base.sum()),
        "heldout_demonstrations": len(trained),
        "heldout_tokens": int(rollout.completion_mask.sum()),
    }
    if len(trained) > 1:
        found |= {"heldout_sd_bits": float(trained.std()), "heldout_gain_sd_bits": float((trained - base).std())}
    return found


@dataclass(frozen=True)
class DemonstrationLength:
    """Holds the code length of demonstrations: Σ −log₂ p over the tokens of their completions.

    Attributes:
        bits: the code length of all demonstrations together, in bits.
        demonstrations: the number of demonstrations.
        tokens: the number of their completion tokens.
    """

    bits: float
    demonstrations: int
    tokens: int


def demonstration_length(
    model: nn.Module, tokenizer: Any, task: Task, items: Sequence[Item], at_once: Callable[..., int]
) -> DemonstrationLength:
    """Measures the code length of one demonstration of each of `items`, the tokens that end them included.

    Args:
        model: the model, with its adapter switched on or off.
        tokenizer: the tokenizer of the model.
        task: a task that has demonstrations.
        items: the items that are demonstrated.
        at_once: a function that returns how many rows of a rollout go through the model together. See `RowsAtOnce`.
    """
    rng = generator(_SEED, HELDOUT_STREAM)
    texts = [text for item in items for text in task.demonstrations(item, 1, rng)]
    coded = encode_completions(tokenizer, texts, end_tokens(model, tokenizer), items[0])
    ids, mask = pad_right(coded, tokenizer.pad_token_id)
    prompts = pad_left(encode_prompts(tokenizer, items), tokenizer.pad_token_id)
    device = next(model.parameters()).device
    rollout = Rollout(*prompts, ids, mask, torch.zeros(ids.shape)).to(device)
    bits = float(code_lengths(model, rollout, at_once(rollout, backward=False)).sum())
    return DemonstrationLength(bits, len(texts), int(mask.sum()))


@torch.no_grad()
def code_lengths(model: nn.Module, rollout: Rollout, rows: int) -> Tensor:
    """Returns Σ −log₂ p over the completion tokens of each sequence, in bits. `rows` sequences pass at a time.

    Raises:
        TrainingError: if the model's logits are not finite.
    """
    found, forward = [], Forward(model)
    for start in range(0, len(rollout.completion_ids), rows):
        predictions = forward(rollout.rows(start, start + rows))
        check_logits(predictions.logits)
        found.append(predictions.code_lengths_bits().cpu())
    return torch.cat(found)
