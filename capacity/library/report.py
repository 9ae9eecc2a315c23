"""Studies as a page that people read, or as figures and tables for a paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capacity_analysis.data.absent import Absent
from capacity_analysis.thresholds.question import Question
from capacity_reports.blocks import Report
from capacity_reports.report import build_report, destination, try_report, write_files
from capacity_reports.views import Options


def report(
    *sources: str | Path,
    out: str | Path | None = None,
    formats: Sequence[str] = (),
    reference: str | None = None,
    question: Question | None = None,
    null: int = 100,
    seed: int = 0,
    allow_mixed: bool = False,
) -> Report:
    """Reports on studies; a notebook shows what is returned as a page.

    Args:
        sources: study folders, points tables (CSV, Parquet) or `reference:NAME`; each is compared with the first.
        out: file to write; other formats are written beside it. Nothing is written if neither this nor `formats` is
            given.
        formats: html, md, pdf, png, svg, csv or json; that of `out` if empty.
        reference: "tinylora" shows the published figures beside ours.
        question: target and intervals of the thresholds, as of `capacity.question`.
        null: simulated studies of the null calibration of each pair; 0 for none.
        seed: of everything random here.
        allow_mixed: runs that different environments made are taken together.

    Raises:
        SpecError: no source, or an unknown reference or format.
        DataError: a source that cannot be read, or a file that cannot be written.
    """
    options = Options(question or Question(), seed, null)
    path = None if out is None else Path(out)
    where = destination(sources, path, formats) if path is not None or formats else None
    found = build_report(sources, reference=reference, options=options, allow_mixed=allow_mixed)
    if where is not None:
        write_files(found, *where)
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


def page_of(folder: Path, *, allow_mixed: bool = False) -> Page:
    """Writes the page of a finished study, which does not fail by its report."""
    written = try_report(folder, allow_mixed=allow_mixed)
    return Page(error=written.reason) if isinstance(written, Absent) else Page(written)
