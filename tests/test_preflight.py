"""What is checked before the first run: every prompt that the runs ask fits, and the tokenizer can be used."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chatting import FORMATS, Format, appending, saved, tokenizer_of, writes
from sizes import chosen
from small import small_spec
from transformers import GPT2Config, GPT2LMHeadModel
from untrained import TOKENIZER, LuckyTask, adapted_model

from capacity.errors import CapacityError, DataError, DataWarning, SpecError
from capacity.plan.sampling import SERVER, with_rollouts
from capacity.plan.specs import base_spec, trained_spec, zero_specs
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.spec.methods import METHODS, TRAINED, Method
from capacity.spec.parts import Match, RolloutSpec
from capacity.spec.run import RunSpec
from capacity.studies import workers
from capacity.studies.worker import checked
from capacity.tasks.catalog import open_task, parse_task
from capacity.training.batch import Cost, Recorder
from capacity.training.batches import heldout_items
from capacity.training.phases import phases
from capacity.training.preflight import asked, check_run, check_runs, drawn_prompts
from capacity.training.run import execute

NEW, CONTEXT = 4, 64
LONG = "1+" * 40


def data_in(folder: Path, long_in: str | None = None) -> Path:
    """Sums in three files of 16 rows. The last row of one of them is longer than the context."""
    folder.mkdir(exist_ok=True)
    for one, split in enumerate(("train", "validation", "test"), 1):  # splits share no problem
        rows = [{"id": f"{split}-{i}", "prompt": f"{i}+{one}=", "answer": str(i + one)} for i in range(16)]
        if split == long_in:
            rows[-1]["prompt"] = LONG
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def model_in(folder: Path, form: Format = FORMATS["plain"], change: Callable[[Any], Any] = lambda t: t) -> Path:
    tokenizer = change(tokenizer_of(form))
    return saved(folder / "model", writes(tokenizer, {}, context=CONTEXT), tokenizer)


def spec_of(model: Path, data: Path, method: Method, options: str = "", match: Match = "prompts") -> RunSpec:
    """Two steps of 4 prompts × 2 sequences, 8 items of evaluation, completions of 4 tokens."""
    task = parse_task(f"jsonl:{data}?max_new_tokens={NEW}{options}")
    size = chosen(str(model), "lora", rank=1)
    if method == "base":
        spec = base_spec(str(model), task)
    elif method == "zero":
        (spec,) = zero_specs(str(model), task, size, "fp32", seeds=[0])
    else:
        spec = trained_spec(str(model), task, method, size, 0, "fp32", rates=dict.fromkeys(METHODS, 0.01), match=match)
        sizes = {"steps": 2, "warmup_steps": 0, "prompts_per_step": 4, "samples_per_prompt": 2}
        assert spec.training is not None
        spec = spec.model_copy(update={"training": spec.training.model_copy(update=sizes)})
    return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"items": 8})})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_in(tmp_path)


def test_runs_whose_prompts_fit_pass(model: Path, tmp_path: Path) -> None:
    check_runs([spec_of(model, data_in(tmp_path / "data"), method) for method in METHODS])


@pytest.mark.parametrize(
    ("split", "method", "refused"),
    [
        ("train", "grpo", True),
        ("train", "sft", True),
        ("train", "base", False),
        ("validation", "sft", True),
        ("validation", "rft", True),
        ("validation", "grpo", False),
    ],
)
def test_a_prompt_that_a_run_asks_and_that_exceeds_the_context_is_named(
    model: Path, tmp_path: Path, split: str, method: Method, refused: bool
) -> None:
    spec = spec_of(model, data_in(tmp_path / "data", split), method)
    if spec.training is not None:  # so many steps that every prompt is drawn
        spec = spec.model_copy(update={"training": spec.training.model_copy(update={"steps": 4})})
    if not refused:
        check_runs([spec])
        return
    with pytest.raises(SpecError, match=rf"item {split}-15 has a prompt of 80 tokens, which with 4 new ones .* of 64"):
        check_runs([spec])


def test_a_demonstration_that_no_completion_can_hold_is_named_before_training(model: Path, tmp_path: Path) -> None:
    data = data_in(tmp_path / "data")
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]
        rows[3] |= {"answer": "12345"}
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        spec = spec_of(model, data, "sft")
        assert spec.training is not None
        every = spec.model_copy(update={"training": spec.training.model_copy(update={"steps": 4})})
        said = (
            rf"a demonstration of item {split}-3 has 6 tokens with its end, and completions have at most 4: raise max"
        )
        with pytest.raises(DataError, match=said):
            check_runs([every])
        check_runs([spec_of(model, data, "grpo")])
        data_in(data)


def test_held_out_items_without_a_solution_are_left_out(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        solved = [{"prompt": f"{split} {i}", "answer": "1", "solution": "it is 1"} for i in range(8)]
        rows = (
            solved
            if split == "train"
            else [*solved[:3], *({k: r[k] for k in ("prompt", "answer")} for r in solved[3:])]
        )
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = open_task(parse_task(f"jsonl:{tmp_path}"))
    assert [item.prompt for item in heldout_items(task, demonstrated=True)] == [f"validation {i}" for i in range(3)]
    assert len(heldout_items(task, demonstrated=False)) == 8


def test_a_prompt_that_an_engine_does_not_take_whole_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capacity.training.preflight.LONGEST_PROMPT", 2)
    spec = spec_of(model, data_in(tmp_path / "data"), "grpo")
    check_runs([spec])
    said = r"item test-0: its prompt has 4 tokens, and the engine is started for 2: sample with --rollouts transformers"
    with pytest.raises(SpecError, match=said):
        check_runs([with_rollouts(spec, RolloutSpec())])
    monkeypatch.setenv(SERVER, "http://host:8000")  # a server has the room that it was started with
    check_runs([with_rollouts(spec, RolloutSpec())])


def test_the_longest_sequence_that_fits_is_the_context(model: Path, tmp_path: Path) -> None:
    data = data_in(tmp_path / "data")
    rows = [{"id": f"test-{i}", "prompt": "1" * length, "answer": "1"} for i, length in enumerate((60, 61))]
    for count, fits in ((1, True), (2, False)):
        (data / "test.jsonl").write_text("\n".join(map(json.dumps, rows[:count])))
        spec = spec_of(model, data, "base")
        spec = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"items": count})})
        if fits:
            check_runs([spec])
        else:
            with pytest.raises(SpecError, match="item test-1 has a prompt of 61 tokens"):
                check_runs([spec])


def test_a_prompt_that_a_run_does_not_draw_does_not_refuse_it(model: Path, tmp_path: Path) -> None:
    spec, found = spec_of(model, data_in(tmp_path / "data", "train"), "grpo"), set()
    for seed in range(6):
        seeded = spec.model_copy(update={"seed": seed})
        (_, (drawn, new)) = asked(seeded, open_task(spec.task))
        assert (len(drawn), new) == (8, NEW)
        found.add(refused := "train-15" in {item.id for item in drawn})
        if refused:
            with pytest.raises(SpecError, match="item train-15"):
                check_runs([seeded])
        else:
            check_runs([seeded])
    assert found == {True, False}


@pytest.mark.parametrize("match", ["prompts", "sequences"])
@pytest.mark.parametrize("method", TRAINED)
def test_the_prompts_that_are_checked_are_those_that_are_drawn(method: Method, match: Match) -> None:
    spec = small_spec(method, model="abacus-0.2m", match=match, steps=3)
    task = LuckyTask()
    arms = phases(adapted_model(spec), TOKENIZER, task, spec, Recorder([], Cost()))
    drawn = [item for _, schedule in arms for item in schedule]
    assert len(drawn) == drawn_prompts(spec)
    assert list(asked(spec, task))[1][0] == drawn


@pytest.mark.parametrize(
    ("form", "change", "options", "message"),
    [
        ("plain", appending, "", "the tokenizer appends </s> to prompts"),
        ("gemma3", lambda t: setattr(t, "chat_template", "{{ m }") or t, "&chat=model", "line 1: unexpected '}'"),
        ("plain", lambda t: t, "&chat=model", "the model's tokenizer has no chat template: add chat=none"),
    ],
    ids=["appends", "template", "no template"],
)
def test_a_tokenizer_that_cannot_be_used_is_refused(
    tmp_path: Path, form: str, change: Any, options: str, message: str
) -> None:
    model = model_in(tmp_path, FORMATS[form], change)
    spec = spec_of(model, data_in(tmp_path / "data"), "sft", options)
    for check in (lambda: check_runs([spec]), lambda: execute(spec, "cpu")):
        with pytest.raises(SpecError) as refusal:
            check()
        assert message in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_a_tokenizer_without_an_end_of_sequence_is_refused(tmp_path: Path) -> None:
    form = Format(None, ("<bos>",), None, (), "")
    spec = spec_of(model_in(tmp_path, form), data_in(tmp_path / "data"), "base")
    with pytest.raises(DataError, match=r"model: the tokenizer names no end-of-sequence token, .*: set eos_token in"):
        check_runs([spec])


def test_a_run_checks_its_prompts_itself(tmp_path: Path) -> None:
    """GPT-2 has no position beyond its context: such a prompt used to end in an IndexError."""
    torch.set_num_threads(1)
    tokenizer = tokenizer_of(FORMATS["plain"])
    size = {"vocab_size": len(tokenizer), "n_positions": CONTEXT, "n_embd": 8, "n_layer": 1, "n_head": 1}
    end = tokenizer.eos_token_id
    gpt2 = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=end, eos_token_id=end))
    spec = spec_of(saved(tmp_path / "model", gpt2, tokenizer), data_in(tmp_path / "data", "train"), "sft")
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"steps": 4})})  # type: ignore[union-attr]
    with pytest.raises(SpecError, match="item train-15 has a prompt of 80 tokens"):
        execute(spec, "cpu")


class Pipe:
    """What a worker answers, without its process."""

    def send(self, asked: Any) -> None:
        word, job = asked
        assert word == "check"
        self.answer = checked([RunSpec.model_validate(raw) for raw in job])

    def recv(self) -> Any:
        return self.answer

    def close(self) -> None: ...


def test_no_run_starts_before_all_are_checked(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = (spec_of(model, data_in(tmp_path / split, split), "sft") for split in ("test", "validation"))
    with pytest.raises(CapacityError):
        check_run(bad, open_task(bad.task), tokenizer_of(FORMATS["plain"]))

    class Idle:
        """A worker that answers to the check alone, as a process and as its pipe."""

        def kill(self) -> None:
            self.killed = True

        def join(self) -> None:
            assert self.killed

        def send(self, message: tuple[str, list[Any]]) -> None:
            word, specs = message
            assert word == "check"
            self.answer = checked([RunSpec.model_validate(spec) for spec in specs])

        def recv(self) -> tuple[CapacityError | None, list[str]]:
            error, said = self.answer
            return error, [*said, "a word on the data"]

    started: list[Any] = []
    idle = Idle()
    monkeypatch.setattr(workers, "_start", lambda *_: workers._Worker(idle, idle))
    study = Study(tmp_path / "study")
    with (
        study.locked(),
        pytest.warns(DataWarning, match="a word on the data"),
        pytest.raises(SpecError, match="item validation-15"),
    ):
        workers.run_all(study, [good, bad], current("cpu", "fp32"), 1, started.append)
    assert (started, study.runs(), study.failures()) == ([], [], [])


def rows_in(folder: Path, rows: int, **changes: str) -> Path:
    """A file of sums, of whose rows the splits are carved; `changes` replaces fields, with the number of the row."""
    changed = [{name: text.replace("{n}", str(n)) for name, text in changes.items()} for n in range(rows)]
    lines = [{"id": str(n), "prompt": f"{n}+1=", "answer": str(n + 1), **changed[n]} for n in range(rows)]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def abacus_spec(path: Path, method: Method = "base") -> RunSpec:
    task = parse_task(f"jsonl:{path}?max_new_tokens={NEW}&template=bare")
    if method == "base":
        return base_spec("abacus-0.2m", task)
    return trained_spec(
        "abacus-0.2m", task, method, chosen("abacus-0.2m", "lora", rank=1), 0, "fp32", rates={method: 0.1}
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "Natalia sold {n} clips."}, "it reads 'Natalia sold "),
        ({"answer": "twelve"}, "it reads 'twelve' as ''"),
    ],
)
def test_a_tokenizer_that_loses_letters_of_the_task_is_refused(tmp_path: Path, changes: Any, said: str) -> None:
    path = rows_in(tmp_path, 60, **changes)
    with pytest.raises(SpecError, match=r"^item \S+: the tokenizer of abacus-0.2m cannot spell this task") as refused:
        check_runs([abacus_spec(path)])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_that_loses_letters_of_demonstrations_is_refused_for_methods_that_see_them(tmp_path: Path) -> None:
    path = rows_in(tmp_path, 60, solution="I think so")
    spec = abacus_spec(path, "sft")
    with pytest.raises(SpecError, match=r"^a demonstration: the tokenizer of abacus-0\.2m cannot spell this task"):
        check_runs([spec])


def test_evaluation_refuses_what_the_tokenizer_cannot_spell(tmp_path: Path) -> None:
    import capacity

    path = rows_in(tmp_path, 60, prompt="How many, {n}?")
    with pytest.raises(SpecError, match="cannot spell this task: it reads 'How many, "):
        capacity.evaluate("abacus-0.2m", task=f"jsonl:{path}?max_new_tokens=4", items=2)


def test_spaces_capitals_and_forms_of_letters_may_change() -> None:
    from capacity.sampling.spelling import check_spelling
    from capacity.tasks.task import Item

    class Loose:
        def encode(self, text: str, **_: Any) -> list[int]:
            return [ord(letter) for letter in text.lower() if letter != " "]

        def decode(self, ids: list[int], **_: Any) -> str:
            return "".join(map(chr, ids))

    check_spelling(Loose(), [Item("a", "A Fine Text", "x²")], "m")


@pytest.mark.parametrize(("rows", "warns"), [(60, True), (3000, False)])
def test_too_few_test_items_are_said_with_the_width_that_they_give(tmp_path: Path, rows: int, warns: bool) -> None:
    spec = abacus_spec(rows_in(tmp_path, rows))
    count = spec.evaluation.items
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_runs([spec, spec])
    found = [str(w.message) for w in said if w.category is DataWarning]
    width = 98 / count**0.5
    expected = (
        f"task jsonl has {count} test items: a run's accuracy near 50 % is known to ±{width:.0f} points (95 %); "
        "97 items are needed for ±10 points"
    )
    assert found == ([expected] if warns else [])
    assert (count < 97) == warns


def test_a_protocol_that_asks_for_few_items_on_purpose_is_not_warned_of() -> None:
    spec = small_spec("base")
    assert spec.evaluation.items < 97
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        check_runs([spec])


def test_what_a_worker_warns_of_is_said_by_the_command(tmp_path: Path) -> None:
    spec = abacus_spec(rows_in(tmp_path, 60))
    with pytest.warns(DataWarning, match=f"task jsonl has {spec.evaluation.items} test items"):
        workers._check(workers._Worker(None, Pipe()), [spec])  # type: ignore[arg-type]


def test_half_the_interval_of_five_items_is_44_points() -> None:
    from capacity.training.preflight import FEW_ITEMS, interval_width

    assert interval_width(5) == pytest.approx(0.438, abs=5e-4)
    assert interval_width(FEW_ITEMS) < 0.1 < interval_width(FEW_ITEMS - 1)


def test_what_to_know_of_the_data_leaves_the_worker_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_: Any) -> None:
        for _ in range(2):
            warnings.warn("few items", DataWarning, stacklevel=1)

    monkeypatch.setattr("capacity.training.preflight.check_runs", check)
    assert checked([]) == (None, ["few items"])
