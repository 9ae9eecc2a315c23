"""Sampling against transformers' `generate`, and against vLLM's CPU build where its environment exists."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench.figures import Figure, Quantity, check_same
from benchmarks.bench.side import Gate
from benchmarks.bench.steps import memory
from benchmarks.bench.turns import ROOT, Call, Say, alternate
from benchmarks.bench.workloads import REAL_GRPO, SMALL_GRPO, Workload, digest

VLLM = ROOT / ".venv-vllm" / "bin" / "python"  # of the environment that `make test-vllm` makes
CACHE_BYTES = 256 * 1024**2
AGAINST = {
    "generate": "generate with PEFT's TinyLoRA",
    "bare": "generate without an adapter",
    "vllm": "vLLM without an adapter",
}


def measure(say: Say, vllm: Path = VLLM) -> Iterator[Figure]:
    """Yields a figure for each model and opponent: tokens per second of the samples of a GRPO step.

    Args:
        say: hears of the progress.
        vllm: a Python interpreter that can import vLLM. Without it, vLLM takes no part.
    """
    if not vllm.exists():
        say(f"without vLLM: there is no {vllm}")
    yield from _measured(SMALL_GRPO, 8, 1, say, vllm)
    # Its turns are so long that a first call's extra work is lost in them. vLLM's environment has no weights of it.
    yield from _measured(REAL_GRPO, 2, 0, say)


def _measured(workload: Workload, turns: int, warm_up: int, say: Say, vllm: Path | None = None) -> Iterator[Figure]:
    spec = workload.spec.model_dump(mode="json")
    arguments = {"spec": spec, "turns": warm_up + turns}
    calls = {
        "ours": Call("ours:rollouts", arguments),
        "generate": Call("stock:rollouts", {**arguments, "adapter": True}),
        "bare": Call("stock:rollouts", {**arguments, "adapter": False}),
    }
    if vllm is not None and vllm.exists():
        calls["vllm"] = Call("rollouts:by_vllm", arguments, str(vllm))
    subject = f"Rollouts, {workload.label}"
    ours, *others = (found := alternate(calls, turns, warm_up, lambda text: say(f"{subject}: {text}"))).values()
    for name, theirs in zip(list(found)[1:], others, strict=True):
        check_same(subject, ours.facts["same"], theirs.facts["same"])
        tokens = [m.facts["tokens"][warm_up:] for m in (ours, theirs)]
        sequences = workload.prompts * workload.samples
        quantities = (
            Quantity("tokens per CPU s", *(_speeds(t, m.cpu) for t, m in zip(tokens, (ours, theirs), strict=True))),
            Quantity("tokens per wall s", *(_speeds(t, m.wall) for t, m in zip(tokens, (ours, theirs), strict=True))),
            *memory(ours, theirs),
            Quantity("mean completion, tokens", *(tuple(n / sequences for n in side) for side in tokens)),
        )
        yield Figure("rollouts", subject, AGAINST[name], quantities, ours.facts["same"])


def _speeds(tokens: Sequence[int], seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(n / s for n, s in zip(tokens, seconds, strict=True))


def by_vllm(gate: Gate, spec: Mapping[str, Any], turns: int) -> dict[str, Any]:
    """Samples as `stock.rollouts` does, by a vLLM engine in this process."""
    from benchmarks.bench.models import first_prompts, opened
    from capacity.models.ends import end_tokens
    from capacity.models.loading import model_folder
    from capacity.sampling.vllm.engine import Request
    from capacity.sampling.vllm.in_process import LocalEngine

    run, model, tokenizer = opened(spec)
    assert run.training is not None
    prompts, longest = first_prompts(run, tokenizer), run.training.max_new_tokens
    context, ends = max(map(len, prompts)) + longest, end_tokens(model, tokenizer).ids
    engine = LocalEngine(
        model_folder(run.model), dtype="fp32", context=context, rank=None, adapters=1, cache_bytes=CACHE_BYTES
    )
    tokens = []
    for turn in range(turns):
        requests = [Request(ids, turn * len(prompts) + i) for i, ids in enumerate(prompts)]
        gate.wait()
        drawn = engine.generate(requests, temperature=1.0, max_new_tokens=longest, ends=ends)
        gate.done()
        tokens.append(sum(len(completion.ids) for completion in drawn))
    engine.close()
    return {"same": {"prompts": digest(prompts), "longest": longest}, "tokens": tokens}
