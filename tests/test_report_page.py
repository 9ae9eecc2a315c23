"""The page is one whole file that loads nothing, whatever the models wrote."""

import re
from html.parser import HTMLParser

import pytest
from report_studies import full_study
from typer.testing import CliRunner

from capacity_analysis.data.published import reference_points
from capacity_cli.app import app
from capacity_reports.blocks import Column, Example, Section, Table, Text, slug
from capacity_reports.document import Report
from capacity_reports.figures import DARK, METHODS, inline_svg
from capacity_reports.render.page import html, markdown
from capacity_reports.report import build_report
from capacity_reports.views import Options

HOSTILE = "</pre><script>alert(1)</script>&amp;``` ```` | \u202e *_"
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use"}


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    """The published curves of one task, beside themselves."""
    path = tmp_path_factory.mktemp("page") / "gsm8k.csv"
    frame = reference_points("tinylora-table2").frame
    frame[frame["task"] == "gsm8k"].to_csv(path, index=False)
    return build_report([path], reference="tinylora", options=Options(null=0, replicates=20))


@pytest.fixture(scope="module")
def page(report) -> str:
    return report.html()


class Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "id" in given:
            self.ids.append(given["id"] or "")
        if tag == "a":
            self.links.append(given.get("href") or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, _tag, attrs):
        if "id" in dict(attrs):
            self.ids.append(dict(attrs)["id"] or "")

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def test_page_is_well_formed_with_unique_ids_and_links_that_lead_somewhere(page):
    parser = Parser()
    parser.feed(page)
    assert parser.wrong == []
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert [link for link in parser.links if link.removeprefix("#") not in parser.ids] == []


def test_page_loads_nothing(page):
    assert re.findall(r"""(?:src|href)=["']?(?!#|data:)[^"'> ]+""", page) == []
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_what_models_write_stays_text():
    example = Example(HOSTILE, HOSTILE, ((HOSTILE, HOSTILE, False),))
    table = Table("t", HOSTILE, (Column("a", HOSTILE),), ((HOSTILE,),), HOSTILE)
    report = Report(HOSTILE, "", (), (Section("s", HOSTILE, (Text((HOSTILE,)), table, example), HOSTILE),), {}, "1")
    text = html(report)
    assert text.count("<script>") == 1
    assert "alert(1)" in text
    fenced = markdown(report)
    assert "`````text\n" + HOSTILE in fenced
    assert "<script>" not in fenced.replace(HOSTILE, "")


def test_colours_follow_the_screen(report):
    svg = inline_svg(report.figure("published-accuracy"))
    assert svg.startswith("<svg viewBox=")
    assert 'role="img" aria-label="Published accuracy' in svg
    assert not [ink for ink in DARK if ink in svg]
    assert "var(--ink-0072b2)" in svg
    assert {colour for colour, _, _ in METHODS.values()} < set(DARK)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_inks_stand_out_on_both_grounds():
    """WCAG 2.2: graphics need a contrast of 3 to 1, text 4.5."""
    for light, dark in DARK.items():
        for ink, ground in ((light, "#ffffff"), (dark, "#14161a")):
            high, low = sorted((_luminance(ink), _luminance(ground)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 3, ink


def test_command_writes_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)
    study = full_study(tmp_path / "s", methods=("grpo",), sizes=((13, 1), (28, 1)), seeds=2, items=40, tuned=False)
    done = CliRunner().invoke(app, ["report", str(study.folder), "--null", "0"])
    assert done.exit_code == 0, done.output
    path = study.folder / "report.html"
    front = build_report([study.folder], options=Options(null=0)).front
    assert done.stdout.splitlines() == [front.answer, f"Report: {path}"]
    assert path.read_text().startswith("<!doctype html>")
    out = tmp_path / "new" / "r.html"
    done = CliRunner().invoke(
        app, ["report", str(study.folder), "--null", "0", "-o", str(out), "--format", "json,csv", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert out.with_suffix(".json").exists()
    assert '"rates"' in done.stdout
    assert not out.exists()


def test_command_and_library_hear_of_every_part_of_the_analysis(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr("capacity_cli.progress._LINE_SECONDS", -1.0)
    sizes = ((1, 1), (13, 1), (28, 1))
    study = full_study(tmp_path / "s", methods=("sft", "grpo"), sizes=sizes, seeds=2, items=40, tuned=False)
    heard: list[tuple[int, int, str]] = []
    build_report([study.folder], options=Options(null=2, replicates=10), heard=lambda *part: heard.append(part))
    assert heard == [
        (0, 4, "null calibration 1 of 1"),
        (1, 4, "thresholds"),
        (2, 4, "sizes in parameters"),
        (3, 4, "sizes in bytes"),
        (4, 4, "comparisons"),
    ]
    done = CliRunner().invoke(app, ["report", str(study.folder), "--null", "0"])
    assert done.stderr.splitlines() == [f"report: {part} of 4" for part in range(1, 5)]


def test_slug_is_safe_in_files_and_links():
    assert slug("accuracy", "", "abacus-0.9m, a/b <c>") == "accuracy-abacus-0-9m-a-b-c"
