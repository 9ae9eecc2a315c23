"""Putting a TinyLoRA onto a model, and the size of what is stored of it, against PEFT's."""

from collections.abc import Iterator

from benchmarks.bench.figures import Figure, Quantity, check_same
from benchmarks.bench.steps import memory
from benchmarks.bench.turns import Call, Say, alternate
from benchmarks.bench.workloads import REAL_GRPO, SMALL_GRPO, Workload

PEFT = "PEFT's TinyLoRA"


def measure(say: Say) -> Iterator[Figure]:
    """Yields the figures of each model: first injection, later ones, and the stored update."""
    yield from _measured(SMALL_GRPO, 7, say)
    yield from _measured(REAL_GRPO, 2, say)


def _measured(workload: Workload, turns: int, say: Say) -> Iterator[Figure]:
    spec = workload.spec.model_dump(mode="json")
    arguments = {"spec": spec, "turns": turns}
    calls = {
        "ours, first time": Call("ours:injection", {**arguments, "cached": False}),
        "ours, again": Call("ours:injection", {**arguments, "cached": True}),
        "PEFT": Call("stock:injection", arguments),
    }
    subject = f"Injection, {workload.label.rpartition(', ')[0]}"
    first, again, peft = alternate(calls, turns, 0, lambda text: say(f"{subject}: {text}")).values()
    check_same(subject, first.facts["same"], peft.facts["same"])
    for ours, when in ((first, "nothing cached"), (again, "factors cached")):
        seconds = (Quantity("CPU s", ours.cpu, peft.cpu), Quantity("wall s", ours.wall, peft.wall))
        yield Figure("injection", f"{subject}, {when}", PEFT, (*seconds, *memory(ours, peft)), ours.facts["same"])
    sizes = tuple(
        Quantity(f"bytes on disk, ours in {dtype}", (float(size),), (float(peft.facts["bytes"]),))
        for dtype, size in first.facts["bytes"].items()
    )
    yield Figure("injection", subject.replace("Injection", "Stored update"), PEFT, sizes, first.facts["same"])
