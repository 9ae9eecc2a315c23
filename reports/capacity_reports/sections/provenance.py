"""Protocol, costs and provenance of the runs; what failed and what is missing."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from capacity.runs.mixed import bases
from capacity.runs.points import COSTS, protocol_name
from capacity.runs.study import Run
from capacity_analysis.data.absent import Absent
from capacity_reports.blocks import Block, Cell, Column, Section, Table, Text
from capacity_reports.sources import ordered
from capacity_reports.views import Analysis

_COSTS = (
    Column("model", "model"),
    Column("method", "method"),
    Column("runs", "runs", "count"),
    Column("prompts", "prompts", "count"),
    Column("sequences", "sequences", "count"),
    Column("sampled_tokens", "sampled tokens", "count"),
    Column("trained_tokens", "trained tokens", "count"),
    Column("flops", "FLOPs", "number"),
    Column("preparation_flops", "FLOPs before the training", "number"),
    Column("wall_seconds", "run time, s", "number"),
    Column("worker_peak_memory_bytes", "peak memory, bytes", "number"),
)
_MOST = 200


def protocol_section(analysis: Analysis) -> Section:
    """The section of how the runs were made and evaluated, what they used, and in which environment."""
    source = analysis.source
    title = "Protocol and provenance"
    if source.study is None:
        points = source.points
        assert not isinstance(points, Absent)
        frame = points.frame
        known = [
            f"{name}: {', '.join(sorted(set(frame[name].dropna())))}"
            for name in ("task", "protocol", "split")
            if frame[name].notna().any()
        ]
        return Section(
            "protocol", title, (Text((f"Read from {source.path}.", *(f"{k}." for k in known)), bullets=True),)
        )
    if not source.runs:
        return Section("protocol", title, (), "no run is complete")
    blocks: list[Block] = [
        _values("evaluation", "Evaluation", _evaluation(source.runs)),
        *([_values("training", "Training", _training(source.trained))] if source.trained else []),
        *([_costs(source.trained)] if source.trained else []),
        _values("environment", "Environment", _environment(source.runs)),
    ]
    return Section("protocol", title, tuple(blocks))


def _values(name: str, title: str, values: Mapping[str, str]) -> Table:
    return Table(name, title, (Column("field", "field"), Column("value", "value")), tuple(values.items()))


def _all(values: Sequence[object]) -> str:
    """The different values in one line, each once."""
    return ", ".join(dict.fromkeys(f"{v:g}" if isinstance(v, float) else str(v) for v in values))


def _evaluation(runs: Sequence[Run]) -> dict[str, str]:
    main = [run for run in runs if run.spec.evaluation.split == "test"] or list(runs)
    return {
        "models": _all([r.spec.model for r in runs]),
        "weights of the bases": _bases(runs),
        "tasks": _all([r.spec.task.label for r in main if r.spec.training] or [r.spec.task.name for r in main]),
        "protocol on test": _all(
            [protocol_name(r.spec.evaluation) for r in main if r.spec.training]
            or [protocol_name(r.spec.evaluation) for r in main]
        ),
        "test items": _all([r.result.n_items for r in main]),
        "base evaluated at": _all([f"T={r.spec.evaluation.temperature:g}" for r in main if r.spec.method == "base"])
        or "not run",
    }


def _bases(runs: Sequence[Run]) -> str:
    """The fingerprints of the untrained weights by model, and on how many runs each, where a model has several."""
    found = [
        f"{model} {base[:16]}" + (f" ({count} runs)" if len(counts) > 1 else "")
        for model, counts in bases(runs).items()
        for base, count in counts.items()
    ]
    return ", ".join(found) or "not recorded"


def _training(runs: Sequence[Run]) -> dict[str, str]:
    settings = [run.spec.training for run in runs if run.spec.training is not None]
    return {
        "seeds": _all(sorted({r.spec.seed for r in runs})),
        "adapters": _all([r.spec.adapter.kind for r in runs]),
        "storage dtype": _all([r.spec.storage_dtype for r in runs]),
        "matched by": _all([t.match for t in settings]),
        "steps": _all(sorted({t.steps for t in settings})),
        "prompts a step": _all(sorted({t.prompts_per_step for t in settings})),
        "samples a prompt": _all(sorted({t.samples_per_prompt for t in settings})),
        "new tokens at most": _all(sorted({t.max_new_tokens for t in settings})),
        "warm-up steps": _all(sorted({t.warmup_steps for t in settings})),
        "schedule": _all([t.schedule for t in settings]),
    }


def _environment(runs: Sequence[Run]) -> dict[str, str]:
    prints = list(dict.fromkeys(run.fingerprint.model_dump_json() for run in runs))
    first = runs[0].fingerprint
    note = "one environment" if len(prints) == 1 else f"{len(prints)} environments, mixed as asked; the first"
    return {
        "runs made in": note,
        "source digest": first.sources[:16],
        "device and dtype": f"{first.device}, {first.dtype}",
        "trainer": first.trainer,
        **dict(sorted(first.versions.items())),
    }


def _costs(runs: Sequence[Run]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for model in dict.fromkeys(run.spec.model for run in runs):
        own = [run for run in runs if run.spec.model == model]
        for method in ordered([run.spec.method for run in own]):
            some = [run for run in own if run.spec.method == method]
            rows.append((model, method, len(some), *(_mean(some, name) for name in COSTS)))
    return Table(
        "costs",
        "What a run used",
        _COSTS,
        tuple(rows),
        "Means over runs. Peak memory is that of the worker process since its start.",
    )


def _mean(runs: Sequence[Run], name: str) -> float | None:
    values = [getattr(run.result, name) for run in runs]
    known = [float(v) for v in values if v is not None]
    return fmean(known) if len(known) == len(values) else None


def failures_section(analysis: Analysis) -> Section:
    """The section of runs that gave no result; they are no part of any number above."""
    source = analysis.source
    if source.study is None:
        return Section("failures", "Failures", (), "a points table does not show failed runs")
    blocks: list[Block] = []
    if source.failures:
        columns = (Column("run", "run"), Column("label", "what"), Column("message", "diagnosis"))
        rows = tuple((f.run, f.label, f.message) for f in source.failures)
        blocks.append(
            Table("failures", f"{len(rows)} runs failed", columns, rows, "They are no part of any number on this page.")
        )
    if source.missing:
        shown = source.missing[:_MOST]
        more = (f"… and {len(source.missing) - _MOST} more",) if len(source.missing) > _MOST else ()
        blocks += [Text((f"{len(source.missing)} planned runs are missing:",)), Text((*shown, *more), bullets=True)]
    if not blocks:
        blocks.append(Text(("No run failed and none is missing.",)))
    return Section("failures", "Failures", tuple(blocks))
