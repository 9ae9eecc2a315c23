"""Study folders of known truth for tests of reports: accuracies follow Hill curves, nothing is trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fakes import FINGERPRINT, raw_spec

from capacity.runs.study import Study
from capacity.spec.result import Outcome, Result, Step
from capacity.spec.run import RunSpec

MODELS = {"abacus-0.2m": 200_000, "abacus-0.9m": 861_952, "abacus-3m": 3_000_000}
BASE, CEILING = 0.36, 0.95
MIDPOINT = {"grpo": 20.0, "rft": 40.0, "sft": 400.0}
SIZES = ((1, 1), (4, 1), (13, 1), (28, 1), (28, 4), (28, 16))  # groups, u
STEPS = 24


def spec(
    model: str,
    method: str,
    groups: int,
    u: int,
    seed: int,
    items: int,
    rate: float = 0.01,
    split: str = "test",
    temperature: float = 1.0,
    dtype: str = "bf16",
    shift: float = 4.0,
) -> RunSpec:
    raw = raw_spec(method, seed, items, temperature, split)
    raw |= {"model": model, "storage_dtype": dtype}
    if raw["training"] is not None:
        raw["adapter"] = {"kind": "tinylora", "u": u, "groups": groups, "projection_seed": seed}
        raw["training"] |= {"steps": STEPS, "learning_rate": rate}
    if raw["task"]["demonstrations"] != "none":
        raw["task"]["options"]["style_shift"] = shift
    return RunSpec.model_validate(raw)


def accuracy(model: str, method: str, size: int) -> float:
    """The truth: larger models need a smaller update."""
    if method not in MIDPOINT:
        return BASE
    midpoint = MIDPOINT[method] * (861_952 / MODELS[model]) ** 0.5
    return BASE + (CEILING - BASE) / (1 + midpoint / size)


def add(study: Study, run: RunSpec, share: float, rng: np.random.Generator, hostile: str = "") -> None:
    """A complete run whose answers are right with probability `share`."""
    items = run.evaluation.items
    trained = run.training is not None
    size = run.adapter.groups * run.adapter.u if trained else 0  # type: ignore[union-attr]
    ease = np.random.default_rng(7).uniform(size=items)  # the same items are easy for every run
    right = [
        int(x)
        for x in (0.7 * ease + 0.3 * rng.uniform(size=items)) < np.quantile(0.7 * ease + 0.15, min(max(share, 0), 1))
    ]
    result = {
        "model_parameters": MODELS[run.model],
        "family": "abacus",
        "trained_parameters": size,
        "update_bytes": 2 * size,
        "header_bytes": 500 if trained else 0,
        "n_items": items,
        "n_correct": sum(right),
        "accuracy": sum(right) / items,
        "prompts": 72 if trained else 0,
        "sequences": 288 if trained else 0,
        "sampled_tokens": 2500 if run.method == "grpo" else 0,
        "trained_tokens": 2400 if trained else 0,
        "flops": 1e9,
        "wall_seconds": 2.0,
        "worker_peak_memory_bytes": 10**9,
    }
    if run.method in ("sft", "rft"):
        result |= {
            "heldout_code_length_bits": 900.0 + run.seed,
            "heldout_base_code_length_bits": 2400.0,
            "heldout_demonstrations": 64,
            "heldout_tokens": 1300,
        }
    metrics = [Step.model_validate(_step(run, step, share)) for step in range(STEPS)] if trained else []
    outcomes = [
        Outcome(item=f"{run.evaluation.split}-{i}", correct=(c,), completions=(f"{hostile}1+2=3#{c}",))
        for i, c in enumerate(right)
    ]
    study.add(run, FINGERPRINT, Result.model_validate(result), metrics, outcomes, b"theta" if trained else None)


def _step(run: RunSpec, step: int, share: float) -> dict[str, object]:
    way = step / STEPS
    row: dict[str, object] = {
        "step": step,
        "loss": 1.5 - way,
        "mean_length": 20.0 + 5 * way,
        "trained_tokens": 240,
        "entropy_bits": 0.9 - 0.3 * way,
        "kl_to_base_bits": 0.02 * step,
        "code_length_bits": 400.0 - 100 * way,
    }
    if run.method in ("grpo", "random-reward"):
        row |= {
            "reward": BASE + (share - BASE) * way,
            "group_hits": [0, 2, 4],
            "dead_groups": 2,
            "reward_bits": 9.0,
            "kl_to_sampler_bits": 1e-6,
        }
    return row


def empty(folder: Path) -> Study:
    study = Study(folder)
    with study.locked():
        pass
    return study


def full_study(
    folder: Path,
    *,
    models: Sequence[str] = ("abacus-0.9m",),
    methods: Sequence[str] = ("sft", "rft", "grpo"),
    sizes: Sequence[tuple[int, int]] = SIZES,
    seeds: int = 3,
    items: int = 120,
    tuned: bool = True,
    seed: int = 0,
    dtypes: Sequence[str] = ("bf16",),
    hostile: str = "",
    shifts: Sequence[float] = (4.0,),
) -> Study:
    """A study as `capacity sweep` leaves it: base at three temperatures on both splits, trials, and results."""
    rng, study = np.random.default_rng(seed), empty(folder)
    for model in models:
        for split in ("validation", "test"):
            for temperature, share in ((0.0, 0.2), (0.5, 0.42), (1.0, BASE)):
                add(
                    study,
                    spec(model, "base", 1, 1, 0, items, split=split, temperature=temperature),
                    share,
                    rng,
                    hostile,
                )
        for dtype in dtypes:
            for method in methods:
                for groups, u in sizes:
                    share = accuracy(model, method, groups * u)
                    for rate, lost in ((0.001, 0.1), (0.01, 0.0), (0.1, 0.05)) if tuned else ():
                        run = spec(
                            model, method, groups, u, 1000, items, rate, "validation", dtype=dtype, shift=shifts[0]
                        )
                        add(study, run, share - lost, rng)
                    for shift in shifts if method == "sft" else shifts[:1]:
                        for s in range(seeds):
                            run = spec(model, method, groups, u, s, items, dtype=dtype, shift=shift)
                            add(study, run, share + rng.normal(0, 0.01), rng, hostile)
    return study


def write_collapsed(path: Path, untuned: Sequence[float] = ()) -> Path:
    """A points table of sft and grpo with five seeds at six sizes, of which seed 2 of grpo stays at the base.

    On another task it has sft at these rates, which nothing chose between.
    """
    rows = ["model,method,trained_parameters,seed,n_items,n_correct,task,learning_rate"]
    rows += [f"m,base,0,{seed},1000,500,abacus," for seed in range(5)]
    rows += [f"m,sft,{size},0,1000,700,gsm8k,{rate}" for rate in untuned for size in (1, 10, 100)]
    for method, middle in (("sft", 300.0), ("grpo", 100.0)):
        for size in (1, 10, 100, 1000, 10000, 100000):
            for seed in range(5):
                right = 500 + round(400 / (1 + middle / size)) + (3 * seed + size) % 7
                fallen = (method, seed) == ("grpo", 2)
                rows.append(f"m,{method},{size},{seed},1000,{500 if fallen else right},abacus,0.01")
    path.write_text("\n".join(rows))
    return path
