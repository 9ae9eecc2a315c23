"""Studies as a page that people read, or as figures and tables for a paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capacity.library.progress import Progress, silent
from capacity.library.thresholds import question_of
from capacity.runs.study import Study
from capacity_analysis.data.absent import Absent
from capacity_reports.document import Report
from capacity_reports.report import build_report, destination, try_report, write_files
from capacity_reports.views import Options


def report(
    *sources: str | Path | Study,
    out: str | Path | None = None,
    formats: Sequence[str] = (),
    reference: str | None = None,
    target: float | None = None,
    gain: float | None = None,
    items: str = "these",
    null: int = 100,
    seed: int = 0,
    where: Sequence[str] = (),
    allow_mixed: bool = False,
    progress: Progress = silent,
) -> Report:
    """Reports on studies; a notebook shows what is returned as a page.

    Args:
        sources: study folders, points tables (CSV, Parquet) or `reference:NAME`; each is compared with the first.
        out: file to write; other formats are written beside it. Nothing is written if neither this nor `formats` is
            given.
        formats: html, md, pdf, png, svg, csv or json; that of `out` if empty.
        reference: "tinylora" shows the published figures beside ours.
        target, gain, items: of the thresholds, as of `capacity.thresholds`.
        null: simulated studies of the null calibration of each pair; 0 for none.
        seed: of all random choices here.
        where: conditions on rows, each `field=value`.
        allow_mixed: runs that different environments made are taken together.
        progress: hears how many parts of the analysis are done.

    Raises:
        SpecError: no source, or an unknown reference or format.
        DataError: a source that cannot be read, or a file that cannot be written.
    """
    named = [source.folder if isinstance(source, Study) else source for source in sources]
    options = Options(question_of(target, gain, items=items), seed, null)
    written = None
    if out is not None or formats:
        written = destination(named, None if out is None else Path(out), formats)
    with progress("report") as count:
        found = build_report(
            named, where=where, reference=reference, options=options, allow_mixed=allow_mixed, heard=count.on_module
        )
    if written is not None:
        write_files(found, *written)
    return found


@dataclass(frozen=True)
class Page:
    """The page that a study ends with.

    Attributes:
        path: its file; None if there is none.
        error: why it could not be written; None if it was, or if it was not wanted.
    """

    path: Path | None = None
    error: str | None = None

    @property
    def line(self) -> str | None:
        """Where the page is, or why there is none; None if none was wanted."""
        if self.error is not None:
            return f"The report was not written: {self.error}"
        return None if self.path is None else f"Report: {self.path}"

    def to_json(self) -> dict[str, str | None]:
        """Plain JSON types."""
        return {"report": None if self.path is None else str(self.path), "report_error": self.error}


def page_of(folder: Path, *, allow_mixed: bool = False, progress: Progress = silent) -> Page:
    """Writes the page of a finished study, which does not fail by its report."""
    with progress("report") as count:
        written = try_report(folder, allow_mixed=allow_mixed, heard=count.on_module)
    return Page(error=written.reason) if isinstance(written, Absent) else Page(written)
