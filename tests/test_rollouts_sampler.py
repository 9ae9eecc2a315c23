"""A sampler that follows the trainer, on an engine that computes with transformers."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import PlainEngine
from small import SMALLEST, small_spec

from capacity.adapters.attach import attach
from capacity.adapters.files.merge import MergeTally, bare_parameters, base_weights, merged_weights
from capacity.adapters.model import AdaptedModel
from capacity.errors import EngineError, SpecError, TrainingError
from capacity.forward.model import padded_logits
from capacity.plan.engine_memory import engine_rank, slots
from capacity.plan.sampling import parse_choice, rollout_spec, with_rollouts
from capacity.sampling.own_model import TransformersSampler
from capacity.sampling.prompts import prompt_ids
from capacity.sampling.vllm import start
from capacity.sampling.vllm.engine import check_version
from capacity.sampling.vllm.follower import EngineSampler
from capacity.spec.adapters import (
    Adapter,
    BitFit,
    FullUpdate,
    Lora,
    LoraXs,
    NoAdapter,
    ProjectionChoice,
    TinyLora,
    Vera,
)
from capacity.spec.parts import RolloutSpec
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import open_task, parse_task
from capacity.training.run import execute

ADAPTER = TinyLora(u=2, groups=7, rank=8, projection_seed=0)
ITEMS = open_task(parse_task("abacus")).items("train")[:6]


def make(
    model: Any, tokenizer: Any, folder: Path, *, spec: RolloutSpec | None = None, skip: int | None = None,
    adapter: Adapter = ADAPTER, dtype: str = "fp32",
) -> tuple[AdaptedModel, PlainEngine, EngineSampler]:  # fmt: skip
    engine = PlainEngine(model, tokenizer.pad_token_id, skip)
    adapted = attach(model, adapter, None)
    adapted.model.eval()
    spec = spec or RolloutSpec()
    return adapted, engine, EngineSampler(adapted, tokenizer, engine, spec, dtype=dtype, folder=folder, base=SMALLEST)


def moved(adapted: AdaptedModel, seed: int, size: float = 0.2) -> None:
    noise = torch.randn(adapted.vector().shape, generator=torch.Generator().manual_seed(seed))
    adapted.set_vector(adapted.vector() + size * noise)


def test_runs_on_one_server_have_names_of_their_own(
    smallest: Any, tokenizer: Any, tmp_path: Path, prompts: list[list[int]]
) -> None:
    """Each run loads its update under a name; with the same one, a server would give one run the other's answers."""
    bare = copy.deepcopy(smallest)
    first, engine, one = make(smallest, tokenizer, tmp_path)
    second = attach(bare, ADAPTER, None)
    second.model.eval()
    (tmp_path / "other").mkdir()
    other = EngineSampler(
        second, tokenizer, engine, RolloutSpec(), dtype="fp32", folder=tmp_path / "other", base=SMALLEST
    )
    moved(first, 0)
    moved(second, 1)
    how: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 12}
    one.follow(prompts, "run 1")
    alone = one.sample(prompts, np.random.default_rng(0), **how)
    other.follow(prompts, "run 2")
    assert len(engine.adapters) == 2
    assert torch.equal(one.sample(prompts, np.random.default_rng(0), **how).completion_ids, alone.completion_ids)


@pytest.mark.parametrize("adapter", [ADAPTER, NoAdapter()])
def test_an_engine_with_another_model_is_refused(
    smallest: Any, tokenizer: Any, tmp_path: Path, prompts: list[list[int]], adapter: Adapter
) -> None:
    """The untrained model of a server that was started with another one answers for it otherwise."""
    _, engine, sampler = make(smallest, tokenizer, tmp_path, adapter=adapter)
    with torch.no_grad():
        for weight in engine.model.parameters():
            weight.mul_(1.3)
    with pytest.raises(EngineError, match=r"the sampler holds another model than abacus-0.2m: .* nats a token: start"):
        sampler.follow(prompts, "base")


@pytest.fixture
def prompts(tokenizer: Any) -> list[list[int]]:
    return [prompt_ids(tokenizer, item) for item in ITEMS]


@pytest.mark.parametrize("sync", ["hot-swap", "merged"])
def test_every_step_is_followed_and_proven(
    smallest: Any, tokenizer: Any, prompts: list[list[int]], tmp_path: Path, sync: Any
) -> None:
    adapted, engine, sampler = make(smallest, tokenizer, tmp_path, spec=RolloutSpec(sync=sync))
    verdicts = []
    for step in range(4):
        row = sampler.follow(prompts, f"step {step}")
        verdicts.append(row["freshness"])
        rollout = sampler.sample(prompts, np.random.default_rng(step), temperature=1.0, max_new_tokens=16)
        mask = rollout.completion_mask.bool()
        with torch.no_grad():
            logits = padded_logits(adapted.model, rollout)
        expected = logits.log_softmax(-1).gather(-1, rollout.completion_ids[..., None])[..., 0]
        assert rollout.sampler_logprobs[mask].numpy() == pytest.approx(expected[mask].numpy(), abs=1e-4)
        assert not rollout.sampler_logprobs[~mask].any()
        moved(adapted, step)
    # At the start the update is zero, so nobody could tell whether it has arrived.
    assert verdicts == ["unprovable", "fresh", "fresh", "fresh"]
    assert len(engine.adapters) == (1 if sync == "hot-swap" else 0)
    assert engine.rests == 4


@pytest.mark.parametrize("sync", ["hot-swap", "merged"])
def test_a_swap_skipped_at_step_7_stops_the_run_there(
    smallest: Any, tokenizer: Any, prompts: list[list[int]], tmp_path: Path, sync: Any
) -> None:
    adapted, _, sampler = make(smallest, tokenizer, tmp_path, spec=RolloutSpec(sync=sync), skip=7)
    for step in range(7):
        sampler.follow(prompts, f"step {step}")
        moved(adapted, step, 0.05)
    with pytest.raises(TrainingError, match=r"step 7: the sampler has not received the update.*the step before"):
        sampler.follow(prompts, "step 7")


def test_an_update_that_never_arrives_is_the_base(
    smallest: Any, tokenizer: Any, prompts: list[list[int]], tmp_path: Path
) -> None:
    adapted, engine, sampler = make(smallest, tokenizer, tmp_path)
    moved(adapted, 0)
    engine.last = {}
    engine.skip = 0
    with pytest.raises(TrainingError, match=r"step 3: .*still the untrained model's"):
        sampler.follow(prompts, "step 3")


def test_an_unchanged_update_is_not_sent_again(
    smallest: Any, tokenizer: Any, prompts: list[list[int]], tmp_path: Path
) -> None:
    adapted, engine, sampler = make(smallest, tokenizer, tmp_path)
    moved(adapted, 0)
    assert sampler.follow(prompts, "step 0") == sampler.follow(prompts, "step 1")
    assert engine.loads == 1


@pytest.mark.parametrize("sync", ["hot-swap", "merged"])
def test_the_base_can_be_sampled_at_any_time(
    smallest: Any, tokenizer: Any, prompts: list[list[int]], tmp_path: Path, sync: Any
) -> None:
    adapted, _, sampler = make(smallest, tokenizer, tmp_path, spec=RolloutSpec(sync=sync))

    def drawn(base: bool) -> Any:
        return sampler.sample(prompts, np.random.default_rng(5), temperature=0.0, max_new_tokens=16, base=base)

    before = drawn(True)
    moved(adapted, 0, 0.5)
    sampler.follow(prompts, "step 0")
    assert not torch.equal(drawn(False).completion_ids, before.completion_ids)
    assert torch.equal(drawn(True).completion_ids, before.completion_ids)
    sampler.follow(prompts, "step 1")  # a base that was pushed over the update is noticed
    assert not torch.equal(drawn(False).completion_ids, before.completion_ids)
    assert not before.sampler_logprobs.any()  # greedy


@pytest.mark.parametrize(
    "adapter", [LoraXs(rank=2), Lora(rank=3, init_seed=0), Vera(rank=4, projection_seed=0)], ids=lambda a: a.kind
)
def test_other_low_rank_adapters_are_swapped_too(
    smallest: Any, tokenizer: Any, prompts: list[list[int]], tmp_path: Path, adapter: Adapter
) -> None:
    adapted, _, sampler = make(smallest, tokenizer, tmp_path, adapter=adapter)
    moved(adapted, 1, 0.1)
    assert sampler.follow(prompts, "step 0")["freshness"] == "fresh"


@pytest.mark.parametrize("adapter", [FullUpdate(), BitFit()], ids=lambda a: a.kind)
def test_whole_updates_are_merged(
    smallest: Any, tokenizer: Any, prompts: list[list[int]], tmp_path: Path, adapter: Adapter
) -> None:
    adapted, _, sampler = make(smallest, tokenizer, tmp_path, adapter=adapter, spec=RolloutSpec(sync="merged"))
    moved(adapted, 1, 0.02)
    row = sampler.follow(prompts, "step 0")
    assert row["freshness"] == "fresh"
    assert row["realised_cosine"] == pytest.approx(1)


def test_merging_a_tiny_update_into_bf16_loses_it_and_says_so(smallest: Any, tokenizer: Any) -> None:
    adapted = attach(smallest.bfloat16().float(), ADAPTER, None)
    cosines = {}
    for size in (1e-4, 1.0):
        adapted.set_vector(torch.full(adapted.vector().shape, size))
        for dtype in ("bf16", "fp32"):
            tally = MergeTally()
            weights = dict(merged_weights(adapted, dtype, tally))
            cosines[size, dtype] = tally.cosine
            assert tally.bytes == sum(t.numel() * t.element_size() for t in weights.values())
    assert cosines[1e-4, "fp32"] == pytest.approx(1, abs=1e-3)
    assert cosines[1e-4, "bf16"] < 0.5  # type: ignore[operator]
    assert cosines[1.0, "bf16"] > 0.99  # type: ignore[operator]


def test_weights_are_named_as_in_the_checkpoint(loaded_smallest: Any, smallest: Any) -> None:
    adapted = attach(smallest, ADAPTER, None)
    expected = dict(loaded_smallest[0].named_parameters())
    assert {name for name, _ in bare_parameters(adapted.bare)} == set(expected)
    assert all(torch.equal(expected[name], tensor) for name, tensor in base_weights(adapted, "fp32"))


@pytest.mark.parametrize("choice", [None, ProjectionChoice(bits=4, batches=1)])
def test_a_run_through_an_engine(
    loaded_smallest: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, choice: ProjectionChoice | None
) -> None:
    """The whole of `execute`: training, metrics, evaluation; and the same arm by transformers stays as it is.

    With a chosen projection the engine samples from the same P that trains, which its KL from the sampler shows.
    """
    engine = PlainEngine(loaded_smallest[0], tokenizer.pad_token_id)
    monkeypatch.setattr(start, "_engine", lambda *_: engine)
    plain = small_spec("grpo", model=SMALLEST)
    plain = plain.model_copy(update={"adapter": ADAPTER.model_copy(update={"choice": choice})})
    spec = with_rollouts(plain, RolloutSpec())
    record = execute(spec, "cpu")
    assert [step.freshness for step in record.steps] == ["unprovable", "fresh"]
    assert all(step.sync_bytes > 0 and step.kl_to_sampler_bits < 1e-6 for step in record.steps)
    assert all(step.importance_share == pytest.approx(1) for step in record.steps)
    assert record.result.n_items == 16
    assert engine.closed
    again = execute(plain, "cpu")
    chosen, expected = record.result.choice, again.result.choice
    assert (chosen is None) == (expected is None) == (choice is None)
    if chosen is not None and expected is not None:  # importance weights of nearly 1 change the last digits of energies
        assert (chosen.candidates, chosen.cost) == (expected.candidates, expected.cost)
    assert not {"freshness", "sync_bytes", "importance_share"} & again.steps[0].model_fields_set


@pytest.mark.parametrize("method", ["rft", "rft-online"])
def test_rft_through_an_engine(
    loaded_smallest: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    engine = PlainEngine(loaded_smallest[0], tokenizer.pad_token_id)
    monkeypatch.setattr(start, "_engine", lambda *_: engine)
    record = execute(with_rollouts(small_spec(method, model=SMALLEST), RolloutSpec()), "cpu")
    # The base's own samples need no update; the evaluation does, and so do samples of the current policy.
    assert engine.loads == (1 if method == "rft" else 3)
    assert ("freshness" in record.steps[0].model_fields_set) == (method == "rft-online")


def test_the_transformers_sampler_can_leave_the_update_out(
    smallest: Any, tokenizer: Any, prompts: list[list[int]]
) -> None:
    adapted = attach(smallest, ADAPTER, None)
    moved(adapted, 0, 0.5)
    sampler = TransformersSampler(adapted, tokenizer)
    on = sampler.sample(prompts, np.random.default_rng(0), temperature=1.0, max_new_tokens=16)
    off = sampler.sample(prompts, np.random.default_rng(0), temperature=1.0, max_new_tokens=16, base=True)
    with adapted.switched_off():
        expected = sampler.sample(prompts, np.random.default_rng(0), temperature=1.0, max_new_tokens=16)
    assert torch.equal(off.completion_ids, expected.completion_ids)
    assert not torch.equal(off.sampler_logprobs, on.sampler_logprobs)
    assert sampler.follow(prompts, "step 0") == {}


def test_rollouts_are_part_of_the_identity_only_if_they_are_not_the_default() -> None:
    spec = small_spec("grpo")
    assert "rollouts" not in spec.canonical_json()
    through = with_rollouts(spec, RolloutSpec())
    assert through.identity != spec.identity
    assert RunSpec.model_validate_json(through.canonical_json()) == through
    assert RunSpec.model_validate_json(spec.canonical_json()) == spec
    assert with_rollouts(small_spec("grpo", "full"), RolloutSpec()).rollouts == RolloutSpec(sync="merged")


def test_the_choice_of_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from capacity.plan.models import ALIASES

    large, tiny = ALIASES["qwen2.5-3b"].shape, ALIASES["abacus-0.9m"].shape
    monkeypatch.setenv("CAPACITY_VLLM_URL", "http://localhost:1")
    assert rollout_spec("auto", "qwen2.5-3b", large, "cuda", NoAdapter()) == RolloutSpec()
    assert rollout_spec("auto", "qwen2.5-3b", large, "cpu", NoAdapter()) is None
    assert rollout_spec("auto", "abacus-0.9m", tiny, "cuda", NoAdapter()) is None
    assert rollout_spec("auto", "qwen2.5-3b?quantised=nf4", large, "cuda", NoAdapter()) is None
    assert rollout_spec("vllm", "abacus-0.9m", tiny, "cpu", NoAdapter()) == RolloutSpec()
    with pytest.raises(SpecError, match="another base"):
        rollout_spec("vllm", "qwen2.5-3b?quantised=nf4", large, "cuda", NoAdapter())
    with pytest.raises(SpecError, match="--rollouts 'vlm'"):
        parse_choice("vlm")


def test_ranks_slots_and_versions() -> None:
    assert [engine_rank(r) for r in (1, 2, 8, 9, 300, 512)] == [1, 8, 8, 16, 320, 512]
    with pytest.raises(SpecError, match="rank 513 is above vLLM's largest, 512"):
        engine_rank(513)
    assert slots(3) == 4  # the last one is never used: it is what base rows read
    check_version("0.32.4")
    with pytest.raises(EngineError, match=r"vLLM 0\.9\.2 is not supported, 0\.32 is"):
        check_version("0.9.2")


def test_vllm_that_is_not_installed(smallest: Any) -> None:
    from importlib.util import find_spec

    if find_spec("vllm") is not None:
        pytest.skip("vLLM is installed here")
    with pytest.raises(EngineError, match="vLLM is not installed here: pip install"):
        start.open_local(SMALLEST, "cpu", "fp32", rank=2, adapters=1, new_tokens=8)
