"""A log that inspect_ai wrote, in its own form, through its own reader."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inspect_ai import log as inspect_log

import capacity
from capacity.errors import DataError
from capacity_analysis.evaluations.evaluation import Reading
from capacity_analysis.evaluations.read import read_evaluations

LOG = Path(__file__).parent.parent / "data" / "evaluations" / "inspect-sums.eval"


def test_a_log_in_its_own_form_gives_the_accuracy_that_inspect_gives() -> None:
    (found,) = read_evaluations(LOG, None, Reading())
    header = inspect_log.read_eval_log(str(LOG), header_only=True)
    (score,) = header.results.scores
    assert found.accuracy == pytest.approx(score.metrics["accuracy"].value)
    assert (found.task, found.model, found.metric) == ("sums", "mockllm/model", score.name)
    assert found.items == tuple(sorted(header.eval.dataset.sample_ids))
    assert found.samples.tolist() == [2.0] * 6  # epochs


def test_both_forms_of_a_log_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "inspect-sums.json"
    inspect_log.write_eval_log(inspect_log.read_eval_log(str(LOG)), str(path), "json")
    (one,), (other,) = (read_evaluations(source, "a", Reading()) for source in (LOG, path))
    assert np.array_equal(one.scores, other.scores)
    same = {"scores": one.scores, "samples": one.samples, "source": ""}
    assert np.array_equal(one.samples, other.samples)
    assert replace(one, **same) == replace(other, **same)
    (contrast,) = capacity.verdict(f"a={LOG}", f"b={path}").found.contrasts
    assert contrast.estimate.value == 0


def test_a_folder_of_logs_and_an_import(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / LOG.name).write_bytes(LOG.read_bytes())
    facts = {"": {"method": "base", "trained_parameters": "0"}}
    found = capacity.import_results(tmp_path / "logs", out=tmp_path / "out", facts=facts)
    assert found.runs == 1


@pytest.mark.parametrize("kept", [0, 100, 20_000])
def test_a_log_that_was_cut_off_is_refused_in_one_line(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.eval"
    path.write_bytes(LOG.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"cut\.eval: inspect_ai cannot read it: ") as refusal:
        read_evaluations(path, None, Reading())
    assert "\n" not in str(refusal.value)


def test_a_log_of_a_failed_evaluation_is_refused(tmp_path: Path) -> None:
    log = inspect_log.read_eval_log(str(LOG))
    log.status = "error"
    inspect_log.write_eval_log(log, str(tmp_path / "failed.eval"), "eval")
    with pytest.raises(DataError, match="the evaluation ended with status error: run it again"):
        read_evaluations(tmp_path / "failed.eval", None, Reading())
