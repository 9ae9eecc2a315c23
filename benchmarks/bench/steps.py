"""Training steps against stock TRL's trainers with PEFT's TinyLoRA, and how well they use the processor."""

from collections.abc import Iterator

from benchmarks.bench.figures import Figure, Quantity, check_same
from benchmarks.bench.turns import Call, Measured, Say, alternate
from benchmarks.bench.workloads import REAL_GRPO, SMALL_GRPO, SMALL_SFT, Workload

STOCK = "stock TRL + PEFT"
WORKLOADS = (SMALL_GRPO, SMALL_SFT, REAL_GRPO)


def measure(say: Say) -> Iterator[Figure]:
    """Yields two figures for each workload: seconds and memory of a step, and operations per second.

    For `sft` there is one more. Runs of one seed train on the same demonstrations, whose code lengths under the base
    the first run has computed.
    """
    for workload in WORKLOADS:
        yield from _measured(workload, say)
    yield next(_measured(SMALL_SFT, say, later=True))


def _measured(workload: Workload, say: Say, *, later: bool = False) -> Iterator[Figure]:
    spec = workload.spec.model_dump(mode="json")
    which = ", later run of a seed" if later else ""
    subject = f"{workload.method.upper()} step{which}, {workload.label}"
    calls = {
        "ours": Call("ours:step", {"spec": spec, "later": later}),
        "stock": Call("stock:step", {"spec": spec}),
        "product": Call("flops:product", {"turns": workload.warm_up + workload.turns}),
    }
    found = alternate(calls, workload.turns, workload.warm_up, lambda text: say(f"{subject}: {text}"))
    ours, stock, product = found.values()
    check_same(subject, ours.facts["same"], stock.facts["same"])
    counted = slice(workload.warm_up, None)
    quantities = [
        Quantity("CPU s", ours.cpu, stock.cpu),
        Quantity("wall s", ours.wall, stock.wall),
        *([] if later else memory(ours, stock)),  # the run before has raised the memory of our process
        Quantity("mean completion, tokens", *(tuple(m.facts["lengths"][counted]) for m in (ours, stock))),
    ]
    if workload.method == "grpo":
        quantities.append(Quantity("mean reward", *((_mean(m.facts["rewards"][counted]),) for m in (ours, stock))))
    yield Figure("steps", subject, STOCK, tuple(quantities), ours.facts["same"])
    achieved = tuple(flops / cpu / 1e9 for flops, cpu in zip(ours.facts["flops"][counted], ours.cpu, strict=True))
    possible = tuple(product.facts["flops"] / cpu / 1e9 for cpu in product.cpu)
    rate = Quantity("GFLOP per CPU s, tokens that need work", achieved, possible)
    yield Figure("flops", subject, "a matrix product of 1024 × 1024", (rate,))


def memory(ours: Measured, theirs: Measured) -> tuple[Quantity, ...]:
    """Returns the peak memory of two sides, and its rise above libraries, model and data."""
    return (
        Quantity("peak memory, MB", (ours.peak / 1e6,), (theirs.peak / 1e6,)),
        Quantity(
            "of which after loading, MB", ((ours.peak - ours.loaded) / 1e6,), ((theirs.peak - theirs.loaded) / 1e6,)
        ),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
