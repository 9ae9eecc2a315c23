"""The benchmark's own arithmetic, its check that both sides do the same work, and its way of taking turns."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from small import SMALLEST, small_spec
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.bench import products, stock, worker_parts
from benchmarks.bench.clock import REST, Clock, watched
from benchmarks.bench.figures import Figure, Quantity, check_same, figure_of
from benchmarks.bench.flops import step_flops
from benchmarks.bench.optimiser import steps_in_turns
from benchmarks.bench.profile import Profile, profile_of
from benchmarks.bench.studies import SWEEP
from benchmarks.bench.table import between_marks, marks, number, row, tables
from benchmarks.bench.turns import Call, alternate
from benchmarks.bench.worker_parts import PLACE, parts
from benchmarks.bench.workloads import REAL_GRPO, SMALL_GRPO, SMALL_SFT, modules
from capacity.adapters.attach import attach
from capacity.errors import CapacityError
from capacity.plan.models import model_shape
from capacity.plan.sizes import SizeChoice, size_of
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.studies import workers
from capacity.studies.executors.local import Local
from capacity.studies.make import make_missing
from capacity.studies.sweep import planned_specs
from capacity.tasks.abacus import AbacusTask

ROOT = Path(__file__).parent.parent
SECONDS = Quantity("CPU s", (2.0, 4.0, 9.0), (1.0, 1.0, 3.0))
START, END = marks("bench")


def test_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_the_medians() -> None:
    assert SECONDS.ratios == (2.0, 4.0, 3.0)
    assert SECONDS.ratio == 3.0  # the medians are 4 and 1
    assert Quantity("CPU s", (2.0,)).ratio is None


def test_pairs_that_do_not_match_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        _ = Quantity("CPU s", (2.0, 1.0), (1.0,)).ratio


def test_row_shows_medians_ratio_and_the_range_of_the_pairs() -> None:
    assert row(SECONDS) == "| CPU s | 4.00 | 1.00 | 3.00 | 2.00–4.00, 3 pairs |"
    assert row(Quantity("bytes", (1234.0,), (2372944.0,))) == "| bytes | 1,234 | 2,372,944 | 0.000520 | – |"
    assert row(Quantity("wall s", (0.0123,))) == "| wall s | 0.0123 | – | – | – |"


@pytest.mark.parametrize(("value", "text"), [(0.2464, "0.246"), (12.34, "12.3"), (1234.4, "1,234"), (0.0, "0.00")])
def test_number_has_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_tables_stand_in_the_order_of_the_sections() -> None:
    figures = [Figure("startup", "b", "", (SECONDS,)), Figure("steps", "a", "stock", (SECONDS,))]
    text = tables(figures)
    assert text.index("### Training steps\n\n**a**, against stock:\n\n| |") < text.index(
        "### Start of commands\n\n**b**:"
    )


def test_table_replaces_what_stands_between_the_marks() -> None:
    document = f"before\n{START}\nold\n{END}\nafter\n"
    written = between_marks(document, "new")
    assert written == f"before\n{START}\nnew\n{END}\nafter\n"
    assert between_marks(written, "new") == written
    with pytest.raises(CapacityError, match="no place for the table"):
        between_marks("no marks", "new")
    with pytest.raises(CapacityError, match="<!-- profile: start -->"):
        between_marks(document, "new", "profile")


def test_figure_comes_back_from_its_json() -> None:
    figure = Figure("steps", "a", "stock", (SECONDS, Quantity("MB", (1.0,))), {"prompts": ["x"]})
    assert figure_of(json.loads(json.dumps(figure.to_json()))) == figure


SAME = {"prompts": ["ab", "cd"], "optimiser": [{"lr": 1e-3, "betas": [0.9, 0.999]}], "sequences": 96, "loss": 1.25}


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"prompts": ["ab", "xx"]}, r"prompts\[1\] is 'cd' of ours, 'xx' of theirs"),
        ({"prompts": ["ab"]}, "prompts is"),
        ({"optimiser": [{"lr": 1e-3, "betas": [0.9, 0.99]}]}, r"optimiser\[0\].betas\[1\]"),
        ({"sequences": 95}, "sequences is 96 of ours, 95"),
        ({"loss": 1.2503}, "loss is"),
        ({"more": 1}, "more is None of ours, 1 of theirs"),
    ],
)
def test_different_work_is_refused_with_what_differs(changed: dict[str, Any], place: str) -> None:
    with pytest.raises(CapacityError, match=f"SFT step: the sides did not do the same work: {place}"):
        check_same("SFT step", SAME, {**SAME, **changed})


def test_equal_work_passes_up_to_rounding() -> None:
    check_same("SFT step", SAME, {**SAME, "loss": 1.25001})


@pytest.mark.parametrize("budget", [1, 13, 28, 100])
def test_stock_tinylora_trains_as_many_parameters_as_ours(model: Any, smallest: Any, budget: int) -> None:
    for alias, bare in (("abacus-0.9m", model), ("abacus-0.2m", smallest)):
        size = size_of(alias, SizeChoice(budget=budget), "fp32")
        run = SMALL_GRPO.spec.model_copy(update={"model": alias, "adapter": size.adapter(0)})
        theirs = stock.trained_parameters(get_peft_model(bare, stock.tinylora(run)))
        assert theirs == size.trained_parameters


def test_stock_tinylora_of_the_real_model_has_thirteen_parameters() -> None:
    run = REAL_GRPO.spec
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    bare = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=modules(run) // 7))
    assert stock.trained_parameters(get_peft_model(bare, stock.tinylora(run))) == 13


def test_workload_of_the_small_model_is_the_shipped_protocol(model: Any) -> None:
    run = SMALL_GRPO.spec
    assert run.training is not None
    assert (run.training.prompts_per_step, run.training.samples_per_prompt, run.training.max_new_tokens) == (12, 8, 26)
    assert attach(model, run.adapter, None).trained_parameters == 84
    assert SMALL_SFT.spec.adapter == run.adapter


def test_reward_of_the_stock_side_is_the_grade_of_the_task() -> None:
    task = AbacusTask()
    items = task.items("train", 2)
    reward = stock.Reward(task, items)
    given = reward(["p", "p", "q"], [f"#{items[0].answer}", "#0", f"#{items[1].answer}"], [[1, 2], [1], [1]], [0, 0, 1])
    assert given == [1.0, 0.0, 1.0]
    assert reward.lengths == [[2, 1, 1]]


class Counted:
    """Stands in for a gate and writes down what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def wait(self) -> None:
        self.asked.append("wait")

    def done(self) -> None:
        self.asked.append("done")


def test_a_step_is_a_turn_and_its_rate_is_kept() -> None:
    gate, parameter = Counted(), torch.nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.AdamW([parameter], lr=0.5, weight_decay=0.0)
    with steps_in_turns(gate, 2) as seen:  # type: ignore[arg-type]
        for rate in (0.5, 0.25):
            optimiser.param_groups[0]["lr"] = rate
            parameter.sum().backward()
            optimiser.step()
    assert gate.asked == ["wait", "done", "wait", "done"]
    assert [group["lr"] for group in seen] == [0.5, 0.25]
    optimiser.step()
    assert len(gate.asked) == 4


def test_sides_work_in_turns_and_warm_up_does_not_count() -> None:
    heard: list[str] = []
    calls = {name: Call("flops:product", {"turns": 3}) for name in ("a", "b")}
    found = alternate(calls, 2, 1, heard.append)
    assert [text.split(",")[0] for text in heard] == [
        "a starts", "b starts", "turn 1 of 3 (warm-up)", "turn 2 of 3", "turn 3 of 3",
    ]  # fmt: skip
    for side in found.values():
        assert len(side.turns) == 2
        assert min(side.cpu) > 0
        assert side.facts["flops"] == 16 * 2 * 1024**3
        assert side.peak >= side.loaded > 0


def test_side_that_fails_or_wants_more_turns_ends_the_measurement() -> None:
    with pytest.raises(CapacityError, match=r"a ended with exit code 1: AttributeError: .*'nothing'"):
        alternate({"a": Call("flops:nothing", {})}, 1, 0, lambda _: None)
    with pytest.raises(CapacityError, match="a wants more than 1 turns"):
        alternate({"a": Call("flops:product", {"turns": 2})}, 1, 0, lambda _: None)


def counted_flops(prompt: int, completions: list[int], live: bool, sampled: bool) -> float:
    """Counts the operations of a group token by token, as the module says."""
    run = SMALL_GRPO.spec
    _, shape = model_shape(run.model)
    linear = sum(2 * m.d * m.k + 2 * 8 * (m.d + m.k) for m in shape.linears)
    head = 2 * shape.hidden * shape.vocabulary
    attention = 2 * 2 * shape.hidden * shape.layers  # heads × head_dim is the width
    total = 0.0
    seen = list(range(1, prompt + 1))
    seen += [prompt + place for n in completions for place in range(1, n)]
    forward = sum(linear + attention * context for context in seen)
    if sampled:
        total += forward + head * (1 + sum(n - 1 for n in completions))
    if live:
        total += forward + sum(linear + 2 * attention * context for context in seen) + 2 * head * sum(completions)
    return total


@pytest.mark.parametrize("live", [True, False])
def test_operations_are_those_of_the_tokens_that_need_work(live: bool) -> None:
    run = SMALL_GRPO.spec
    assert run.adapter.rank == 8  # type: ignore[union-attr]
    found = step_flops(run, [12, 15], 14, [live, live])
    expected = sum(counted_flops(prompt, [14] * 8, live, sampled=True) for prompt in (12, 15))
    assert found == pytest.approx(expected, rel=1e-12)
    assert step_flops(SMALL_SFT.spec, [12], 14, [True]) == pytest.approx(counted_flops(12, [14] * 8, True, False))


def test_sweep_has_twenty_four_runs_that_stock_can_make() -> None:
    specs = planned_specs(SWEEP)
    assert specs is not None
    assert len({spec.identity for spec in specs}) == 24
    assert {(spec.method, spec.adapter.kind) for spec in specs} == {("sft", "tinylora"), ("grpo", "tinylora")}


class Hands:
    """A clock that is set by hand, and work that moves it."""

    def __init__(self) -> None:
        self.time = 0.0

    def read(self) -> float:
        return self.time

    def work(self, seconds: float) -> float:
        self.time += seconds
        return seconds


def test_seconds_belong_to_the_outer_part_and_else_to_the_rest() -> None:
    hands = Hands()
    clock = Clock(hands.read)
    hands.work(1.0)
    with clock.part("outer"):
        hands.work(2.0)
        with clock.part("inner"):
            hands.work(4.0)
    with clock.part("inner"):
        hands.work(8.0)
    assert clock.cut() == {"outer": 6.0, "inner": 8.0, REST: 1.0}
    hands.work(16.0)
    assert clock.cut() == {REST: 16.0}


def test_watched_function_is_a_part_until_the_context_ends() -> None:
    hands = Hands()
    clock = Clock(hands.read)
    with watched(clock, Hands, "work", "work"):
        assert hands.work(2.0) == 2.0
    hands.work(4.0)
    assert clock.cut() == {"work": 2.0, REST: 4.0}


def test_every_part_of_a_worker_is_a_function_that_is_there() -> None:
    assert [name for owner, name, _ in parts() if not callable(getattr(owner, name, None))] == []


def test_workers_say_what_their_seconds_went_into_and_make_the_usual_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path))
    monkeypatch.setattr(workers, "work", worker_parts.work)
    study = Study(tmp_path / "study")
    with study.locked():
        make_missing(study, [small_spec("sft", model=SMALLEST)], current("cpu", "fp32"), "", executor=Local(1))
    (run,), (said,) = study.runs(), [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert run.result.gradient_steps == 2
    assert said["runs"] == 1
    assert {"imports", "loading of the model", "training, sft", "writing of runs"} <= said["seconds"].keys()
    assert min(said["seconds"].values()) >= 0


def test_products_of_linears_are_written_down_forward_and_backward() -> None:
    first, second = torch.nn.Linear(3, 5, bias=False), torch.nn.Linear(5, 2)
    for parameter in (*first.parameters(), *second.parameters()):
        parameter.requires_grad_(False)
    x = torch.randn(2, 7, 3, requires_grad=True)
    log = products.Log()
    with log:
        with log.part("forward"):
            y = second(first(x)).sum()
        with log.part("backward"):
            y.backward()
        torch.bmm(torch.randn(2, 3, 4), torch.randn(2, 4, 5))
    found = log.cut()
    sizes = {name: sorted((p.n, p.k, p.m) for p in calls.products.elements()) for name, calls in found.items()}
    assert sizes == {"forward": [(14, 3, 5), (14, 5, 2)], "backward": [(14, 2, 5), (14, 5, 3)], REST: []}
    assert found["forward"].operations >= 2
    floors = products.floors(found, square=1e9)
    assert floors["forward"]["gflop"] == pytest.approx(2 * 14 * (3 * 5 + 5 * 2) / 1e9)
    assert floors["forward"]["square"] == pytest.approx(2 * 14 * (3 * 5 + 5 * 2) / 1e9)
    assert 0 < floors["forward"]["alone"] < 1
    assert floors[REST]["gflop"] == floors[REST]["alone"] == 0
    assert log.cut() == {}


def test_product_by_itself_has_the_sizes_and_strides_that_were_written_down() -> None:
    a, b = torch.randn(6, 4).T, torch.randn(6, 9)[:, 2:7]
    product = products.Product.of(a, b)
    assert (product.n, product.k, product.m, product.flops) == (4, 6, 5, 240)
    again = products._matrix((4, 6), product.left) @ products._matrix((6, 5), product.right)
    assert again.shape == (4, 5)
    assert products._matrix((6, 5), product.right).stride() == b.stride()


def test_profile_shows_shares_and_sums_and_comes_back_from_its_json() -> None:
    profile = Profile("a step", ("GFLOP",), {"forward": (0.75, 2.0), REST: (0.25, 0.0)})
    assert profile.table().splitlines() == [
        "**a step**:",
        "",
        "| | CPU s | share | GFLOP |",
        "|---|---|---|---|",
        "| forward | 0.750 | 75 % | 2.00 |",
        f"| {REST} | 0.250 | 25 % | 0.00 |",
        "| sum | 1.00 | 100 % | 2.00 |",
    ]
    assert profile_of(json.loads(json.dumps(profile.to_json()))) == profile


@pytest.mark.parametrize("name", ["bench", "profile"])
def test_document_has_a_place_for_each_kind_of_table(name: str) -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert [text.count(mark) for mark in marks(name)] == [1, 1]


def test_ratios_of_a_stored_result_are_those_of_its_pairs() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "bench-before.json").read_text())
    for raw in stored["figures"]:
        figure = figure_of(raw)
        assert [q.ratio for q in figure.quantities] == [q["ratio"] for q in raw["quantities"]]
