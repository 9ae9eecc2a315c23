from pathlib import Path

import fakes
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from capacity.errors import DataError, SpecError
from capacity.runs.points import COLUMNS
from capacity_analysis.data.read import read_points
from capacity_analysis.data.select import Selection
from capacity_analysis.data.table import from_frame
from capacity_analysis.data.where import where
from capacity_analysis.thresholds.answers import study_thresholds
from capacity_analysis.thresholds.question import Question
from capacity_cli.app import app

HEADER = "method,trained_parameters,n_items,n_correct,seed"


def table(folder, *rows, header=HEADER):
    path = folder / "points.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_minimum_columns_are_enough_and_the_rest_is_missing(tmp_path):
    points = read_points(table(tmp_path, "sft,13,100,45,0"))
    assert tuple(points.frame.columns) == COLUMNS
    row = points.frame.iloc[0]
    assert (row["accuracy"], row["samples_per_item"]) == (0.45, 1)
    assert pd.isna(row["model"])
    assert points.outcomes is None


def test_accuracy_alone_is_enough(tmp_path):
    points = read_points(table(tmp_path, "grpo,13,0.5", header="method,trained_parameters,accuracy"))
    assert points.frame["accuracy"].tolist() == [0.5]
    assert points.frame["n_correct"].isna().all()


def test_parquet_reads_like_csv(tmp_path):
    pytest.importorskip("pyarrow")
    source = table(tmp_path, "base,0,100,30,0", "sft,13,100,45,0")
    pd.read_csv(source).to_parquet(tmp_path / "points.parquet")
    pd.testing.assert_frame_equal(read_points(source).frame, read_points(str(tmp_path / "points.parquet")).frame)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("sft,13,100,120,0", "row 2, column n_correct: 120 right of 100"),
        ("sft,13,100,-1,0", "row 2, column n_correct.*below 0"),
        ("sft,13,0,0,0", "row 2, column n_items: no items"),
        ("sft,13.5,100,5,0", "row 2, column trained_parameters.*not a whole number"),
        ("sft,many,100,5,0", "row 2, column trained_parameters.*not a number"),
        (",13,100,5,0", "row 2, column method: is missing"),
        ("sft,13,,5,0", "row 2, column accuracy: neither counts nor accuracy"),
        ("base,13,100,5,0", "row 2, column method: base has 13"),
        ("sft,1,100,50,0", "rows 1 and 2 are the same run"),
        ("sft,13,inf,5,0", "row 2, column n_items.*not a number"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    with pytest.raises(SpecError, match=message):
        read_points(table(tmp_path, "sft,1,100,50,0", row))


@pytest.mark.parametrize("header", ["method,accuracy", "method,trained_parameters", "trained_parameters,accuracy"])
def test_missing_columns_are_named(tmp_path, header):
    with pytest.raises(SpecError, match="missing column"):
        read_points(table(tmp_path, "sft,1", header=header))


def test_percent_is_not_taken_for_a_share(tmp_path):
    with pytest.raises(SpecError, match="not a share from 0 to 1"):
        read_points(table(tmp_path, "sft,1,55.0", header="method,trained_parameters,accuracy"))


def test_accuracy_must_be_that_of_the_counts(tmp_path):
    with pytest.raises(SpecError, match="is not 50 of 100"):
        read_points(table(tmp_path, "sft,1,100,50,0.6", header="method,trained_parameters,n_items,n_correct,accuracy"))


def test_empty_and_absent_sources(tmp_path):
    with pytest.raises(DataError, match="has no rows"):
        read_points(table(tmp_path))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_points(str(tmp_path / "empty.csv"))
    with pytest.raises(DataError, match="no such points table"):
        read_points(str(tmp_path / "none.csv"))
    (tmp_path / "points.txt").write_text("x")
    with pytest.raises(SpecError, match=r"\.csv or \.parquet"):
        read_points(str(tmp_path / "points.txt"))


def test_an_empty_study_says_so(tmp_path):
    study = fakes.study_in(tmp_path)
    with pytest.raises(DataError, match="no complete runs"):
        read_points(str(study.folder))


def test_a_study_brings_its_outcomes(tmp_path):
    study = fakes.study_in(tmp_path)
    fakes.add(study, fakes.spec("base"), [0, 1, 0, 0])
    fakes.add(study, fakes.spec("sft"), [1, 1, 0, 0])
    points = read_points(str(study.folder))
    assert points.outcomes is not None
    assert len(set(points.items)) == 4
    place = points.frame.index[points.frame["method"] == "sft"][0]
    assert points.outcomes[place].tolist() == [1, 1, 0, 0]
    assert points.frame["accuracy"][place] == 0.5
    only = points.where(points.frame["method"] == "sft")
    assert only.outcomes is not None
    assert only.outcomes.shape == (1, 4)


def test_items_that_a_selection_was_not_asked_are_dropped(tmp_path):
    study = fakes.study_in(tmp_path)
    fakes.add(study, fakes.spec("base"), [0, 1, 0, 0], first_item=4)
    fakes.add(study, fakes.spec("sft"), [1, 1, 0, 0])
    points = read_points(str(study.folder))
    assert points.outcomes is not None
    assert points.outcomes.shape == (2, 8)
    assert np.isnan(points.outcomes).sum() == 8
    assert len(points.where(points.frame["method"] == "base").items) == 4


def test_columns_that_are_not_canonical_are_dropped():
    raw = pd.DataFrame({"method": ["sft"], "trained_parameters": [1], "accuracy": [0.5], "colour": ["red"]})
    assert "colour" not in from_frame(raw, "here").frame


FULL = "model,method,trained_parameters,seed,n_items,n_correct"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["m,sft,1,0,100,50,", "m,sft,2,0,100,60,"], "row 1 has 7 fields and the header has 6"),
        (["m,sft,1,0,100,50", "m,sft,2,0,100,60,9"], "row 2 has 7 fields and the header has 6"),
        (["m,sft,1,0,100,50", "m,sft,2,100,60"], "row 2 has 5 fields and the header has 6"),
        (["m,sft,1,0,100,50", "", 'm,"sft,2,0,100,60'], "cannot be read as a table: unexpected end of data"),
    ],
)
def test_rows_that_do_not_fit_the_header_are_refused(tmp_path, rows, message):
    with pytest.raises((SpecError, DataError), match=message):
        read_points(table(tmp_path, *rows, header=FULL))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (f"{FULL},n_correct", "two columns are named n_correct"),
        (f"{FULL}, n_correct ", "two columns are named n_correct"),
        (f"{FULL},Adapter", "column 'Adapter': write adapter"),
        (f"{FULL},learning rate", "column 'learning rate': write learning_rate"),
    ],
)
def test_a_column_is_never_overlooked(tmp_path, header, message):
    with pytest.raises(SpecError, match=message):
        read_points(table(tmp_path, "m,sft,1,0,100,50,1", header=header))
    names = [name.strip() for name in header.split(",")]
    with pytest.raises(SpecError, match=message):
        from_frame(pd.DataFrame([["m", "sft", 1, 0, 100, 50, 1]], columns=names), "here")


def test_columns_without_a_name_are_no_part_of_the_table(tmp_path):
    """Spreadsheets end rows in empty columns, and pandas writes its index under no name."""
    found = read_points(table(tmp_path, "7,m,sft,1,0,100,50,,", header=f",{FULL},,")).frame
    assert found[FULL.split(",")].values.tolist() == [["m", "sft", 1, 0, 100, 50]]


@pytest.mark.parametrize("name", ["NA", "None", "nan", "null", "N/A", "1e3"])
def test_names_are_text_whatever_they_say(tmp_path, name):
    points = read_points(table(tmp_path, f"{name},sft,1,0,100,50", "m,sft,1,0,100,40", header=FULL))
    assert points.frame["model"].tolist() == [name, "m"]
    assert where(points, [f"model={name}"]).frame["n_correct"].tolist() == [50]


@pytest.mark.parametrize("word", ["", "NA", "NaN", "nan", "None", "null"])
def test_a_number_that_is_not_there_can_be_written_in_words(tmp_path, word):
    found = read_points(table(tmp_path, f"m,base,0,{word},100,50", "m,sft,1,0,100,40", header=FULL)).frame
    assert found["seed"].isna().tolist() == [True, False]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["n_items", "n_correct", "trained_parameters", "seed"])
def test_whole_numbers_are_exact_or_refused(tmp_path, column, kind):
    """Beyond 2^53 floats, in which everything is computed, no longer hold every whole number."""

    def read(value):
        row = {"model": "m", "method": "sft", "trained_parameters": "1", "seed": "0", "n_items": str(2**53)}
        row |= {"n_correct": "5"} | {column: value} | ({"n_correct": value} if column == "n_items" else {})
        frame = pd.DataFrame([row])
        if kind == "csv":
            frame.to_csv(tmp_path / "points.csv", index=False)
        else:
            frame.to_parquet(tmp_path / "points.parquet")
        return read_points(str(tmp_path / f"points.{kind}")).frame[column][0]

    for text in ("9007199254740991", "9007199254740991.0", "9.007199254740991e15"):
        assert read(text) == 2**53 - 1
    for text in ("9007199254740993", "10000000000000000000000000", "1e25", "1e999"):
        with pytest.raises(SpecError, match=f"row 1, column {column}: {column} is {text}, above 2\\^53"):
            read(text)


def test_the_number_of_answers_is_exact_or_refused(tmp_path):
    header = f"{FULL},samples_per_item"
    with pytest.raises(
        SpecError, match=r"row 1, column n_items: 3037000500 items × 3037000500 samples are above 2\^53"
    ):
        read_points(table(tmp_path, "m,sft,1,0,3037000500,5,3037000500", header=header))


def test_a_trained_arm_without_parameters_is_refused(tmp_path):
    path = table(tmp_path, "m,base,0,,100,30", "m,sft,1,0,100,50", "m,grpo,0,0,100,31", header=FULL)
    with pytest.raises(SpecError, match="row 3, column trained_parameters: grpo has 0 trained parameters; only base"):
        read_points(path)
    for command in (["threshold"], ["bits"], ["report", "--out", str(tmp_path / "report.html")]):
        done = CliRunner().invoke(app, [command[0], path, *command[1:]])
        assert isinstance(done.exception, SpecError), command
    assert not (tmp_path / "report.html").exists()


def test_a_run_without_a_seed_is_said(tmp_path):
    rows = [f"m,{method},{10**k},{seed},100,{50 + k}" for method in ("sft", "grpo") for k in (0, 1) for seed in (0, 1)]
    whole = read_points(table(tmp_path, *rows, header=FULL))
    assert not [line for line in whole.lacking if "no seed" in line]
    rows[5] = "m,grpo,1,,100,50"
    path = table(tmp_path, "m,base,0,,100,30", *rows, header=FULL)
    assert f"{path}: row 7 has no seed: its curve cannot be paired by seed with another" in read_points(path).lacking
    done = CliRunner().invoke(app, ["threshold", path, "--target", "0.505", "--null", "0", "--details"])
    assert "row 7 has no seed" in done.stdout


def test_cells_are_told_apart_by_whole_values(tmp_path):
    header = "model,family,task,method,trained_parameters,accuracy"
    rows = ("a|b,f,c,sft,1,0.5", "a,f,b|c,sft,1,0.5")
    assert read_points(table(tmp_path, *rows, header=header)).frame["cell"].nunique() == 2


def test_a_shipped_table_keeps_every_answer_and_fresh_items_are_estimated_from_it():
    points = read_points(str(Path(__file__).parents[1] / "studies/results/abacus-answers.csv"))
    assert points.outcomes is not None
    assert np.nanmean(points.outcomes, axis=1) == pytest.approx(points.frame["accuracy"].to_numpy(dtype=float))
    study = study_thresholds(points, Selection(), Question(gain=0.5, items="population"), null=0)
    intervals = {found.interval for found in study.thresholds}
    assert intervals == {"95 %, fresh seeds and items, variance between seeds pooled over sizes"}
    assert not study.evidence[0].left_out
