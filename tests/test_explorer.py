"""What a page lets a person explore is what the runs hold, and is bounded in size."""

import json
import os

import numpy as np
import pytest
from report_studies import STEPS, add, empty, full_study, spec, write_collapsed

from capacity.runs.items import ItemText, digest_of, write_items
from capacity.runs.study import Study
from capacity_analysis.data.absent import Absent
from capacity_reports.document import Report
from capacity_reports.explorer import completions as texts
from capacity_reports.explorer import runs as rows
from capacity_reports.explorer.completions import completions
from capacity_reports.explorer.runs import curves, runs
from capacity_reports.figures import DARK, INK, line_styles, variable
from capacity_reports.report import build_report
from capacity_reports.sources import Lookups, read_source
from capacity_reports.views import Options

QUICK = Options(null=0, replicates=50)
SIZES = ((1, 1), (13, 1), (28, 4))
LOOKUPS = Lookups(prompt=lambda _, item: f"What is {item}?", answer=lambda *_: Absent("not at hand"))
HOSTILE = "</script><script>alert(1)</script><!-- \u2028"


@pytest.fixture(scope="module", autouse=True)
def _no_fsync():
    fsync, os.fsync = os.fsync, lambda _: None
    yield
    os.fsync = fsync


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("explorer") / "full"
    return full_study(folder, sizes=SIZES, seeds=2, items=60, tuned=False, hostile=HOSTILE)


@pytest.fixture(scope="module")
def report(study) -> Report:
    return build_report([study.folder], options=QUICK, lookups=LOOKUPS)


def test_the_chart_holds_what_its_figure_draws(report):
    (chart,) = report.explored["charts"]
    wanted = {
        (r["method"], r["trained_parameters"]): (r["accuracy"], r["low"], r["high"])
        for r in report.table("accuracy-abacus-0-9m").records()
    }
    shown = {(m["name"], p["x"]): (p["y"], p["low"], p["high"]) for m in chart["methods"] for p in m["points"]}
    assert shown.keys() == wanted.keys()
    for place, values in wanted.items():
        assert shown[place] == pytest.approx(values, abs=1e-5)
    assert all(len(p["seeds"]) == 2 for m in chart["methods"] for p in m["points"])
    assert {m["ink"] for m in chart["methods"]} <= {variable(ink) for ink in DARK}


def test_the_table_has_a_row_for_each_run_and_curves_for_trained_ones(study):
    source = read_source(str(study.folder))
    found, drawn = runs(source), curves(source)
    assert found["total"] == len(found["rows"]) == len(source.runs)
    assert set(found["ids"]) == {run.spec.short_id for run in source.runs}
    assert set(drawn["runs"]) == {run.spec.short_id for run in source.trained}
    run = source.trained[0]
    curve = drawn["runs"][run.spec.short_id]
    assert curve["steps"] == list(range(1, STEPS + 1))
    assert curve["loss"] == pytest.approx([step.loss for step in run.steps], rel=1e-3)


def test_curves_are_means_over_blocks(study, monkeypatch):
    monkeypatch.setattr(rows, "BLOCKS", 5)
    source = read_source(str(study.folder))
    run = source.trained[0]
    curve = curves(source)["runs"][run.spec.short_id]
    assert curve["steps"] == [5, 10, 15, 20, 24]
    assert curve["loss"][0] == pytest.approx(np.mean([step.loss for step in run.steps[:5]]), rel=1e-3)


def test_runs_and_curves_beyond_the_bounds_are_counted(study, monkeypatch):
    monkeypatch.setattr(rows, "ROWS", 3)
    monkeypatch.setattr(rows, "CURVES", 2)
    source = read_source(str(study.folder))
    found, drawn = runs(source), curves(source)
    assert (len(found["rows"]), found["total"]) == (3, len(source.runs))
    assert (len(drawn["runs"]), drawn["total"]) == (2, len(source.trained))


def test_completions_of_each_cell_stand_beside_the_untrained_model(study):
    source = read_source(str(study.folder))
    (group,) = completions(source, LOOKUPS)
    labels = [run["label"] for run in group["runs"]]
    assert labels[0] == "untrained model"
    assert labels[1:] == [f"{m} {g * u}" for m in ("sft", "rft", "grpo") for g, u in SIZES]
    assert len(group["items"]) == group["total"] == 60
    assert group["items"][7] == {"id": "test-7", "prompt": "What is test-7?", "answer": None}
    run = study.read(study.path_of(spec("abacus-0.9m", "grpo", 13, 1, 0, 60)))
    shown = next(r for r in group["runs"] if r["label"] == "grpo 13")
    assert shown["texts"] == [outcome.completions[0] for outcome in run.outcomes()]
    assert shown["correct"] == [outcome.correct[0] for outcome in run.outcomes()]


def test_completions_fit_into_their_room(study, monkeypatch):
    monkeypatch.setattr(texts, "ROOM", 5_000)
    (group,) = completions(read_source(str(study.folder)), LOOKUPS)
    held = sum(len(text) for run in group["runs"] for text in run["texts"])
    assert 1_000 < held < 5_000
    assert len(group["items"]) < group["total"]
    # Where few items fit, of each method the most accurate size is shown.
    assert [run["method"] for run in group["runs"]] == ["base", "sft", "rft", "grpo"]


def test_prompts_and_answers_come_from_the_study(tmp_path):
    study, items = (
        empty(tmp_path / "kept"),
        tuple(ItemText(id=f"test-{i}", prompt=f"{i}+1=", answer=str(i + 1)) for i in range(4)),
    )
    rng = np.random.default_rng(0)
    for method in ("base", "grpo"):
        add(study, spec("abacus-0.9m", method, 13, 1, 0, 4), 0.5, rng)
    source = read_source(str(study.folder))
    for run in source.runs:
        object.__setattr__(run, "result", run.result.model_copy(update={"items_digest": digest_of(items)}))
    write_items(study.folder, items)
    (group,) = completions(source, LOOKUPS)
    assert group["items"][2] == {"id": "test-2", "prompt": "2+1=", "answer": "3"}
    path = study.folder / "items" / f"{digest_of(items)}.jsonl"
    path.write_text(path.read_text().replace("2+1", "2+2"))
    (group,) = completions(source, LOOKUPS)
    assert group["items"][2]["prompt"] == "What is test-2?"  # a damaged file shows nothing of its own


def test_what_models_write_cannot_leave_the_data_of_the_page(report):
    page = report.html()
    start = page.index('<script type="application/json" id="data">') + len('<script type="application/json" id="data">')
    text = page[start : page.index("</script>", start)]
    assert json.loads(text) == json.loads(json.dumps(report.explored))
    assert HOSTILE in json.loads(text)["completions"][0]["runs"][0]["texts"][0]
    assert "\u2028" not in text


def test_a_points_table_has_rows_and_no_completions(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "method,trained_parameters,n_items,n_correct,seed\n"
        + "".join(f"grpo,{n},100,{40 + n},{s}\n" for n in (1, 13) for s in (0, 1))
    )
    found = build_report([path], options=QUICK).explored
    assert len(found["runs"]["rows"]) == 4
    assert found["curves"]["runs"] == {}
    assert found["completions"] == []


def test_runs_of_seeds_that_collapsed_are_marked_in_the_chart_and_in_the_table(tmp_path):
    found = build_report([write_collapsed(tmp_path / "points.csv")], options=QUICK).explored
    (chart,) = found["charts"]
    marked = {m["name"]: [p["collapsed"] for p in m["points"]] for m in chart["methods"]}
    assert marked == {"sft": [[]] * 6, "grpo": [[2]] * 6}
    (grpo,) = [m for m in chart["methods"] if m["name"] == "grpo"]
    assert all(p["seeds"][2] == 0.5 for p in grpo["points"])
    at = {column["key"]: i for i, column in enumerate(found["runs"]["columns"])}
    states = {(r[at["method"]], r[at["seed"]]): r[at["state"]] for r in found["runs"]["rows"]}
    assert {run for run, state in states.items() if state is not None} == {("grpo", 2)}
    assert states["grpo", 2] == "collapsed, set aside"


def test_where_no_seed_collapsed_runs_have_no_state(report):
    assert all(p["collapsed"] == [] for m in report.explored["charts"][0]["methods"] for p in m["points"])
    assert "state" not in {column["key"] for column in report.explored["runs"]["columns"]}


def test_no_two_lines_share_a_colour():
    labels = [f"{m} {n}" for m in ("sft", "grpo", "rft", "own-method", "other-method") for n in (1, 13, 84, 448)]
    styles = line_styles(labels)
    assert len({colour for colour, _, _ in styles.values()}) == len(labels)
    assert {colour for colour, _, _ in styles.values()} <= set(DARK) - {INK}
    assert len({DARK[colour] for colour, _, _ in styles.values()}) == len(labels)
