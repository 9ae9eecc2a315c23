"""`capacity report`: a study as one page that people read, or as figures and tables for a paper."""

import json
from collections.abc import Sequence
from pathlib import Path

from capacity_analysis.data.absent import Absent
from capacity_reports.report import build_report, destination, try_report, write_files
from capacity_reports.views import Options


def report_command(
    sources: Sequence[str],
    out: Path | None,
    formats: str | None,
    reference: str | None,
    options: Options,
    where: Sequence[str],
    *,
    allow_mixed: bool,
    as_json: bool,
) -> None:
    """Everything between the options and the printed result."""
    chosen = [name.strip() for name in (formats or "").split(",") if name.strip()]
    path, kinds = destination(sources, out, chosen)
    report = build_report(sources, where=where, reference=reference, options=options, allow_mixed=allow_mixed)
    written = write_files(report, path, kinds)
    if as_json:
        result = {
            "written": [str(p) for p in written],
            "title": report.title,
            "verdicts": list(report.verdicts),
            "absent": {s.name: s.absent for s in report.sections if s.absent is not None},
        }
        print(json.dumps(result, indent=1))
        return
    for line in report.verdicts:
        print(line)
    for target in written:
        print(f"Report: {target}")


def study_report(folder: Path, *, allow_mixed: bool = False) -> Path | Absent:
    """What `compare` and `sweep` end with: the page of the study, or why there is none. Never raises."""
    return try_report(folder, allow_mixed=allow_mixed)


def report_line(written: Path | Absent) -> str:
    """Where the page is, in words."""
    return f"The report was not written: {written.reason}" if isinstance(written, Absent) else f"Report: {written}"


def report_json(written: Path | Absent | None) -> dict[str, str | None]:
    """Where the page is: `report` is null if none was written, `report_error` says why; None: none was wanted."""
    error = written.reason if isinstance(written, Absent) else None
    return {"report": str(written) if isinstance(written, Path) else None, "report_error": error}
