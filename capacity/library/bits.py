"""Which updates are the smallest at their accuracy, and how much one curve saves over another."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.errors import SpecError
from capacity.library.answers.bits import bits_answer, rates_answer
from capacity.library.points import points_of
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.runs.mixed import refuse_mixed
from capacity.runs.study import Study
from capacity.studies.device import check_libraries, device
from capacity_analysis.bits.cells import MeasuredCells, measured_cells
from capacity_analysis.bits.frontier import FrontierPoint, frontier
from capacity_analysis.bits.savings import AtSize, Saving, at_equal_size, mean_curves, savings
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.where import where as chosen_by
from capacity_analysis.statistics.estimate import difference_estimate
from capacity_analysis.statistics.quantisers import shannon_distortion
from capacity_analysis.thresholds.answers import ThresholdStudy, headline_ratios
from capacity_reports.blocks import Block, Text
from capacity_reports.sections.bits import bits_blocks
from capacity_reports.sections.summary import ratio_sentences

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Bits(Shown):
    """The frontier of accuracy over size, and sizes at equal accuracy.

    Attributes:
        source: what was read.
        found: the cells with their sizes and accuracies.
        places: each cell's place on the frontier.
        ratios: of thresholds, as `capacity threshold` gives them, or why there are none.
        saved: Bjøntegaard's size ratio of every two curves.
        equal: accuracies at equal size.
        rates: rate and distortion of updates that were stored anew, if they were.
        remarks: what to know, a sentence each.
        items, replicates, seed: what the intervals are for, and of the bootstrap.
    """

    source: str
    found: MeasuredCells
    places: tuple[FrontierPoint, ...]
    ratios: ThresholdStudy | Absent
    saved: tuple[Saving, ...]
    equal: tuple[AtSize, ...]
    rates: tuple[dict[str, Any], ...]
    remarks: tuple[str, ...]
    items: str
    replicates: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; null is what cannot be estimated."""
        return {
            "source": self.source,
            "unit": self.found.unit,
            "method": self.found.method,
            "dispersion": self.found.dispersion,
            "items": self.items,
            "replicates": self.replicates,
            "seed": self.seed,
            "ratios": [] if isinstance(self.ratios, Absent) else self.ratios.to_json()["ratios"],
            "savings": [asdict(s) | {"differ": list(s.differ)} for one in self.saved for s in (one, one.inverse)],
            "frontier": [_place_json(p, self.found.unit) for p in self.places],
            "equal_size": [_equal_json(a) for a in self.equal],
            "rate_distortion": list(self.rates),
            "remarks": list(self.remarks),
        }

    @property
    def line(self) -> str:
        """How many configurations there are, and how many on the frontier."""
        on = sum(place.on_frontier for place in self.places)
        return f"{self.source}: {len(self.places)} configurations, {on} of them on the frontier over {self.found.unit}"

    @property
    def answer(self) -> Sequence[Block]:
        """The first pair of each model and the frontier; of updates that were stored anew, what that costs."""
        return rates_answer(self.rates) if self.rates else bits_answer(self.places, self.saved, self.found.unit)

    @property
    def blocks(self) -> Sequence[Block]:
        """What methods need at one target, the cells with their places, and what curves save over one another."""
        if isinstance(self.ratios, Absent):
            said: tuple[str, ...] = (f"Ratios of thresholds: not available, {self.ratios.reason}.",)
        else:
            said = ratio_sentences(self.ratios)
        return [
            *([Text(said, strong=True)] if said else []),
            *bits_blocks(self.found, self.places, self.saved, self.equal, self.rates),
            *([Text(self.remarks)] if self.remarks else []),
        ]


def bits(
    points: "str | Path | Study | pd.DataFrame",
    *,
    by: Sequence[str] | None = None,
    unit: str | None = None,
    where: Sequence[str] = (),
    items: str = "these",
    replicates: int = 2000,
    seed: int = 0,
    allow_mixed: bool = False,
    progress: Progress = silent,
) -> Bits:
    """Finds the smallest updates at their accuracy, and what one curve saves over another at equal accuracy.

    Args:
        points: study folder, points table (a file or a DataFrame), `reference:NAME`, or results of other programs.
        by: fields that tell curves apart; the method, and whatever differs beside the size, if None.
        unit: "bytes" or "parameters"; bytes, where they are known, if None.
        where: conditions on rows, each `field=value`.
        items: intervals for fresh seeds on "these" items, or on a "population" of them.
        replicates, seed: of the bootstrap.
        allow_mixed: runs that different environments made are taken together.
        progress: hears how many of the four analyses are done.

    Raises:
        SpecError: a choice out of range.
        DataError: a source that cannot be read.
    """
    if unit is not None and unit not in ("bytes", "parameters"):
        raise SpecError(f"--unit {unit!r}: choose bytes or parameters")
    if items not in ("these", "population"):
        raise SpecError(f"--items {items!r}: choose these or population")
    table = chosen_by(points_of(points, allow_mixed=allow_mixed), where)
    found = measured_cells(table, unit)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    with progress("analyses") as count:
        places = frontier(found, replicates, rng, items)  # type: ignore[arg-type]
        count.on_count(1, 4)
        curves = mean_curves(found, by)
        saved = savings(found, curves, replicates, rng, items)  # type: ignore[arg-type]
        count.on_count(2, 4)
        equal = at_equal_size(found, curves, replicates, rng, items)  # type: ignore[arg-type]
        count.on_count(3, 4)
        ratios = headline_ratios(table, items)  # type: ignore[arg-type]
        count.on_count(4, 4)
    return Bits(
        table.source, found, tuple(places), ratios, tuple(saved), tuple(equal), (), tuple(table.lacking), items,
        replicates, seed,
    )  # fmt: skip


@dataclass(frozen=True)
class StoredAnew:
    """The updates of a study in every storage dtype.

    Attributes:
        points: file of their points table.
        rates: rate and distortion of each configuration and dtype.
        remarks: what to know, a sentence each.
    """

    points: Path
    rates: tuple[dict[str, Any], ...]
    remarks: tuple[str, ...]


def store_anew(study: Path, *, allow_mixed: bool = False, progress: Progress = silent) -> StoredAnew:
    """Stores the trained updates of a study in every dtype and evaluates them.

    Raises:
        DataError: runs are corrupt, or of different environments.
        CapacityError: the libraries of training are absent.
    """
    refuse_mixed(Study(study).runs(), study, allow_mixed=allow_mixed)
    check_libraries()
    from capacity.studies.quiet import quiet

    quiet()
    from capacity.studies.requantise import requantise

    with progress("updates") as count:
        done = requantise(Study(study), device(), on_update=count.on_count)
    remarks = [f"{label} does not fit {dtype}: {reason}" for label, dtype, reason in done.unfit]
    rows = tuple(_rate_distortion(row) for row in done.summary())
    rounded = sorted({str(row["trained_as"]) for row in rows} - {"fp32"})
    if rounded:
        remarks.append(f"Updates were rounded to {', '.join(rounded)} when trained: no dtype gives more back.")
    return StoredAnew(done.points, rows, tuple(remarks))


def _rate_distortion(row: dict[str, Any]) -> dict[str, Any]:
    """Adds the paired change of accuracy, and Shannon's limit for Gaussian numbers at as many bits a parameter."""
    stored, trained = np.array(row.pop("outcomes")), np.array(row.pop("as_trained"))
    change = difference_estimate(stored, trained)
    ends = {"change": change.value, "change_low": change.low, "change_high": change.high, "interval": change.label}
    return {**row, **ends, "gaussian_limit": float(shannon_distortion(row["bits_per_parameter"]))}


def _place_json(place: FrontierPoint, unit: str) -> dict[str, Any]:
    rest = {"size": place.size, "on_frontier": place.on_frontier, "membership": place.membership, "unit": unit}
    return {**place.known, "cell": place.cell, **place.estimate.to_json("accuracy"), **rest}


def _equal_json(found: AtSize) -> dict[str, Any]:
    where = {"model": found.model, "curve": found.curve, "size": found.size, "tested": found.tested}
    return {**where, **found.estimate.to_json("accuracy")}
