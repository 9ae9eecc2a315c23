"""Files that lm-evaluation-harness and inspect_ai write here, about tiny models: read, imported and judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_ai.scorer import pattern
from inspect_ai.solver import generate

import capacity
from capacity.errors import DataError
from capacity.library.check_results import check_results
from capacity.tasks.abacus import AbacusTask
from capacity_analysis.data.read import read_points
from capacity_analysis.evaluations.evaluation import Evaluation, Reading
from capacity_analysis.evaluations.read import read_evaluations

MODELS = Path(capacity.__file__).parent / "models" / "data"
ARMS = ("abacus-0.9m", "abacus-3m")
ITEMS, LIMIT = 40, 26
PLAIN = {"device": "cpu", "chat_template": "{{ messages[-1]['content'] }}"}  # these models know no chat
SUMS = AbacusTask().items("test", ITEMS)
TASK = """
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["<eos>"], max_gen_toks: 26, do_sample: false}
filter_list:
  - name: last
    filter:
      - {function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}
      - {function: take_first}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def lm_eval_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `lm_eval --log_samples` writes of each model, by its command."""
    folder = tmp_path_factory.mktemp("lm-eval")
    rows = [json.dumps({"question": item.prompt, "answer": item.answer}) for item in SUMS]
    (folder / "sums.jsonl").write_text("\n".join(rows))
    (folder / "tasks").mkdir()
    (folder / "tasks" / "sums.yaml").write_text(TASK % (folder / "sums.jsonl"))
    found = {}
    for arm in ARMS:
        command = [
            sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", "sums", "--device", "cpu",
            "--model_args", f"pretrained={MODELS / arm},dtype=float32", "--include_path", str(folder / "tasks"),
            "--log_samples", "--output_path", str(folder / arm), "--batch_size", "8",
        ]  # fmt: skip
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
        done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        (found[arm],) = (folder / arm).iterdir()
    return found


@pytest.fixture(scope="module")
def inspect_logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The log that inspect_ai writes of each model."""
    folder = tmp_path_factory.mktemp("inspect")
    data = MemoryDataset([Sample(input=item.prompt, target=item.answer, id=item.id) for item in SUMS], name="sums")
    found = {}
    for arm in ARMS:
        task = Task(
            dataset=data, solver=generate(), scorer=pattern(r"#(-?[0-9]+)$"), name="sums"
        )  # one keeps its model
        (log,) = evaluate(
            task, model=f"hf/{arm}", model_args={"model_path": str(MODELS / arm), **PLAIN}, epochs=2,
            max_tokens=LIMIT, temperature=1.0, seed=0, log_dir=str(folder / arm), display="none",
        )  # fmt: skip
        assert log.status == "success", log.error
        found[arm] = Path(log.location)
    return found


def accuracy_that_lm_eval_gives(folder: Path) -> float:
    (results,) = folder.glob("results_*.json")
    found: float = json.loads(results.read_text())["results"]["sums"]["exact_match,last"]
    return found


def accuracy_that_inspect_gives(log: Path) -> float:
    results = read_eval_log(str(log), header_only=True).results
    assert results is not None
    return float(results.scores[0].metrics["accuracy"].value)


def only(source: Path, arm: str) -> Evaluation:
    (found,) = read_evaluations(source, arm, Reading())
    return found


def test_lm_eval_s_files_have_its_accuracy_and_name_its_model(lm_eval_folders: dict[str, Path]) -> None:
    for arm, folder in lm_eval_folders.items():
        found = only(folder, arm)
        assert found.accuracy == pytest.approx(accuracy_that_lm_eval_gives(folder))
        assert 0 < found.accuracy < 1
        assert (found.task, len(found.items), found.metric) == ("sums", ITEMS, "exact_match")
        assert Path(found.model).name == arm
        assert None not in found.contents


def test_inspect_s_logs_have_its_accuracy_and_name_its_model(inspect_logs: dict[str, Path]) -> None:
    for arm, log in inspect_logs.items():
        found = only(log, arm)
        assert found.accuracy == pytest.approx(accuracy_that_inspect_gives(log))
        assert 0 < found.accuracy < 1
        assert (found.task, len(found.items), found.model) == ("sums", ITEMS, f"hf/{arm}")
        assert set(found.samples) == {2.0}  # epochs


@pytest.mark.parametrize("tool", ["lm_eval_folders", "inspect_logs"])
def test_what_a_tool_wrote_is_judged_checked_and_imported(
    tool: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    sources: dict[str, Path] = request.getfixturevalue(tool)
    found = capacity.verdict(*(f"{arm}={source}" for arm, source in sources.items())).found
    (contrast,) = found.contrasts
    assert contrast.estimate.value == pytest.approx(only(sources[ARMS[1]], "b").accuracy - contrast.before)
    assert found.tasks[0].contents_known
    assert (contrast.lost is None) == (tool == "inspect_logs")  # items of two epochs have no one answer
    same = check_results(sources[ARMS[0]], sources[ARMS[0]], margin=0.02, alpha=0.05)
    assert same.found.outcome == "identical"
    facts = {"": {"method": "base", "trained_parameters": "0"}}  # both tools name the model themselves
    done = capacity.import_results(*(f"{arm}={s}" for arm, s in sources.items()), out=tmp_path, facts=facts)
    frame = read_points(str(done.points)).frame
    assert frame["accuracy"].tolist() == pytest.approx([contrast.before, contrast.after])
    assert frame["answers"].notna().all()


def test_means_that_lm_eval_wrote_have_the_counts_of_its_answers(
    lm_eval_folders: dict[str, Path], tmp_path: Path
) -> None:
    (results,) = lm_eval_folders[ARMS[0]].glob("results_*.json")
    facts = {"": {"method": "base", "trained_parameters": "0"}}
    done = capacity.import_results(results, out=tmp_path, facts=facts)
    row = read_points(str(done.points)).frame.iloc[0]
    assert (row["n_items"], row["n_correct"]) == (ITEMS, round(ITEMS * only(lm_eval_folders[ARMS[0]], "a").accuracy))


def test_both_forms_of_inspect_s_log_say_the_same(inspect_logs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    write_eval_log(read_eval_log(str(inspect_logs[ARMS[0]])), str(path), "json")
    (contrast,) = capacity.verdict(f"a={inspect_logs[ARMS[0]]}", f"b={path}").found.contrasts
    assert contrast.estimate.value == 0


def test_logs_of_two_tools_name_their_items_otherwise(
    lm_eval_folders: dict[str, Path], inspect_logs: dict[str, Path]
) -> None:
    with pytest.raises(DataError, match=r"graded by pattern, and .* by exact_match"):
        capacity.verdict(f"a={lm_eval_folders[ARMS[0]]}", f"b={inspect_logs[ARMS[0]]}")
