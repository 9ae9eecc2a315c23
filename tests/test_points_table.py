import fakes
import numpy as np
import pandas as pd
import pytest

from capacity.errors import DataError, SpecError
from capacity.runs.points import COLUMNS
from capacity_analysis.data.read import read_points
from capacity_analysis.data.table import from_frame

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
