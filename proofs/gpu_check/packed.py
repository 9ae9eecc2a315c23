"""Packed passes give what padded passes give: log-probabilities and the gradient of θ.

In bf16 both are rounded. So each is held against the same model in fp32, and packed may be no farther off than padded.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from capacity.adapters.attach import attach
from capacity.adapters.model import AdaptedModel
from capacity.forward.model import Forward, packed_predictions, padded_predictions
from capacity.forward.rollout import Rollout, pad_left, pad_right
from capacity.models.loading import load
from capacity.plan.model_shapes import ModelShape
from proofs.gpu_check.finding import Finding, tried, within
from proofs.gpu_check.training import adapters

PART = "packed ≡ padded"
FP32, FARTHER = 1e-4, 2.0


@dataclass(frozen=True)
class Rows:
    """How many sequences of how many tokens, at most, go through the model. Completions share prompts."""

    name: str
    prompts: int
    samples: int
    prompt_tokens: int
    new_tokens: int


def equal(folder: str, shape: ModelShape, device: str, rows: tuple[Rows, ...], factors: Path) -> Iterator[Finding]:
    """Compares packed with padded passes, in fp32 and in bf16."""
    exact, _ = load(f"{folder}?dtype=fp32", device)
    models = {"fp32": exact, "bf16": copy.deepcopy(exact).to(torch.bfloat16)}
    adapter = adapters(shape)["tinylora"]
    adapted = {}
    for dtype, model in models.items():
        adapted[dtype] = attach(model, adapter, factors)
        start = adapted[dtype].vector()
        adapted[dtype].set_vector(0.01 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0)))
        packs = Forward(adapted[dtype].model).packs
        yield Finding(PART, f"{dtype} takes packed tokens", str(packs), "True", "ok" if packs else "fault")
    for each in rows:
        rollout = _rollout(each, shape.vocabulary, device)
        yield from tried(PART, f"{each.name} rows", partial(_compared, each.name, adapted, rollout))


def _compared(name: str, adapted: dict[str, AdaptedModel], rollout: Rollout) -> list[Finding]:
    reference = _passed(adapted["fp32"], rollout, packed=False)
    packed = _passed(adapted["fp32"], rollout, packed=True)
    coarse = {way: _passed(adapted["bf16"], rollout, packed=way) for way in (True, False)}
    found = []
    for i, what in enumerate(("log-probabilities", "gradient of θ")):
        scale = 1.0 if i == 0 else float(reference[i].abs().max())
        largest = float((packed[i] - reference[i]).abs().max()) / scale
        found.append(within(PART, f"{name} rows, fp32, {what}: largest error", largest, -torch.inf, FP32))
        off = {way: float((coarse[way][i] - reference[i]).norm()) for way in coarse}
        ratio = off[True] / max(off[False], 1e-12)
        found.append(within(PART, f"{name} rows, bf16, {what}: error ÷ padded's", ratio, -torch.inf, FARTHER))
    return found


def _passed(adapted: AdaptedModel, rollout: Rollout, *, packed: bool) -> tuple[Tensor, Tensor]:
    """Returns log-probabilities, (R, T), and the gradient of their weighted sum, both in fp32 on the CPU."""
    model = adapted.model.eval()
    model.zero_grad()
    predictions = (packed_predictions if packed else padded_predictions)(model, rollout)
    logprobs = predictions.logprobs()
    weights = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(1)).to(logprobs.device)
    (logprobs * weights).sum().backward()  # type: ignore[no-untyped-call]
    (theta,) = adapted.trained.values()
    assert theta.grad is not None
    return logprobs.detach().float().cpu(), theta.grad.detach().float().cpu()


def _rollout(rows: Rows, vocabulary: int, device: str) -> Rollout:
    """Returns random tokens. Lengths differ, and the longest is as long as `rows` says."""
    generator = torch.Generator().manual_seed(2)

    def tokens(longest: int, shortest: int) -> list[int]:
        length = int(torch.randint(shortest, longest + 1, (), generator=generator))
        return torch.randint(2, vocabulary, (length,), generator=generator).tolist()

    prompts = [
        tokens(rows.prompt_tokens, rows.prompt_tokens // 2 if i else rows.prompt_tokens) for i in range(rows.prompts)
    ]
    completions = [tokens(rows.new_tokens, 1 if i else rows.new_tokens) for i in range(rows.prompts * rows.samples)]
    prompt_ids, prompt_mask = pad_left([p for p in prompts for _ in range(rows.samples)], 0)
    ids, mask = pad_right(completions, 0)
    return Rollout(prompt_ids, prompt_mask, ids, mask, torch.zeros(ids.shape)).to(torch.device(device))
