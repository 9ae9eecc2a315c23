"""Many adapters in one pass, rows without one, the split of a device, and what the commands say of it."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import PlainEngine
from typer.testing import CliRunner

from capacity.adapters.attach import attach
from capacity.adapters.model import AdaptedModel
from capacity.errors import CapacityError, EngineError, SpecError
from capacity.plan.engine_memory import ADAPTERS_OF_A_RUN, cache_bytes, shared_plan
from capacity.plan.grid import result_specs
from capacity.plan.memory import memory_plan
from capacity.plan.models import ALIASES
from capacity.plan.sampling import SERVER
from capacity.plan.study_file import read_study_file
from capacity.sampling.evaluate import evaluate
from capacity.sampling.vllm import several, start
from capacity.sampling.vllm.several import check_base_rows, evaluate_several
from capacity.sampling.vllm.sync import LoraWriter
from capacity.spec.adapters import TinyLora
from capacity.spec.parts import EvaluationSpec, RolloutSpec
from capacity.tasks.abacus import AbacusTask
from capacity_cli.app import app
from capacity_cli.evaluate import through_engine

ADAPTER = TinyLora(u=1, groups=3, rank=4, projection_seed=0)
SPEC = EvaluationSpec(split="test", items=6, temperature=0.0, max_new_tokens=16)


@pytest.fixture
def adapted(smallest: Any) -> AdaptedModel:
    return attach(smallest, ADAPTER, None)


@pytest.fixture
def folders(adapted: AdaptedModel, tmp_path: Path) -> dict[str, Path]:
    writer = LoraWriter(adapted, tmp_path, "fp32", "abacus-0.2m")
    found = {}
    for index, sign in enumerate((1.0, -1.0, 2.0)):
        adapted.set_vector(torch.full((3,), sign))
        found[f"adapter-{index}"] = writer.write(f"adapter-{index}")[0]
    adapted.set_vector(torch.zeros(3))
    return found


class Confused(PlainEngine):
    """Rows without an adapter get the output of the one loaded last, as vLLM's do where slots are short."""

    def score(self, sequences: Sequence[tuple[Sequence[int], str | None]]) -> list[list[float]]:
        last = next(reversed(self.adapters), None)
        return super().score([(ids, name or last) for ids, name in sequences])


def test_adapters_and_base_are_evaluated_together_as_they_would_be_alone(
    adapted: AdaptedModel, loaded_smallest: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "AT_ONCE", 2)  # three adapters take two passes
    engine = PlainEngine(loaded_smallest[0], loaded_smallest[1].pad_token_id)
    found = evaluate_several(engine, adapted.bare, loaded_smallest[1], AbacusTask(), SPEC, folders)
    assert list(found.adapters) == list(folders)
    answered = {None: found.base, **found.adapters}
    for name, sign in ((None, 0.0), ("adapter-0", 1.0), ("adapter-1", -1.0), ("adapter-2", 2.0)):
        adapted.set_vector(torch.full((3,), sign))
        alone = evaluate(adapted.model, loaded_smallest[1], AbacusTask(), SPEC)
        own = answered[name]
        assert own is not None
        assert (own.outcomes, own.n_unfinished) == (alone.outcomes, alone.n_unfinished)
    assert engine.adapters == {}


def test_backwards_the_rows_come_in_the_opposite_order_with_the_same_answers(
    adapted: AdaptedModel, loaded_smallest: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "AT_ONCE", 2)
    order: list[str | None] = []

    class Recording(PlainEngine):
        def generate(self, requests: Any, **options: Any) -> Any:
            order.extend(dict.fromkeys(request.adapter for request in requests))
            return super().generate(requests, **options)

    engine = Recording(loaded_smallest[0], loaded_smallest[1].pad_token_id)
    forwards, backwards = (
        evaluate_several(engine, adapted.bare, loaded_smallest[1], AbacusTask(), SPEC, folders, backwards=way)
        for way in (False, True)
    )
    assert order == [None, *folders, *reversed(folders), None]
    assert backwards == forwards


def test_the_base_alone_is_evaluated(loaded_smallest: Any) -> None:
    model, tokenizer = loaded_smallest
    found = evaluate_several(PlainEngine(model, tokenizer.pad_token_id), model, tokenizer, AbacusTask(), SPEC, {})
    assert (found.adapters, found.zero) == ({}, None)
    assert found.base is not None
    assert found.base.outcomes == evaluate(model, tokenizer, AbacusTask(), SPEC).outcomes


def test_base_rows_that_get_an_adapter_s_output_end_the_evaluation(
    adapted: AdaptedModel, loaded_smallest: Any, folders: dict[str, Path]
) -> None:
    engine = Confused(loaded_smallest[0], loaded_smallest[1].pad_token_id)
    with pytest.raises(EngineError, match=r"rows without an adapter the output of adapter adapter-2.*--max-loras"):
        evaluate_several(engine, adapted.bare, loaded_smallest[1], AbacusTask(), SPEC, folders)


def test_base_rows_that_are_the_base_s_pass(loaded_smallest: Any, folders: dict[str, Path]) -> None:
    engine = PlainEngine(loaded_smallest[0], loaded_smallest[1].pad_token_id)
    probe = [[5, 6, 7, 8]]
    alone = engine.score([(probe[0], None)])[0]
    for name, folder in folders.items():
        engine.load(name, folder)
    check_base_rows(engine, probe, alone, {name: name for name in folders})


def test_the_split_of_a_device() -> None:
    shape = ALIASES["qwen2.5-7b"].shape
    trainer = memory_plan(
        shape, trained=13, sequences=0, micro_batch=1, prompt_tokens=1024, new_tokens=3072, dtype="bf16"
    )
    plan = shared_plan(shape, trainer, dtype="bf16", rank=2, new_tokens=2047)
    assert plan.engine_weights == 2 * shape.parameters
    # 28 layers × 4 heads × 128 × 2 (keys and values) × 2 bytes = 57,344 bytes a token.
    assert plan.engine_cache == cache_bytes(shape, "bf16", 4096) == 64 * 4096 * 57_344
    # Three slots (two adapters and the spare) at vLLM's rank 8.
    assert plan.engine_slots == 3 * 8 * 2 * sum(m.d + m.k for m in shape.linears)
    assert plan.peak == max(plan.engine + plan.trainer_resident, plan.trainer_step)
    awake = shared_plan(shape, trainer, dtype="bf16", rank=None, new_tokens=2047, sleeps=False)
    assert awake.engine_slots == 0
    assert awake.peak == awake.engine + max(awake.trainer_resident, awake.trainer_step)


def test_plan_shows_the_split() -> None:
    arguments = ["plan", "--model", "qwen2.5-7b?dtype=bf16", "--budget", "13", "--rollouts", "vllm"]
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["shared_memory"]
    assert found["peak"] >= found["engine"] > found["engine_weights"]
    shown = CliRunner().invoke(app, arguments).stdout
    assert "engine weights 15.2 GB" in shown
    assert "shared_memory" not in json.loads(CliRunner().invoke(app, ["plan", "--json"]).stdout)


@pytest.mark.parametrize("model", ["abacus-0.2m", "qwen2.5-7b"])
def test_an_engine_is_started_with_the_memory_that_plan_names(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(start, "LocalEngine", lambda _, **options: given.update(options))
    monkeypatch.setattr(start, "model_folder", lambda name: name)
    arguments = ["plan", "--model", model, "--budget", "13", "--rollouts", "vllm", "--json"]
    plan = json.loads(CliRunner().invoke(app, arguments).stdout)
    dtype, new_tokens = plan["weights_dtype"], plan["training_memory"]["new_tokens"]
    start.open_local(model, "cuda", dtype, rank=plan["rank"], adapters=ADAPTERS_OF_A_RUN, new_tokens=new_tokens)
    assert given["cache_bytes"] == plan["shared_memory"]["engine_cache"]
    assert given["context"] == {"abacus-0.2m": 64, "qwen2.5-7b": 2048 + 512 + 1}[model]


def test_plan_refuses_an_engine_that_cannot_hold_the_base() -> None:
    found = CliRunner().invoke(app, ["plan", "--model", "qwen2.5-7b?quantised=nf4", "--rollouts", "vllm"])
    assert isinstance(found.exception, SpecError)
    assert "would sample from another base" in str(found.exception)


def test_several_adapters_need_the_engine() -> None:
    with pytest.raises(SpecError, match="several adapters at once need --rollouts vllm"):
        through_engine("auto", [Path("a"), Path("b")])
    assert through_engine("vllm", [Path("a")])
    assert not through_engine("auto", [Path("a")])
    with pytest.raises(SpecError, match="--code-length is measured by transformers"):
        through_engine("vllm", [Path("a")], code_length=True)


def test_a_study_says_what_samples(tmp_path: Path) -> None:
    grid = 'models = ["abacus-0.9m"]\nmethods = ["grpo"]\nsizes = [{ adapter = "full" }]\nrates = 0.01\n'
    plain, merged = tmp_path / "plain.toml", tmp_path / "merged.toml"
    plain.write_text(f'name = "s"\n[[grids]]\n{grid}')
    merged.write_text(f'name = "s"\n[rollouts]\ncorrection = "sequence-mask"\n[[grids]]\n{grid}')
    assert all(spec.rollouts is None for spec in result_specs(read_study_file(plain), {}))
    found = {spec.method: spec.rollouts for spec in result_specs(read_study_file(merged), {})}
    assert found["base"] == RolloutSpec(correction="sequence-mask")
    assert found["grpo"] == RolloutSpec(correction="sequence-mask", sync="merged")  # a full update is no adapter


def test_compare_plans_runs_through_an_engine() -> None:
    def planned(*more: str) -> list[dict[str, Any]]:
        arguments = ["compare", "--dry-run", "--json", "--seeds", "1", "--methods", "grpo", *more]
        runs: list[dict[str, Any]] = json.loads(CliRunner().invoke(app, arguments).stdout)["runs"]
        return runs

    through, plain = planned("--rollouts", "vllm"), planned()
    assert all(run["spec"]["rollouts"]["engine"] == "vllm" for run in through)
    assert all("rollouts" not in run["spec"] for run in plain)
    assert not {run["id"] for run in through} & {run["id"] for run in plain}


def test_compare_without_vllm_says_so_before_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vLLM is installed here")
    monkeypatch.delenv(SERVER, raising=False)
    arguments = ["compare", "--seeds", "1", "--rollouts", "vllm", "--out", str(tmp_path / "s")]
    found = CliRunner().invoke(app, arguments)
    assert isinstance(found.exception, CapacityError)
    assert "vLLM is not installed here: pip install" in str(found.exception)
    assert not list((tmp_path / "s" / "runs").glob("*"))
    assert not list((tmp_path / "s" / "failed").glob("*"))
