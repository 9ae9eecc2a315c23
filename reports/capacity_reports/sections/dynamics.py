"""Training dynamics: what the runs recorded at every step, averaged over seeds and over blocks of steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capacity.runs.study import Run
from capacity.spec.result import Step
from capacity_reports.blocks import Block, Cell, Column, Figure, Section, Table, Text, slug
from capacity_reports.figures import legend, line_styles, numbers
from capacity_reports.sources import ordered
from capacity_reports.views import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLOCKS, SIZES = 20, 3


@dataclass(frozen=True)
class Recorded:
    """One quantity that steps record; with `per_group` it is divided by the number of groups of the step."""

    key: str
    title: str
    axis: str
    per_group: bool = False


RECORDED = (
    Recorded("reward", "Reward", "mean reward"),
    Recorded("mean_length", "Length", "tokens a completion"),
    Recorded("kl_to_base_bits", "KL to the base", "bits a token"),
    Recorded("kl_to_sampler_bits", "KL to the sampler", "bits a token"),
    Recorded("entropy_bits", "Entropy", "bits a token"),
    Recorded("dead_groups", "Dead groups", "share of groups", per_group=True),
)


def dynamics_section(analysis: Analysis) -> Section:
    """The section of training dynamics: six quantities, each method at its smallest, middle and largest size."""
    source, blocks = analysis.source, []
    if not source.trained:
        why = "a points table holds no training steps" if source.study is None else "no trained run is complete"
        return Section("dynamics", "Training dynamics", (), why)
    found: list[Block] = []
    for model in dict.fromkeys(run.spec.model for run in source.trained):
        arms = _arms([run for run in source.trained if run.spec.model == model])
        for recorded in RECORDED:
            figure = _figure(recorded, model, arms)
            if figure is None:
                blocks.append(f"{model}: {recorded.title} was not recorded.")
            else:
                found.append(figure)
    intro = (
        f"Means over seeds and over at most {BLOCKS} blocks of steps, before the update of each step; of "
        "every method the smallest, "
        "the middle and the largest size. KL to the sampler compares trainer and rollouts, KL to the base "
        "compares adapted "
        "model and untrained model. Dead groups have equal rewards and give no gradient."
    )
    missing = [Text(tuple(blocks), bullets=True)] if blocks else []
    if not found:
        return Section("dynamics", "Training dynamics", (), "the runs recorded none of these quantities")
    return Section("dynamics", "Training dynamics", (Text((intro,)), *found, *missing))


Arm = tuple[str, int, int, list[Run]]  # method, trained parameters, place among the sizes shown, runs


def _arms(runs: Sequence[Run]) -> list[Arm]:
    """The arms to show: every method at up to three sizes, and of several settings of one size the first."""
    arms: list[Arm] = []
    for method in ordered([run.spec.method for run in runs]):
        own = [run for run in runs if run.spec.method == method]
        sizes = sorted({int(run.result.trained_parameters) for run in own})
        shown = [sizes[i] for i in dict.fromkeys((len(sizes) - 1, len(sizes) // 2, 0))][:SIZES]
        for place, size in enumerate(shown):
            some = [run for run in own if int(run.result.trained_parameters) == size]
            first = _setting(some[0])
            arms.append((method, size, place, [run for run in some if _setting(run) == first]))
    return arms


def _setting(run: Run) -> str:
    spec = run.spec
    return f"{spec.task.label} {spec.storage_dtype} {spec.training.model_dump_json() if spec.training else ''}"


def _figure(recorded: Recorded, model: str, arms: Sequence[Arm]) -> Figure | None:
    lines = {}
    for method, size, place, runs in arms:
        values = _over_seeds([_values(recorded, run, run.steps) for run in runs])
        if values:
            lines[method, size, place] = values
    if not lines:
        return None
    steps = max(len(values) for values in lines.values())
    width = -(-steps // BLOCKS)
    blocks = {key: _blocks(values, width) for key, values in lines.items()}
    ends = list(range(width, steps + width, width))
    keys = list(blocks)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (min(end, steps), *(blocks[key][i] if i < len(blocks[key]) else None for key in keys))
        for i, end in enumerate(ends)
    )
    columns = (
        Column("step", "up to step", "count"),
        *(Column(slug(m, str(s)), f"{m} {s:,}", "number") for m, s, _ in keys),
    )

    def draw(axes: "Axes") -> None:
        styles = line_styles([f"{m} {s:,}" for m, s, _ in keys])
        for m, s, place in keys:
            colour, marker, style = styles[f"{m} {s:,}"]
            drawn = [
                (row_end, v)
                for row_end, v in zip((r[0] for r in rows), blocks[m, s, place], strict=False)
                if v is not None
            ]
            axes.plot(
                numbers(x for x, _ in drawn),
                numbers(y for _, y in drawn),
                color=colour,
                ls=style,
                lw=1.4 - 0.3 * place,
                marker=marker,
                ms=2.5,
                label=f"{m} {s:,}",
            )
        axes.set_xlabel("step")
        axes.set_ylabel(recorded.axis)
        legend(axes, 3)

    words = "; ".join(
        f"{m} {s:,} from {_first(blocks[m, s, p]):.3g} to {_first(blocks[m, s, p][::-1]):.3g}" for m, s, p in keys
    )
    name = slug(recorded.key.replace("_", "-"), model)
    over = f"blocks of {width} steps" if width > 1 else "single steps"
    drawn = [(f"{m} {s:,}", len(runs)) for m, s, _, runs in arms if (m, s) in {k[:2] for k in keys}]
    counts = {count for _, count in drawn}
    seeds = "; ".join(f"{name}: {_seeds(count)}" for name, count in drawn)
    if len(counts) == 1:
        seeds = f"{_seeds(counts.pop())} each"
    return Figure(
        name,
        f"{recorded.title}, {model}",
        f"{over.capitalize()}. {seeds}.",
        f"{recorded.title} during training on {model}: {words}.",
        Table(name, f"{recorded.title}, {recorded.axis}", columns, rows),
        draw,
    )


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count > 1 else ''}"


def _values(recorded: Recorded, run: Run, rows: Sequence[Step]) -> list[float | None]:
    """The values of a quantity, one a step; None where a step did not record it."""
    training = run.spec.training
    assert training is not None
    found: list[float | None] = []
    for row in rows:
        value = getattr(row, recorded.key)
        groups = len(row.group_hits or ()) or training.prompts_per_step
        found.append(None if value is None else float(value) / groups if recorded.per_group else float(value))
    return found


def _over_seeds(runs: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The mean over the seeds that recorded a step, step by step; empty if none recorded any."""
    steps = max((len(run) for run in runs), default=0)
    means: list[float | None] = []
    for step in range(steps):
        known = [v for run in runs if step < len(run) and (v := run[step]) is not None]
        means.append(sum(known) / len(known) if known else None)
    return means if any(m is not None for m in means) else []


def _blocks(values: Sequence[float | None], width: int) -> list[float | None]:
    found: list[float | None] = []
    for start in range(0, len(values), width):
        known = [v for v in values[start : start + width] if v is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


def _first(values: Sequence[float | None]) -> float:
    return next(v for v in values if v is not None)
