"""Where the points of an analysis come from: a table, a study folder, published figures, or a DataFrame."""

from pathlib import Path
from typing import TYPE_CHECKING

from capacity.runs import study
from capacity_analysis.data.read import read_points
from capacity_analysis.data.table import Points, from_frame
from capacity_analysis.evaluations.points import holds_results

if TYPE_CHECKING:
    import pandas as pd


def points_of(source: "str | Path | study.Study | pd.DataFrame", *, allow_mixed: bool = False) -> Points:
    """The points of a source.

    Args:
        source: as of `read_points`, or an opened study, or a points table as a DataFrame.
        allow_mixed: runs of a study that different environments made are taken together.

    Raises:
        SpecError: not a points table.
        DataError: no such file or folder, an empty one, or runs that are corrupt or of different environments.
    """
    if isinstance(source, study.Study):
        source = source.folder
    if isinstance(source, str | Path):
        return read_points(str(source), allow_mixed=allow_mixed)
    return from_frame(source, "points")


def study_of(source: "str | Path | study.Study | pd.DataFrame") -> study.Study | None:
    """The study of a source, if it is one."""
    if isinstance(source, study.Study):
        return source
    if not isinstance(source, str | Path) or not Path(source).is_dir() or holds_results(Path(source)):
        return None
    return study.Study(Path(source))
