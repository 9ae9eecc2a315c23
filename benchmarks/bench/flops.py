"""Counts the floating-point operations of the tokens of a step that need work, and times a plain matrix product.

A prompt needs one pass for all of its samples. A group whose rewards are all equal needs no training pass. Padding
needs nothing. A token costs 2 operations per weight forward, and 2 more backward, because the frozen weights get no
gradient themselves. Attention costs 2 products per pair of tokens forward, and 4 backward.
"""

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.bench.side import Gate
from capacity.plan.models import model_shape
from capacity.spec.run import RunSpec

SIZE, PRODUCTS = 1024, 16


def step_flops(run: RunSpec, prompts: Sequence[int], length: float, alive: Sequence[bool]) -> float:
    """Returns the operations that a training step needs.

    Args:
        run: the spec; its method says whether samples are drawn.
        prompts: the number of tokens of each prompt.
        length: the mean number of tokens of a completion.
        alive: for each prompt, whether its sequences have a gradient.
    """
    _, shape = model_shape(run.model)
    assert run.training is not None
    k = run.training.samples_per_prompt
    rank = getattr(run.adapter, "rank", 0)
    weights = sum(m.d * m.k + rank * (m.d + m.k) for m in shape.linears)
    head = shape.hidden * shape.vocabulary
    pair = 4 * shape.layers * shape.heads * shape.head_dim  # scores and sums of one token with one other
    total = 0.0
    for tokens, live in zip(prompts, alive, strict=True):
        passed = tokens + k * (length - 1)  # the last token predicts nothing
        pairs = tokens * (tokens + 1) / 2 + k * (length - 1) * (tokens + length / 2)
        if run.method == "grpo":
            total += 2 * weights * passed + 2 * head * (k * (length - 1) + 1) + pair * pairs
        if live:
            total += 4 * weights * passed + 4 * head * k * length + 3 * pair * pairs
    return total


def product(gate: Gate, turns: int) -> dict[str, Any]:
    """Multiplies square matrices in fp32 on one thread, several a turn."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    out = torch.empty(SIZE, SIZE)
    for _ in range(turns):
        gate.wait()
        for _ in range(PRODUCTS):
            torch.matmul(a, b, out=out)
        gate.done()
    return {"flops": PRODUCTS * 2 * SIZE**3}


def square_rate() -> float:
    """Returns the operations per CPU second of a few such products, in this process."""
    import torch

    a, b = torch.randn(2, SIZE, SIZE)
    out = torch.mm(a, b)
    began = time.process_time()
    for _ in range(PRODUCTS // 4):
        torch.mm(a, b, out=out)
    return PRODUCTS // 4 * 2 * SIZE**3 / (time.process_time() - began)
