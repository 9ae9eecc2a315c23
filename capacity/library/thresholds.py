"""The smallest updates that reach a target, and how many times more one method needs than another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from capacity.errors import SpecError
from capacity.library.answers.thresholds import threshold_answer
from capacity.library.points import points_of, study_of
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.runs.study import Study
from capacity_analysis.checklist import Answer, checklist
from capacity_analysis.data.select import Selection
from capacity_analysis.data.where import where as chosen_by
from capacity_analysis.scaling.curves import ScalingResult, scaling_report
from capacity_analysis.scaling.curves import to_json as scaling_json
from capacity_analysis.thresholds.answers import ThresholdStudy, facts, study_thresholds, thresholds_on_models
from capacity_analysis.thresholds.question import Question
from capacity_reports.blocks import Block, Text
from capacity_reports.sections.scaling import scaling_blocks
from capacity_reports.sections.summary import checklist_table, not_supported, ratio_sentences
from capacity_reports.sections.thresholds import null_blocks, threshold_blocks

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Thresholds(Shown):
    """Thresholds of every model and curve, and the ratios of every pair.

    Attributes:
        study: thresholds, ratios, null calibration, and what the data do not say.
        checklist: what a study must have done for its ratios to be believed.
        scaling: thresholds against model size; None if that was not asked.
    """

    study: ThresholdStudy
    checklist: tuple[Answer, ...]
    scaling: tuple[ScalingResult, ...] | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; null is unbounded, or an estimate that is censored."""
        found = self.study.to_json() | {"checklist": [asdict(answer) for answer in self.checklist]}
        return found if self.scaling is None else found | {"scaling": scaling_json(self.scaling)}

    @property
    def line(self) -> str:
        """The headline of each pair, or what was looked for."""
        said = "; ".join(self.study.sentences())
        return said or f"{self.study.source}: {len(self.study.thresholds)} thresholds, no pair to compare"

    @property
    def answer(self) -> Sequence[Block]:
        """The first pair of each model, how many pairs are decided, the thresholds, and scaling if it was asked for."""
        return (*threshold_answer(self.study), *(scaling_blocks(self.study, self.scaling) if self.scaling else ()))

    @property
    def blocks(self) -> Sequence[Block]:
        """What methods need, thresholds and ratios, null calibration, scaling, what is not supported, the checklist."""
        said = ratio_sentences(self.study)
        return [
            *([Text(said, strong=True)] if said else []),
            *threshold_blocks(self.study),
            *null_blocks(self.study),
            *(scaling_blocks(self.study, self.scaling) if self.scaling else []),
            *not_supported(self.study.unsupported),
            checklist_table(self.checklist),
        ]


def thresholds(
    points: "str | Path | Study | pd.DataFrame",
    *,
    target: float | None = None,
    gain: float | None = None,
    ceiling: float | None = None,
    lower: float | None = None,
    upper: float | None = None,
    items: str = "these",
    replicates: int = 1000,
    unit: str = "parameters",
    where: Sequence[str] = (),
    split: str | None = None,
    rates: Mapping[str, float] | None = None,
    seed: int = 0,
    null: int = 400,
    scaling: bool = False,
    allow_mixed: bool = False,
    progress: Progress = silent,
) -> Thresholds:
    """Finds the smallest update that reaches a target, for each model and method.

    Args:
        points: study folder, points table (a file or a DataFrame), `reference:NAME`, or results of other programs.
        target, gain, ceiling, lower, upper, items, replicates: as of `question_of`.
        unit: "parameters" or "bytes".
        where: conditions on rows, each `field=value`.
        split: rows of this split; test if None.
        rates: learning rates by method, under "" for all; the best on validation if None.
        seed: of all random choices here.
        null: simulated studies of the null calibration of each pair; 0 for none.
        scaling: also thresholds against model size.
        allow_mixed: runs that different environments made are taken together.
        progress: hears how many null calibrations are done.

    Raises:
        SpecError: a choice out of range, or rows that cannot be compared; the message says how to choose.
        CapacityError: nothing can be estimated, or a source that cannot be read.
    """
    measured = unit_of(unit)
    question = question_of(target, gain, ceiling, lower, upper, items, replicates)
    table = chosen_by(points_of(points, allow_mixed=allow_mixed), where)
    selection = Selection(split, rates, measured)
    with progress("thresholds") as count:
        study = study_thresholds(table, selection, question, seed=seed, null=null, on_pair=count.on_count)
    answers = checklist(table, study_of(points), facts(study))
    return Thresholds(study, answers, scaling_report(thresholds_on_models(study)) if scaling else None)


def unit_of(unit: str) -> Literal["parameters", "bytes"]:
    """What sizes are measured in.

    Raises:
        SpecError: neither parameters nor bytes.
    """
    if unit not in ("parameters", "bytes"):
        raise SpecError(f"--unit {unit!r}: choose parameters or bytes")
    return "bytes" if unit == "bytes" else "parameters"


def question_of(
    target: float | None = None,
    gain: float | None = None,
    ceiling: float | None = None,
    lower: float | None = None,
    upper: float | None = None,
    items: str = "these",
    replicates: int = 1000,
) -> Question:
    """What is asked of the curves.

    Args:
        target: accuracy to reach; None: by `gain`.
        gain: share of the gain from the base up to the ceiling; 0.8 if None.
        ceiling: its accuracy; measured if None.
        lower, upper: fixed limits of the Hill curves; fitted if None.
        items: intervals for fresh seeds on "these" items, or on a "population" of them.
        replicates: resampled data sets.

    Raises:
        SpecError: both a target and a gain, or a value out of range.
    """
    if target is not None and (gain is not None or ceiling is not None):
        raise SpecError("give --target, or --gain (with --ceiling), not both")
    if items not in ("these", "population"):
        raise SpecError(f"--items {items!r}: choose these or population")
    return Question(
        target, 0.8 if gain is None else gain, ceiling, lower, upper,
        "population" if items == "population" else "these", replicates,
    )  # fmt: skip
