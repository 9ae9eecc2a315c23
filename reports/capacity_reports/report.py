"""The entry points of this package: from study folders to a report, and from a report to files.

from capacity_reports.report import build_report, write_report

report = build_report(["capacity-studies/abacus-sizes"])
report.table("thresholds").records()
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from capacity.errors import CapacityError, DataError, SpecError, unknown
from capacity.runs.csv_cells import as_cell
from capacity.runs.files import refuse_foreign, write_atomically
from capacity.runs.study_folder import is_study
from capacity.version import __version__
from capacity_analysis.data.absent import Absent
from capacity_analysis.evaluations.points import holds_results
from capacity_reports.blocks import Block, Cell, Figure, Section, Table, uniquely_named
from capacity_reports.document import Report
from capacity_reports.explorer.data import explored
from capacity_reports.front import Front, front, front_of_differences, in_interest
from capacity_reports.main_contrast import MainContrast, main_contrast
from capacity_reports.sections.accuracy_chart import parameter_charts
from capacity_reports.sources import Lookups, chosen, read_source
from capacity_reports.views import Analysis, Heard, Options, analyse, unheard

FORMATS = ("html", "md", "pdf", "png", "svg", "csv", "json")
_FOLDERS = ("png", "svg", "csv")
# By these, files are known that may be written over.
_HTML_SIGN, _SIGN, _SIGN_FILE = (
    '<meta name="generator" content="capacity',
    "made by capacity report",
    ".capacity-report",
)
REFERENCES = ("tinylora",)


def build_report(
    sources: Sequence[str | Path],
    *,
    where: Sequence[str] = (),
    reference: str | None = None,
    options: Options | None = None,
    lookups: Lookups | None = None,
    allow_mixed: bool = False,
    heard: Heard = unheard,
) -> Report:
    """Reads studies and reports on them.

    Args:
        sources: study folders, points tables (CSV, Parquet) or `reference:NAME`; each is compared with the first.
        where: conditions `field=value` that all runs meet, see `capacity_analysis.data.where`.
        reference: "tinylora" shows the published figures beside ours.
        options: what is asked, and how much is computed.
        lookups: where to ask for what studies do not hold: prompts, sizes of train splits, numbers of rates tried.
        allow_mixed: runs that different environments made are taken together.
        heard: hears of every part of the analysis that is done, source by source.

    Raises:
        SpecError: there is no source, or the reference is not known.
        DataError: a source cannot be read. What only makes a part impossible is said in that part.
    """
    if not sources:
        raise SpecError("nothing to report on: name a study folder or a points table")
    if reference is not None and reference not in REFERENCES:
        raise unknown("reference", reference, REFERENCES)
    read = [chosen(read_source(str(source), allow_mixed=allow_mixed), where) for source in sources]
    analyses = [analyse(source, options or Options(), heard) for source in read]
    names = [a.source.name for a in analyses]
    if len(set(names)) < len(names):  # two folders of one study file: told apart by where they are
        analyses = [replace(a, source=replace(a.source, name=a.source.path)) for a in analyses]
    known = lookups or Lookups()
    data: Mapping[str, Any] | None = None
    if len(analyses) == 1:
        opening, data, sections, verdicts = _one(analyses[0], known, published=reference is not None)
    else:
        sections, verdicts = _several(analyses, known, published=reference is not None)
        opening = front_of_differences([a.source.name for a in analyses], sections[0])
    if reference is not None:
        from capacity_reports.sections.published import published_section

        place = next((i for i, s in enumerate(sections) if s.name.endswith("protocol")), len(sections))
        sections.insert(place, published_section())
    return Report(
        " against ".join(a.source.name for a in analyses),
        analyses[0].source.question,
        verdicts,
        uniquely_named(sections),
        {
            " ".join(part for part in (a.source.name if len(analyses) > 1 else "", v.label) if part)
            or a.source.name: study.to_json()
            for a in analyses
            for v, study in a.thresholds
        },
        __version__,
        opening,
        data,
    )


def _one(
    analysis: Analysis, lookups: Lookups, *, published: bool
) -> tuple[Front, Mapping[str, Any], list[Section], tuple[str, ...]]:
    """The report of one source: the first screen, what is explored, the sections and the verdicts."""
    drawn, main = parameter_charts(analysis), main_contrast(analysis)
    sections, found = _sections(analysis, main, lookups, published=published)
    return front(analysis, drawn, main), explored(analysis, in_interest(drawn, main), lookups), sections, found


def _sections(
    analysis: Analysis, main: MainContrast, lookups: Lookups, *, published: bool
) -> tuple[list[Section], tuple[str, ...]]:
    from capacity_reports.sections.accuracy import accuracy_sections
    from capacity_reports.sections.bits import ablation_section, frontier_section
    from capacity_reports.sections.comparison import comparison_section
    from capacity_reports.sections.dynamics import dynamics_section
    from capacity_reports.sections.examples import examples_section
    from capacity_reports.sections.lengths import lengths_section
    from capacity_reports.sections.provenance import failures_section, protocol_section
    from capacity_reports.sections.rates import rates_section
    from capacity_reports.sections.scaling import scaling_section
    from capacity_reports.sections.summary import summary, verdicts
    from capacity_reports.sections.thresholds import null_section, threshold_section

    found = verdicts(analysis)
    sections = [
        summary(analysis, main, found),
        comparison_section(analysis),
        *accuracy_sections(analysis),
        threshold_section(analysis),
        scaling_section(analysis, published=published),
        frontier_section(analysis),
        ablation_section(analysis),
        dynamics_section(analysis),
        lengths_section(analysis, lookups),
        rates_section(analysis),
        null_section(analysis),
        examples_section(analysis, lookups),
        protocol_section(analysis),
        failures_section(analysis),
    ]
    return sections, found


def _several(
    analyses: Sequence[Analysis], lookups: Lookups, *, published: bool
) -> tuple[list[Section], tuple[str, ...]]:
    """The report of several sources: differences to the first, then the sections of each source under its name."""
    from capacity_reports.sections.paired import paired_section

    sections = [paired_section(analyses[0], other) for other in analyses[1:]]
    verdicts: list[str] = []
    for number, analysis in enumerate(analyses, start=1):
        own, found = _sections(analysis, main_contrast(analysis), lookups, published=published)
        name = analysis.source.name
        verdicts += [f"{name}: {line}" for line in found]
        prefix = chr(ord("a") + number - 1) if number <= 26 else f"s{number}"
        sections += [
            Section(f"{prefix}-{s.name}", f"{s.title}, {name}", tuple(_renamed(b, prefix) for b in s.blocks), s.absent)
            for s in own
        ]
    return sections, tuple(verdicts)


def _renamed(block: Block, prefix: str) -> Block:
    """The block under a name of its own, so that files and links of several sources stay apart."""
    if isinstance(block, Figure):
        return replace(
            block, name=f"{prefix}-{block.name}", data=replace(block.data, name=f"{prefix}-{block.data.name}")
        )
    if isinstance(block, Table):
        return replace(block, name=f"{prefix}-{block.name}")
    return block


def write_report(
    sources: Sequence[str | Path],
    out: Path | None = None,
    *,
    formats: Sequence[str] = (),
    reference: str | None = None,
    options: Options | None = None,
    lookups: Lookups | None = None,
    allow_mixed: bool = False,
    heard: Heard = unheard,
) -> Path:
    """Builds a report and writes it.

    Args:
        out: file of the report; other formats are written beside it. None: report.html in the study folder, or here.
        formats: names of `FORMATS`; if empty, the format of `out`.
        sources, reference, options, lookups, allow_mixed, heard: as `build_report` takes them.

    Returns:
        The file, or the folder of files, of the first format.

    Raises:
        SpecError: a format is not known.
        CapacityError: `build_report` raises it, a file cannot be written, or there is no browser for PDF.
    """
    path, chosen = destination(sources, out, formats)
    report = build_report(
        sources, reference=reference, options=options, lookups=lookups, allow_mixed=allow_mixed, heard=heard
    )
    return write_files(report, path, chosen)[0]


def destination(
    sources: Sequence[str | Path], out: Path | None, formats: Sequence[str]
) -> tuple[Path, tuple[str, ...]]:
    """Where a report goes and in which formats, checked before anything is computed.

    Raises:
        SpecError: a format is not known, or there is a folder where the file should be.
    """
    folder = Path(sources[0])
    alone = len(sources) == 1 and folder.is_dir() and not holds_results(folder)
    path = out or (folder if alone else Path()) / "report.html"
    ending = path.suffix.removeprefix(".")
    chosen = tuple(dict.fromkeys(formats)) or (ending or "html",)
    for name in chosen:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    if path.is_dir():
        raise SpecError(f"{path} is a folder: name the file of the report, such as {path / 'report.html'}")
    if "pdf" in chosen:
        from capacity_reports.render.browser import find_browser

        find_browser()
    return path, chosen


def write_files(report: Report, path: Path, formats: Sequence[str]) -> tuple[Path, ...]:
    """Writes every format: html, md, pdf and json as a file each, png, svg and csv as a folder of files.

    Raises:
        DataError: a file cannot be written, or is there and was not made by this program.
    """
    targets = {
        name: path.with_name(f"{path.stem}-{name}") if name in _FOLDERS else path.with_suffix(f".{name}")
        for name in formats
    }
    for name, target in targets.items():
        _refuse_foreign(target, name)
    found = []
    for name, target in targets.items():
        try:
            (target if name in _FOLDERS else target.parent).mkdir(parents=True, exist_ok=True)
            if name in _FOLDERS:
                (target / _SIGN_FILE).write_text(f"{_SIGN}\n", encoding="utf-8")
            _WRITERS[name](report, target)
        except OSError as error:
            raise DataError(f"{target}: cannot be written: {error.strerror}") from None
        found.append(target)
    return tuple(found)


def _refuse_foreign(target: Path, kind: str) -> None:
    """Refuses to write over files of somebody else. Most targets follow from the name of one that was asked for.

    Raises:
        DataError: the target is there, and is neither a report of this program nor in a study folder.
    """
    if kind in _FOLDERS:
        if target.is_dir() and any(target.iterdir()):
            sign = target / _SIGN_FILE
            if not sign.is_file():
                raise DataError(f"{target} exists and was not made by this program: choose another -o, or remove it")
            refuse_foreign(sign, _SIGN)
    elif not (target.parent.is_dir() and any(target.parent.iterdir()) and is_study(target.parent)):
        refuse_foreign(target, _HTML_SIGN if kind == "html" else _SIGN)


def csv_text(table: Table) -> str:
    """A table as CSV: raw values under the columns' keys, shares of 1, empty where there is no value.

    No text can be taken for a formula.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([as_cell(c.key) for c in table.columns])
    writer.writerows([_raw(v) for v in row] for row in table.rows)
    return buffer.getvalue()


def _raw(value: Cell) -> Cell:
    return "" if value is None else as_cell(value)


def _write_pdf(report: Report, target: Path) -> None:
    from capacity_reports.render.browser import pdf

    target.write_bytes(pdf(report.html()) + f"% {_SIGN}\n".encode())  # a comment after the end of the document


def _write_png(report: Report, target: Path) -> None:
    from capacity_reports.figures import png_file

    for figure in report.figures():
        (target / f"{figure.name}.png").write_bytes(png_file(figure))


def _write_svg(report: Report, target: Path) -> None:
    from capacity_reports.figures import svg_file

    for figure in report.figures():
        (target / f"{figure.name}.svg").write_text(svg_file(figure), encoding="utf-8")


def _write_csv(report: Report, target: Path) -> None:
    for table in report.tables():
        (target / f"{table.name}.csv").write_text(csv_text(table), encoding="utf-8")


_WRITERS = {
    "html": lambda report, target: write_atomically(target, report.html()),
    "md": lambda report, target: write_atomically(target, f"{report.markdown()}\n<!-- {_SIGN} -->\n"),
    "json": lambda report, target: write_atomically(
        target, json.dumps({**report.json(), "generator": _SIGN}, indent=1, allow_nan=False) + "\n"
    ),
    "pdf": _write_pdf,
    "png": _write_png,
    "svg": _write_svg,
    "csv": _write_csv,
}


def try_report(
    folder: Path,
    *,
    lookups: Lookups | None = None,
    allow_mixed: bool = False,
    heard: Heard = unheard,
) -> Path | Absent:
    """Writes the page of a finished study: its path, or in one line why there is none. Never raises."""
    try:
        return write_report([folder], lookups=lookups, allow_mixed=allow_mixed, heard=heard)
    except CapacityError as error:
        return Absent(str(error))
    except Exception as error:  # the study is done and must not fail by its report
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return Absent(f"{message}; to try again: capacity report {folder}")
