"""The real engine in this process: tokens, log-probabilities, adapters and weights are those of transformers."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sampled import sample

from capacity.adapters.attach import attach
from capacity.adapters.model import AdaptedModel
from capacity.errors import EngineError, TrainingError
from capacity.forward.model import padded_logits
from capacity.forward.rollout import pad_left
from capacity.models.loading import embedded_folder, load
from capacity.sampling.evaluate import evaluate
from capacity.sampling.prompts import prompt_ids
from capacity.sampling.vllm.engine import Request
from capacity.sampling.vllm.follower import EngineSampler
from capacity.sampling.vllm.in_process import LocalEngine
from capacity.sampling.vllm.several import check_base_rows, evaluate_several
from capacity.sampling.vllm.sync import LoraWriter
from capacity.spec.adapters import TinyLora
from capacity.spec.parts import EvaluationSpec, RolloutSpec
from capacity.tasks.catalog import open_task, parse_task

MODEL = "abacus-0.2m"
ADAPTER = TinyLora(u=4, groups=7, rank=8, projection_seed=0)
NEW = 24
# fp32 on both sides, root mean square and largest, nats: the engine's kernels sum in another order and approximate.
RMS, LARGEST = 1e-4, 1e-3


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    torch.set_num_threads(1)
    return load(MODEL, "cpu")


@pytest.fixture(scope="module")
def prompts(parts: tuple[Any, Any]) -> list[list[int]]:
    return [prompt_ids(parts[1], item) for item in open_task(parse_task("abacus")).items("test", 30)]


@pytest.fixture(scope="class")
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine(embedded_folder(MODEL), dtype="fp32", context=64, rank=8, adapters=3, cache_bytes=64 * 1024**2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def adapted(parts: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    found = attach(parts[0], ADAPTER, None)
    found.model.eval()
    return found


@pytest.fixture
def written(adapted: AdaptedModel, tmp_path: Path) -> dict[str, tuple[Path, torch.Tensor]]:
    """Three adapters that change most answers: folder and θ by name."""
    writer = LoraWriter(adapted, tmp_path, "fp32", MODEL)
    found = {}
    for seed in range(3):
        theta = 0.3 * torch.randn(28, generator=torch.Generator().manual_seed(seed))
        adapted.set_vector(theta)
        found[f"adapter-{seed}"] = (writer.write(f"adapter-{seed}")[0], theta)
    adapted.set_vector(torch.zeros(28))
    return found


def greedy(adapted: AdaptedModel, tokenizer: Any, prompts: list[list[int]]) -> list[list[int]]:
    ids, mask = pad_left(prompts, tokenizer.pad_token_id)
    uniforms = torch.zeros(len(prompts), NEW, dtype=torch.float64)
    end = {"ends": [tokenizer.eos_token_id], "pad": tokenizer.pad_token_id}
    drawn = sample(adapted.model, ids, mask, uniforms, temperature=0.0, **end)
    return [row[kept.bool()].tolist() for row, kept in zip(drawn.completion_ids, drawn.completion_mask, strict=True)]


def answers(engine: LocalEngine, tokenizer: Any, prompts: list[list[int]], names: list[str | None]) -> list[list[int]]:
    requests = [Request(ids, 0, name) for ids, name in zip(prompts, names, strict=True)]
    drawn = engine.generate(requests, temperature=0.0, max_new_tokens=NEW, ends=[tokenizer.eos_token_id])
    return [completion.ids for completion in drawn]


class TestOneEngine:
    """vLLM keeps state of the process, so that one engine is closed before the next is started."""

    def test_several_adapters_and_base_rows_in_one_batch_answer_as_transformers_does(
        self, engine: LocalEngine, adapted: AdaptedModel, parts: tuple[Any, Any], prompts: list[list[int]], written: Any
    ) -> None:
        tokenizer = parts[1]
        expected: dict[str | None, list[list[int]]] = {None: greedy(adapted, tokenizer, prompts)}
        assert answers(engine, tokenizer, prompts, [None] * len(prompts)) == expected[None]
        for name, (folder, theta) in written.items():
            adapted.set_vector(theta)
            expected[name] = greedy(adapted, tokenizer, prompts)
            engine.load(name, folder)
            assert answers(engine, tokenizer, prompts, [name] * len(prompts)) == expected[name]
            assert sum(a != b for a, b in zip(expected[name], expected[None], strict=True)) > len(prompts) / 2
        names = [[None, *written][i % 4] for i in range(len(prompts))]
        mixed = answers(engine, tokenizer, prompts, names)
        assert mixed == [expected[name][i] for i, name in enumerate(names)]
        for name in written:
            engine.unload(name)
        assert answers(engine, tokenizer, prompts, [None] * len(prompts)) == expected[None]
        adapted.set_vector(torch.zeros(28))

    @pytest.mark.parametrize("temperature", [0.7, 1.0])
    def test_log_probabilities_are_the_trainer_s(
        self,
        engine: LocalEngine,
        adapted: AdaptedModel,
        parts: tuple[Any, Any],
        prompts: list[list[int]],
        written: Any,
        temperature: float,
    ) -> None:
        folder, theta = written["adapter-0"]
        adapted.set_vector(theta)
        engine.load("here", folder)
        requests = [Request(ids, seed, "here") for seed, ids in enumerate(prompts)]
        drawn = engine.generate(requests, temperature=temperature, max_new_tokens=NEW, ends=[parts[1].eos_token_id])
        errors = []
        with torch.no_grad():
            for ids, completion in zip(prompts, drawn, strict=True):
                tokens = torch.tensor([[*ids, *completion.ids]])
                logits = adapted.model(input_ids=tokens).logits[0, len(ids) - 1 : -1] / temperature
                own = logits.log_softmax(-1).gather(-1, tokens[0, len(ids) :, None])[:, 0]
                errors.append(own.numpy() - np.array(completion.logprobs))
        scored = engine.score([([*r.prompt, *c.ids], "here") for r, c in zip(requests, drawn, strict=True)])
        engine.unload("here")
        adapted.set_vector(torch.zeros(28))
        error = np.concatenate(errors)
        assert float(np.sqrt(np.mean(error**2))) < RMS
        assert float(np.abs(error).max()) < LARGEST
        if temperature == 1.0:
            same = [s[-len(c.ids) :] for s, c in zip(scored, drawn, strict=True)]
            assert np.concatenate(same) == pytest.approx(np.concatenate([c.logprobs for c in drawn]), abs=LARGEST)

    def test_seeds_decide_the_samples(self, engine: LocalEngine, prompts: list[list[int]]) -> None:
        def drawn(first: int) -> list[list[int]]:
            requests = [Request(prompts[0], first + i) for i in range(16)]
            return [c.ids for c in engine.generate(requests, temperature=1.0, max_new_tokens=NEW, ends=[2])]

        assert drawn(0) == drawn(0)
        assert drawn(0) != drawn(100)
        assert len({tuple(ids) for ids in drawn(0)}) > 1

    def test_many_adapters_are_evaluated_in_one_pass(
        self, engine: LocalEngine, adapted: AdaptedModel, parts: tuple[Any, Any], written: Any
    ) -> None:
        task, tokenizer = open_task(parse_task("abacus")), parts[1]
        spec = EvaluationSpec(split="test", items=40, temperature=0.0, max_new_tokens=NEW)
        folders = {name: folder for name, (folder, _) in written.items()}
        found = evaluate_several(engine, adapted.bare, tokenizer, task, spec, folders)
        assert found.base is not None
        assert found.base.outcomes == evaluate(adapted.model, tokenizer, task, spec).outcomes
        for name, (_, theta) in written.items():
            adapted.set_vector(theta)
            assert found.adapters[name].outcomes == evaluate(adapted.model, tokenizer, task, spec).outcomes
        adapted.set_vector(torch.zeros(28))

    def test_an_adapter_of_too_large_a_rank_is_refused(self, engine: LocalEngine, written: Any, tmp_path: Path) -> None:
        folder = tmp_path / "large"
        folder.mkdir()
        config = (written["adapter-0"][0] / "adapter_config.json").read_text()
        (folder / "adapter_config.json").write_text(config.replace('"r": 8', '"r": 32'))
        (folder / "adapter_model.safetensors").write_bytes(
            (written["adapter-0"][0] / "adapter_model.safetensors").read_bytes()
        )
        with pytest.raises(EngineError, match=r"vLLM refuses the adapter .*32"):
            engine.load("large", folder)


def test_an_engine_leaves_the_generators_of_its_process_alone() -> None:
    torch.manual_seed(5)
    random.seed(5)
    before = torch.random.get_rng_state(), random.getstate()
    LocalEngine(embedded_folder(MODEL), dtype="fp32", context=64, rank=None, adapters=1, cache_bytes=2**26).close()
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()


def follow_steps(sampler: EngineSampler, adapted: AdaptedModel, prompts: list[list[int]], steps: int) -> list[str]:
    """Eight steps of an update that grows, each followed; the verdicts."""
    verdicts = []
    for step in range(steps):
        adapted.set_vector(0.05 * step * torch.ones(28))
        verdicts.append(sampler.follow(prompts, f"step {step}")["freshness"])
        sampler.sample(prompts[:4], np.random.default_rng(step), temperature=1.0, max_new_tokens=NEW)
    return verdicts


class Forgetful(LocalEngine):
    """Its swap number `skipped` does nothing: the name means the update before."""

    skipped = 7

    def load(self, name: str, folder: Path) -> None:
        count = getattr(self, "count", 0)
        self.count = count + 1
        super().load(name, folder if count != self.skipped else self.before)
        self.before = folder


@pytest.mark.parametrize("kind", [LocalEngine, Forgetful])
def test_every_swap_is_proven_and_a_skipped_one_stops_the_run_at_its_step(
    adapted: AdaptedModel, parts: tuple[Any, Any], prompts: list[list[int]], tmp_path: Path, kind: type[LocalEngine]
) -> None:
    engine = kind(embedded_folder(MODEL), dtype="fp32", context=64, rank=8, adapters=2, cache_bytes=2**26)
    adapted.set_vector(torch.zeros(28))
    sampler = EngineSampler(adapted, parts[1], engine, RolloutSpec(), dtype="fp32", folder=tmp_path, base=MODEL)
    try:
        if kind is LocalEngine:
            assert follow_steps(sampler, adapted, prompts, 9) == ["unprovable", *["fresh"] * 8]
        else:
            with pytest.raises(TrainingError, match=r"step 7: the sampler has not received the update.*step before"):
                follow_steps(sampler, adapted, prompts, 9)
    finally:
        adapted.set_vector(torch.zeros(28))
        engine.close()


def test_merged_weights_arrive_too_and_the_prefix_cache_is_emptied(
    adapted: AdaptedModel, parts: tuple[Any, Any], prompts: list[list[int]], tmp_path: Path
) -> None:
    engine = LocalEngine(embedded_folder(MODEL), dtype="fp32", context=64, rank=None, adapters=1, cache_bytes=2**26)
    spec = RolloutSpec(sync="merged")
    adapted.set_vector(torch.zeros(28))
    sampler = EngineSampler(adapted, parts[1], engine, spec, dtype="fp32", folder=tmp_path, base=MODEL)
    try:
        assert follow_steps(sampler, adapted, prompts, 4) == ["unprovable", *["fresh"] * 3]
        drawn = sampler.sample(prompts, np.random.default_rng(0), temperature=1.0, max_new_tokens=NEW)
        with torch.no_grad():
            logits = padded_logits(adapted.model, drawn)
        own = logits.log_softmax(-1).gather(-1, drawn.completion_ids[..., None])[..., 0]
        mask = drawn.completion_mask.bool()
        assert own[mask].numpy() == pytest.approx(drawn.sampler_logprobs[mask].numpy(), abs=LARGEST)
    finally:
        adapted.set_vector(torch.zeros(28))
        engine.close()


def test_base_rows_with_too_few_slots_are_caught(
    adapted: AdaptedModel, prompts: list[list[int]], written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM 0.32 on CPUs: with as many slots as adapters, rows without an adapter get the last one's output."""
    monkeypatch.setattr("capacity.sampling.vllm.in_process.slots", lambda adapters: adapters)
    engine = LocalEngine(embedded_folder(MODEL), dtype="fp32", context=64, rank=8, adapters=3, cache_bytes=2**26)
    probe = prompts[:4]
    alone = [value for row in engine.score([(ids, None) for ids in probe]) for value in row]
    for name, (folder, _) in written.items():
        engine.load(name, folder)
    try:
        with pytest.raises(EngineError, match="rows without an adapter the output of adapter adapter-2"):
            check_base_rows(engine, probe, alone, {name: name for name in written})
    finally:
        engine.close()


def test_a_head_size_that_the_engine_lacks(parts: tuple[Any, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = type(parts[0].config).from_pretrained(embedded_folder(MODEL))
    config.head_dim = 16
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    parts[1].save_pretrained(tmp_path)
    with pytest.raises(EngineError, match=r"does not start on .*--rollouts transformers"):
        LocalEngine(tmp_path, dtype="fp32", context=64, rank=8, adapters=1, cache_bytes=2**26)


def test_too_little_memory_for_one_sequence() -> None:
    with pytest.raises(EngineError, match=r"does not start on .*capacity plan --rollouts vllm"):
        LocalEngine(embedded_folder(MODEL), dtype="fp32", context=64, rank=None, adapters=1, cache_bytes=2**12)
