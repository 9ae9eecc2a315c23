"""Description lengths of a study's runs, side by side."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from capacity.errors import SpecError
from capacity.library.answers.lengths import lengths_answer
from capacity.library.shown import Shown
from capacity.runs import study as folders
from capacity.runs.mixed import refuse_mixed
from capacity.spec.run import RunSpec
from capacity_analysis.data.absent import Absent
from capacity_analysis.data.where import runs_where
from capacity_analysis.lengths import descriptions, looked_up
from capacity_analysis.lengths.quantities import Value
from capacity_reports.blocks import Block
from capacity_reports.sections.lengths import section_of


@dataclass(frozen=True, repr=False)
class Described(Shown):
    """Description lengths in bits: demonstrations, rewards and updates.

    Attributes:
        study: its folder.
        found: the quantities of every cell, and warnings.
    """

    study: Path
    found: descriptions.Description

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        cells = [_cell_json(one) for one in self.found.cells]
        return {"study": str(self.study), "arms": cells, "warnings": list(self.found.warnings)}

    @property
    def line(self) -> str:
        """The study, and how many cells it has."""
        return f"{self.study}, description lengths of {len(self.found.cells)} cells"

    @property
    def answer(self) -> Sequence[Block]:
        """A line a cell, and their lengths side by side."""
        return lengths_answer(self.found)

    @property
    def blocks(self) -> Sequence[Block]:
        """A table and a figure of each size, and why some quantities are not measured."""
        return section_of(self.found).blocks


def describe(
    study: str | Path | folders.Study,
    *,
    epsilon: float | None = None,
    configurations: int | None = None,
    where: Sequence[str] = (),
    allow_mixed: bool = False,
) -> Described:
    """Measures what a study's demonstrations, rewards and updates cost to describe.

    Args:
        study: study folder.
        epsilon: loss of the surplus description length, bits a token; the final held-out loss of each run if None.
        configurations: among how many each run was chosen; the trials of the shipped rate if None.
        where: conditions on runs, each `field=value`.
        allow_mixed: runs that different environments made are taken together.

    Raises:
        SpecError: epsilon is below 0, or conditions that no run meets.
        DataError: no such study, or runs that are corrupt or of different environments.
    """
    if epsilon is not None and not 0 <= epsilon < float("inf"):
        raise SpecError(f"--epsilon {epsilon}: give bits a token, 0 or above")
    opened = study if isinstance(study, folders.Study) else folders.Study(Path(study))
    runs = runs_where(opened.folder, opened.runs(), where)
    refuse_mixed(runs, opened.folder, allow_mixed=allow_mixed)

    def tried(spec: RunSpec, trained_parameters: int) -> int | Absent:
        return looked_up.configurations(spec, trained_parameters) if configurations is None else configurations

    return Described(opened.folder, descriptions.describe(runs, configurations=tried, epsilon=epsilon))


def _cell_json(one: descriptions.CellLengths) -> dict[str, Any]:
    return {
        "cell": one.cell.identity,
        "differs": one.differs,
        "model": one.model,
        "method": one.method,
        "demonstrations": one.demonstrations,
        "adapter": one.adapter,
        "trained_parameters": one.trained_parameters,
        "storage_dtype": one.storage_dtype,
        "learning_rate": one.learning_rate,
        "seeds": list(one.seeds),
        "quantities": {key: _value_json(value) for key, value in one.values.items()},
    }


def _value_json(value: Value) -> dict[str, Any]:
    return {"not_measured": value.reason} if isinstance(value, Absent) else asdict(value)
