"""Report pages as Chromium shows them: quiet, complete, accessible, in both colour schemes, on phones and on desks."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from report_studies import empty, full_study, spec

axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")
playwright_module = pytest.importorskip("playwright.sync_api")

from capacity_reports.report import build_report, write_report  # noqa: E402
from capacity_reports.views import Options  # noqa: E402

SECTIONS = (
    "summary",
    "comparison",
    "accuracy",
    "accuracy-bits",
    "thresholds",
    "scaling",
    "frontier",
    "ablations",
    "dynamics",
    "description-lengths",
    "rates",
    "null-calibration",
    "examples",
    "published",
    "protocol",
    "failures",
)
QUICK = Options(null=20, replicates=100)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    with playwright_module.sync_playwright() as playwright:
        program = shutil.which("chromium")
        yield playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A full study of two models, one of failures only, and the published reference."""
    folder = tmp_path_factory.mktemp("pages")
    fsync, os.fsync = os.fsync, lambda _: None
    try:
        hostile = "<script>document.title='owned'</script>"
        full_study(folder / "full", models=("abacus-0.2m", "abacus-0.9m"), seeds=2, items=60, hostile=hostile)
        broken = empty(folder / "broken")
        broken.add_failure(spec("abacus-0.9m", "sft", 4, 1, 0, 60), "loss is not finite", "Traceback …")
    finally:
        os.fsync = fsync
    sources = {"full": str(folder / "full"), "broken": str(folder / "broken"), "published": "reference:tinylora-table2"}
    return {
        name: write_report([source], folder / f"{name}.html", reference="tinylora", options=QUICK)
        for name, source in sources.items()
    }


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["full", "broken", "published"])
def test_page_is_quiet_complete_and_accessible(browser, pages, name, scheme, width):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.locator("h1").inner_text().endswith("?")
    assert page.locator("h1").inner_text() in page.title().replace(" %", "\u00a0%")
    assert [s for s in SECTIONS if page.locator(f"section#{s}, li#{s}").count() != 1] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    violations = axe_module.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:160]) for v in violations] == []
    page.close()


def test_figures_take_the_colours_of_the_scheme(browser, pages):
    inks = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(pages["full"].as_uri())
        inks.append(page.evaluate("getComputedStyle(document.querySelector('.drawing svg text')).fill"))
        page.close()
    assert inks == ["rgb(27, 28, 30)", "rgb(233, 234, 236)"]


def test_tables_sort_by_keyboard(browser, pages):
    page = browser.new_page()
    page.goto(pages["full"].as_uri())
    page.locator("#accuracy details").first.locator("summary").press("Enter")
    table = page.locator("#accuracy details table").first
    place = table.locator("th").all_inner_texts().index("accuracy, %")
    button = table.locator("th button").nth(place)
    for direction, order in (("ascending", 1), ("descending", -1)):
        button.press("Enter")
        assert table.locator("th").nth(place).get_attribute("aria-sort") == direction
        values = [float(v) for v in table.locator(f"tbody td:nth-child({place + 1})").all_inner_texts()]
        assert values == sorted(values, reverse=order < 0)
        assert len(set(values)) > 5
    page.close()


def test_page_works_with_scripts_off(browser, pages):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["full"].as_uri())
    assert [s for s in SECTIONS if page.locator(f"section#{s}, li#{s}").count() != 1] == []
    assert page.locator("th button").count() == 0
    assert page.locator(".picture .static svg").is_visible()
    assert page.locator("#live, #runs, #completions").evaluate_all("all => all.every((e) => e.hidden)")
    page.locator("#accuracy summary").first.click()
    assert page.locator("#accuracy details table").first.is_visible()
    context.close()


def test_pdf_comes_from_the_same_page(pages):
    from capacity_reports.render.browser import pdf

    made = pdf(pages["published"].read_text())
    assert made.startswith(b"%PDF-")
    assert made.rstrip().endswith(b"%%EOF")


def test_notebook_frame_holds_the_page(browser):
    report = build_report(["reference:tinylora-table2"], options=QUICK)
    page = browser.new_page()
    page.set_content(report._repr_html_())
    frame = page.frame_locator("iframe")
    assert frame.locator("section#summary").count() == 1
    page.close()
