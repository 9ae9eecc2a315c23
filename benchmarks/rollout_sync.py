"""How a vLLM engine follows the trainer: LoRA hot-swap against merged weights, on the real engine.

    make test-vllm          # makes .venv-vllm
    .venv-vllm/bin/python benchmarks/rollout_sync.py table --model abacus-0.9m
    .venv-vllm/bin/python benchmarks/rollout_sync.py cost --model smollm2-135m
    .venv-vllm/bin/python benchmarks/rollout_sync.py curve --model abacus-0.2m

`table`: an update of 13 groups (u = 1) with entries ±|v|, signs drawn, on base weights that are bf16 values. The
trainer computes in fp32. Four ways to the engine: merged into bf16 weights, hot-swap on a bf16 engine, merged into fp32
weights, hot-swap on an fp32 engine. Printed: cosine between realised and intended ΔW; cosine between the engine's and
the trainer's change of log-probabilities, adapter on minus off, on tokens that the base drew; KL(trainer ‖ base);
KL(trainer ‖ sampler), and the same without any update; the ratio of both, which is near 1 if the update never arrived.

`cost`: seconds and bytes of a step's synchronisation, hot-swap against pushing all weights as TRL 1.16 does.

`curve`: the same GRPO runs through vLLM and through transformers, reward by step.
"""

import argparse
import math
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from capacity.adapters.attach import attach
from capacity.adapters.files.merge import MergeTally, base_weights, merged_weights
from capacity.adapters.model import AdaptedModel
from capacity.cache import cache_folder
from capacity.models.loading import DTYPES, load
from capacity.sampling import likelihood
from capacity.sampling.prompts import prompt_ids
from capacity.sampling.vllm.engine import Request
from capacity.sampling.vllm.freshness import divergence_ratio
from capacity.sampling.vllm.in_process import LocalEngine
from capacity.sampling.vllm.sync import LoraWriter
from capacity.spec.adapters import TinyLora
from capacity.spec.parts import RolloutSpec
from capacity.studies.quiet import quiet
from capacity.tasks.catalog import open_task, parse_task
from capacity.training.importance import kl_from_trainer

ADAPTER = TinyLora(u=1, groups=13, rank=2, projection_seed=0)
SIZES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
CACHE_BYTES = 256 * 1024**2
Values = NDArray[np.float64]


def rounded(name: str, folder: Path) -> tuple[Any, Any]:
    """The model with weights that are bf16 values, held in fp32; saved in `folder` for the engine."""
    model, tokenizer = load(name, "cpu")
    with torch.no_grad():
        for parameter in model.parameters():  # not the buffers: rotary frequencies stay what they are
            parameter.copy_(parameter.bfloat16())
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def start(folder: Path, dtype: str, rank: int | None) -> LocalEngine:
    return LocalEngine(folder, dtype=dtype, context=_context(folder), rank=rank, adapters=2, cache_bytes=CACHE_BYTES)


def _context(folder: Path) -> int:
    from transformers import AutoConfig

    return min(512, int(AutoConfig.from_pretrained(folder).max_position_embeddings))


class Tokens:
    """Sequences that the base drew, and the log-probabilities of their drawn tokens."""

    def __init__(self, engine: LocalEngine, tokenizer: Any, prompts: int, new: int) -> None:
        items = open_task(parse_task("abacus")).items("test", prompts)
        ids = [prompt_ids(tokenizer, item) for item in items]
        requests = [Request(p, i) for i, p in enumerate(ids)]
        drawn = engine.generate(requests, temperature=1.0, max_new_tokens=new, ends=[tokenizer.eos_token_id])
        self.sequences = [[*p, *c.ids] for p, c in zip(ids, drawn, strict=True)]
        self.starts = [len(p) - 1 for p in ids]

    def engine(self, engine: LocalEngine, adapter: str | None) -> Values:
        scored = engine.score([(ids, adapter) for ids in self.sequences])
        return np.concatenate([np.array(s[n:]) for s, n in zip(scored, self.starts, strict=True)])

    @torch.no_grad()
    def trainer(self, model: nn.Module) -> Values:
        found = []
        for ids, n in zip(self.sequences, self.starts, strict=True):
            tokens = torch.tensor([ids])
            logits = model(input_ids=tokens).logits[:, n:-1].float()
            found.append(likelihood.token_logprobs(logits, tokens[:, n + 1 :])[0].double().numpy())
        return np.concatenate(found)


def cosine(a: Values, b: Values) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0


def kl_bits(trainer: Values, other: Values, base: Values) -> float:
    values = (torch.from_numpy(x) for x in (trainer, other, base))
    return float(kl_from_trainer(*values, torch.ones(len(trainer)))) / math.log(2)


def hot_cosine(adapted: AdaptedModel, dtype: str) -> float:
    """Between ΔW from A and B in the engine's dtype and ΔW."""
    sums = np.zeros(3)
    for _, a, b in adapted.pairs():
        low = b.to(DTYPES[dtype]).double() @ a.to(DTYPES[dtype]).double()
        exact = b.double() @ a.double()
        sums += np.array([float((low * exact).sum()), float((low**2).sum()), float((exact**2).sum())])
    return float(sums[0] / np.sqrt(sums[1] * sums[2]))


def table(name: str, sizes: tuple[float, ...], draws: int, prompts: int) -> list[dict[str, Any]]:
    """One row for each way to the engine, size and draw."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        base_folder = Path(scratch) / "base"
        model, tokenizer = rounded(name, base_folder)
        adapted = attach(model, ADAPTER, cache_folder("factors"))
        adapted.model.eval()
        tokens: Tokens | None = None
        for dtype in ("fp32", "bf16"):
            for sync in ("hot-swap", "merged"):
                engine = start(base_folder, dtype, ADAPTER.rank if sync == "hot-swap" else None)
                tokens = tokens or Tokens(engine, tokenizer, prompts, 24)
                with adapted.switched_off():
                    base = tokens.trainer(adapted.model)
                off = tokens.engine(engine, None)
                folder = Path(scratch) / f"{sync}-{dtype}"
                folder.mkdir()
                writer = LoraWriter(adapted, folder, dtype, name)
                for size, seed in product(sizes, range(draws)):
                    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=adapted.trained_parameters)
                    adapted.set_vector(torch.from_numpy(signs * size).float())
                    on = tokens.trainer(adapted.model)
                    if sync == "hot-swap":
                        key = f"{size:g}-{seed}"
                        engine.load(key, writer.write(key)[0])
                        found, weights = tokens.engine(engine, key), hot_cosine(adapted, dtype)
                        engine.unload(key)
                    else:
                        tally = MergeTally()
                        engine.push(merged_weights(adapted, dtype, tally))
                        found, weights = tokens.engine(engine, None), tally.cosine or 0.0
                    rows.append(
                        {
                            "sync": f"{sync} {dtype}",
                            "size": size,
                            "weights_cosine": weights,
                            "change_cosine": cosine(found - off, on - base),
                            "kl_to_base": kl_bits(on, base, base),
                            "kl_to_sampler": kl_bits(on, found, base),
                            "kl_without_update": kl_bits(base, off, base),
                            "ratio": divergence_ratio(found, on, base),
                        }
                    )
                engine.close()
    return rows


def show_table(rows: list[dict[str, Any]]) -> None:
    print("sync            |v|     cos ΔW  cos Δlogp  KL to base  KL to sampler  at v = 0   ratio  (bits a token)")
    keys = dict.fromkeys((row["sync"], row["size"]) for row in rows)
    for sync, size in sorted(keys, key=lambda k: (k[1], k[0])):
        mine = [row for row in rows if (row["sync"], row["size"]) == (sync, size)]
        mean = {k: statistics.fmean(r[k] for r in mine) for k in mine[0] if k not in ("sync", "size")}
        print(
            f"{sync:14s}  {size:<6g}  {mean['weights_cosine']:6.4f}  {mean['change_cosine']:9.4f}  "
            f"{mean['kl_to_base']:10.2e}  {mean['kl_to_sampler']:13.2e}  {mean['kl_without_update']:8.1e}  "
            f"{mean['ratio']:6.2g}"
        )


def cost(name: str, steps: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "base"
        model, _ = rounded(name, folder)
        adapted = attach(model, ADAPTER, cache_folder("factors"))
        began = time.perf_counter()
        lora, plain = start(folder, "fp32", ADAPTER.rank), None
        print(
            f"{name}, {ADAPTER.groups} trained parameters, fp32; engine starts in {time.perf_counter() - began:.1f} s"
        )
        writer = LoraWriter(adapted, Path(scratch), "fp32", name)
        written, loaded, size = [], [], 0
        for step in range(steps):
            adapted.set_vector(torch.full((adapted.trained_parameters,), 1e-3 * (step + 1)))
            began = time.perf_counter()
            path, size = writer.write(f"step-{step}")
            written.append(time.perf_counter() - began)
            began = time.perf_counter()
            lora.load(path.name, path)
            lora.unload(path.name)
            loaded.append(time.perf_counter() - began)
        lora.close()
        plain = start(folder, "fp32", None)
        pushed, merged_bytes = [], 0
        for step in range(steps):
            adapted.set_vector(torch.full((adapted.trained_parameters,), 1e-3 * (step + 1)))
            tally = MergeTally()
            began = time.perf_counter()
            plain.push(merged_weights(adapted, "fp32", tally))
            pushed.append(time.perf_counter() - began)
            merged_bytes = tally.bytes
        frozen = []
        for _ in range(steps):
            began = time.perf_counter()
            plain.push(base_weights(adapted, "fp32"))
            frozen.append(time.perf_counter() - began)
        plain.close()
        median = statistics.median
        print(f"hot-swap: {size:,} bytes a step; written in {median(written):.4f} s, loaded in {median(loaded):.4f} s")
        print(f"all weights: {merged_bytes:,} bytes a step; merged and pushed in {median(pushed):.4f} s,")
        print(f"             pushed alone in {median(frozen):.4f} s (medians of {steps} steps)")
        times = median(pushed) / (median(written) + median(loaded))
        print(f"all weights take {merged_bytes / size:,.0f} times the bytes and {times:.1f} times the seconds")


def curve(name: str, steps: int, seeds: int, prompts: int, samples: int, rate: float) -> dict[str, list[list[float]]]:
    """Reward by step of the runs of each engine, one row a seed; LoRA-XS of rank 8."""
    from capacity.plan.sampling import with_rollouts
    from capacity.plan.sizes import SizeChoice, size_of
    from capacity.plan.specs import trained_spec
    from capacity.training.run import execute

    task = parse_task("abacus")
    found: dict[str, list[list[float]]] = {"transformers": [], "vllm": []}
    for seed in range(seeds):
        size = size_of(name, SizeChoice(adapter="lora-xs", rank=8), "fp32")
        spec = trained_spec(name, task, "grpo", size, seed, "fp32", rates={"grpo": rate})
        assert spec.training is not None
        sizes = {"steps": steps, "warmup_steps": 2, "prompts_per_step": prompts, "samples_per_prompt": samples}
        changed = {
            "training": spec.training.model_copy(update=sizes),
            "evaluation": spec.evaluation.model_copy(update={"items": 256}),
        }
        spec = spec.model_copy(update=changed)
        for engine, run in (("transformers", spec), ("vllm", with_rollouts(spec, RolloutSpec()))):
            began = time.perf_counter()
            record = execute(run, "cpu")
            rewards = [row["reward"] for row in record.metrics]
            found[engine].append(rewards)
            line = f"{engine:12s} seed {seed}  accuracy {record.result['accuracy']:.3f}  "
            print(line + f"{time.perf_counter() - began:.0f} s  " + " ".join(f"{r:.2f}" for r in rewards), flush=True)
            if engine == "vllm":
                verdicts = [row["freshness"] for row in record.metrics]
                worst = max(row["kl_to_sampler_bits"] for row in record.metrics)
                print(f"{verdicts.count('fresh')} of {steps} steps fresh, KL to the sampler ≤ {worst:.1e} bits a token")
    return found


def show_curve(found: dict[str, list[list[float]]]) -> None:
    ends = {engine: [float(np.mean(rewards[-5:])) for rewards in runs] for engine, runs in found.items()}
    for engine, values in ends.items():
        print(f"{engine:12s} reward of the last five steps: mean {np.mean(values):.3f}, of seeds {np.round(values, 3)}")
    first, second = (np.array(found[engine]).mean(0) for engine in ("transformers", "vllm"))
    spread = np.sqrt(sum(np.array(runs).var(0, ddof=1) / len(runs) for runs in found.values()))
    apart = np.abs(first - second) / np.where(spread > 0, spread, np.inf)
    print(f"mean curves apart by {np.mean(apart):.2f} standard errors on average, at most {np.max(apart):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("table", "cost", "curve"))
    parser.add_argument("--model", default="abacus-0.9m")
    parser.add_argument("--sizes", type=float, nargs="+", default=list(SIZES))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=64, help="of `table`")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.0032)
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    if arguments.what == "table":
        show_table(table(arguments.model, tuple(arguments.sizes), arguments.draws, arguments.prompts))
    elif arguments.what == "cost":
        cost(arguments.model, arguments.steps)
    else:
        show_curve(curve(arguments.model, arguments.steps, arguments.seeds, 16, 8, arguments.rate))


if __name__ == "__main__":
    main()
