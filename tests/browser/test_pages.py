"""Report pages as Chromium shows them: quiet, complete, accessible, in both colour schemes, on phones and on desks."""

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from report_studies import empty, full_study, spec

axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")
playwright_module = pytest.importorskip("playwright.sync_api")

from capacity_reports.report import build_report, write_report  # noqa: E402
from capacity_reports.server import Server  # noqa: E402
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
    assert page.locator("h1").inner_text() in page.title()
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


@pytest.fixture
def page(browser, pages):
    found = browser.new_page(viewport={"width": 1440, "height": 900})
    found.goto(pages["full"].as_uri())
    yield found
    found.close()


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_first_screen_holds_question_answer_and_picture(browser, pages, width, height):
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(pages["full"].as_uri())
    for part in ("h1", ".answer", "#live canvas"):
        box = page.locator(part).first.bounding_box()
        assert 0 <= box["y"] < box["y"] + box["height"] <= height, part
    assert page.locator(".numbers > div").count() == 3
    assert page.locator("#live canvas").bounding_box()["width"] > 0.6 * min(width, 1248) - 40
    page.close()


def test_points_say_their_values_by_mouse_and_by_keyboard(page):
    chart = page.locator("#live .plot")
    chart.focus()
    page.keyboard.press("ArrowRight")
    said = page.locator("#live [role=status]").inner_text()
    rows = page.evaluate("DATA.charts[0].methods.flatMap((m) => m.points.map((p) => [m.name, p.x, p.y]))")
    method, _, accuracy = next(
        r for r in rows if said.startswith(f"{r[0]}: {r[1]:,} ") and f"{100 * r[2]:.1f} %" in said
    )
    assert page.locator("#live .tip").is_visible()
    tip = page.locator("#live .tip").inner_text()
    assert tip.startswith(method)
    assert f"accuracy {100 * accuracy:.1f} %" in tip
    page.keyboard.press("Escape")
    assert not page.locator("#live .tip").is_visible()


def test_methods_and_models_are_switched_and_the_choice_is_kept(page):
    chip = page.locator("#live .chip", has_text="sft")
    before = page.locator("#live .plot").get_attribute("aria-label")
    assert "sft" in before
    chip.press("Enter")
    assert chip.get_attribute("aria-pressed") == "false"
    assert "sft" not in page.locator("#live .plot").get_attribute("aria-label")
    names = page.evaluate("DATA.charts.map((c) => c.name)")
    page.locator("#live select").select_option("1")
    assert names[1] in page.locator("#live .plot").get_attribute("aria-label")
    page.reload()
    assert page.locator("#live .chip", has_text="sft").get_attribute("aria-pressed") == "false"
    assert names[1] in page.locator("#live .plot").get_attribute("aria-label")


def test_runs_are_filtered_sorted_and_drawn(page):
    rows = page.locator("#runs tbody tr")
    page.get_by_label("method", exact=True).select_option("grpo")
    page.get_by_label("seed", exact=True).select_option("1")
    said = page.locator("#runs [role=status]").inner_text()
    wanted = page.evaluate("""() => {
      const at = Object.fromEntries(DATA.runs.columns.map((c, i) => [c.key, i]));
      return DATA.runs.rows.filter((r) => r[at.method] === "grpo" && r[at.seed] === 1).length;
    }""")
    assert said.startswith(f"{wanted} of ")
    assert rows.count() == wanted
    heads = page.locator("#runs thead th").all_inner_texts()
    place = heads.index("accuracy, %")
    page.locator("#runs thead th").nth(place).locator("button").press("Enter")
    values = [float(v) for v in page.locator(f"#runs tbody td:nth-child({place + 1})").all_inner_texts()]
    assert values == sorted(values)
    before = page.locator("#runs .key li").count()
    page.locator("#runs tbody input:not(:checked)").first.check()
    assert page.locator("#runs .key li").count() == before + 1
    inks = page.locator("#runs .key circle").evaluate_all("all => all.map((c) => c.getAttribute('fill'))")
    assert len(set(inks)) == len(inks) == before + 1


def test_completions_are_searched_and_only_changed_ones_shown(page):
    items = page.locator("#completions .item")
    assert items.count() == 10
    assert items.first.locator("h4").first.inner_text() == "Prompt"
    page.get_by_label("only items whose grade changed").check()
    for item in items.all():
        grades = item.locator(".right, .wrong").all_inner_texts()
        assert set(grades) == {"correct", "wrong"}
    page.get_by_label("only items whose grade changed").uncheck()
    page.get_by_label("Search in prompts, answers and completions").fill("test-1")
    ids = items.locator("h3").all_inner_texts()
    assert ids
    assert all("test-1" in name or "test-1" in item.inner_text() for name, item in zip(ids, items.all(), strict=True))
    assert page.title() != "owned"


def test_a_served_page_loads_itself_again_and_keeps_the_readers_choice(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    made = full_study(
        tmp_path / "made", methods=("sft", "grpo"), sizes=((13, 1), (28, 1)), seeds=2, items=20, tuned=False
    )
    runs = sorted(made.runs_folder.iterdir())
    followed = empty(tmp_path / "followed").folder
    for run in runs[:-1]:
        shutil.copytree(run, followed / "runs" / run.name)
    server = Server(followed, 0, Options(null=0, replicates=50))
    threading.Thread(target=server.serve, daemon=True).start()
    page = browser.new_page()
    page.goto(server.address)
    page.locator("#follow", has_text=f"{len(runs) - 1} runs are complete").wait_for()
    page.locator("#live .chip", has_text="sft").press("Enter")
    shutil.copytree(runs[-1], followed / "runs" / runs[-1].name)
    page.locator("#follow", has_text=f"{len(runs)} runs are complete").wait_for()
    page.locator("#runs [role=status]", has_text=f"of {len(runs)} runs.").wait_for()
    assert page.locator("#live .chip", has_text="sft").get_attribute("aria-pressed") == "false"
    page.close()
    server._http.shutdown()
    server.close()
