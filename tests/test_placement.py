"""What runs on a GPU, on a device that computes on the CPU: all is made there, and the host seldom waits."""

import copy
import math
from collections import Counter
from contextlib import nullcontext
from typing import Any

import placement
import pytest
import torch
from untrained import TOKENIZER, LuckyTask, spec_of
from untrained import _model as untrained_model

from capacity.adapters.lanes import Host
from capacity.cache import cache_folder
from capacity.forward import attention
from capacity.sampling import memory_slices, own_model
from capacity.sampling.decoding.blocks import BlockDecoder
from capacity.sampling.decoding.complete import complete
from capacity.sampling.decoding.general import GeneralDecoder, HostDecoder
from capacity.sampling.evaluate import evaluate
from capacity.spec.adapters import BitFit, FullUpdate, Lora, LoraXs, Steering, TinyLora, UniLora, VbLora, Vera
from capacity.spec.methods import Method
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity.training.base import Base
from capacity.training.batch import Cost, Recorder
from capacity.training.loop import Alone, Passes, Trainee, train
from capacity.training.phases import phases
from capacity.training.together import Together

ADAPTERS: dict[str, Any] = {
    "tinylora": TinyLora(groups=5, u=2, projection_seed=3),
    "lora-xs": LoraXs(rank=3),
    "lora": Lora(rank=2, init_seed=5),
    "vera": Vera(rank=2, projection_seed=0),
    "vb-lora": VbLora(rank=2, vectors=8, vector_length=16, init_seed=0),
    "uni-lora": UniLora(rank=2, length=50, projection_seed=0),
    "steering": Steering(),
    "bitfit": BitFit(),
    "full": FullUpdate(),
}
# One method for each kind, so that all methods and all kinds go there.
METHODS: dict[str, Method] = {
    "tinylora": "grpo",
    "lora-xs": "sft",
    "lora": "rft",
    "vera": "random-reward",
    "vb-lora": "sft",
    "uni-lora": "grpo",
    "steering": "grpo",
    "bitfit": "rft-online",
    "full": "sft+grpo",
}
LONGEST = 6


@pytest.fixture(autouse=True)
def device_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((memory_slices, "free_gpu_memory"), (own_model, "gpu_memory")):
        monkeypatch.setattr(module, name, lambda device: None if device.type == "cpu" else 10**10)


def spec(kind: str, seed: int = 0) -> RunSpec:
    made = spec_of(METHODS[kind], seed=seed, prompts_per_step=2, steps=2 if kind == "full" else 1)
    evaluation = made.evaluation.model_copy(update={"items": 3, "max_new_tokens": LONGEST})
    return made.model_copy(update={"adapter": ADAPTERS[kind], "evaluation": evaluation})


def left_by(specs: list[RunSpec], on_device: bool, dtype: torch.dtype = torch.float32) -> list[Any]:
    """Trains and evaluates runs, together if there are several, and returns what they leave."""
    task = LuckyTask()
    with placement.device() if on_device else nullcontext():
        model = copy.deepcopy(untrained_model()).to(dtype)
        model = placement.moved(model) if on_device else model
        base = Base(specs[0].model, model.requires_grad_(False), TOKENIZER, None, "", None, cache_folder("factors"))
        adapted = [base.adapted(s.adapter) for s in specs]
        recorders = [Recorder([], Cost()) for _ in specs]
        trainees = [
            Trainee(phases(a, TOKENIZER, task, s, r)) for a, s, r in zip(adapted, specs, recorders, strict=True)
        ]
        passes: Passes = Alone() if len(specs) == 1 else Together(model, TOKENIZER, adapted)  # type: ignore[arg-type]
        train(trainees, passes)
        assert [t.error for t in trainees] == [None] * len(specs)
        answers = [
            evaluate(a, TOKENIZER, task, s.evaluation, run_seed=s.seed).outcomes
            for a, s in zip(adapted, specs, strict=True)
        ]
        vectors = [a.vector().tolist() for a in adapted]
    steps = [[_measured(step) for step in recorder.steps] for recorder in recorders]
    return list(zip(vectors, steps, answers, strict=True))


def _measured(step: Step) -> dict[str, float]:
    return {name: value for name, value in step.model_dump().items() if isinstance(value, float | int)}


def assert_same(specs: list[RunSpec]) -> None:
    pairs = zip(left_by(specs, on_device=True), left_by(specs, on_device=False), strict=True)
    for (vector, steps, answers), (other, expected, same) in pairs:
        assert answers == same
        assert vector == pytest.approx(other, rel=1e-4, abs=1e-7)
        for step, wanted in zip(steps, expected, strict=True):
            assert step == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_kind_and_method_computes_on_the_device_what_it_computes_elsewhere(kind: str) -> None:
    assert_same([spec(kind)])


def test_runs_together_compute_on_the_device_too() -> None:
    assert_same([spec("tinylora"), spec("lora-xs"), spec("lora")])


def test_bf16_bases_and_fused_attention_compute_on_the_device_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_HELD", 0)  # as on a GPU, where attention is always torch's
    for vector, steps, _ in left_by([spec("tinylora"), spec("lora-xs")], on_device=True, dtype=torch.bfloat16):
        assert any(vector)
        assert torch.tensor(vector).isfinite().all()
        assert all(math.isfinite(value) for step in steps for value in step.values())


def test_a_tensor_of_the_host_is_found() -> None:
    with placement.device(), pytest.raises(RuntimeError, match="a tensor of the CPU"):
        torch.arange(3, device=placement.DEVICE) + torch.arange(3)


def decoded(decoder: Any, updates: int, longest: int) -> Counter[str]:
    """What the host waits for while six sequences of each run grow by `longest` tokens, none of which ends."""
    prompts = torch.tensor([[0, 4, 5], [1, 4, 5]]).repeat_interleave(3, 0).repeat(updates, 1)
    uniforms = torch.rand(len(prompts), longest, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with placement.device() as waits:
        ids = prompts.to(placement.DEVICE)
        model = placement.moved(copy.deepcopy(untrained_model()))
        run = torch.arange(updates).repeat_interleave(6)
        complete(decoder(model), ids, (ids > 0).long(), uniforms, temperature=1.0, ends=[60], pad=0, run=run)
    return waits


# How each is made, of how many runs, and the numbers that the host waits for: how many sequences still grow, and for a
# model of transformers whether its mask hides anything.
DECODERS: dict[str, tuple[Any, int, int]] = {
    "blocks": (lambda model: BlockDecoder(model, [{}]), 1, 1),
    "blocks of two runs": (lambda model: BlockDecoder(model, [{}, {}]), 2, 1),
    "general": (GeneralDecoder, 1, 2),
    "general of two runs": (lambda model: HostDecoder(Host(model, []), [{}, {}]), 2, 2),
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_token_makes_the_host_wait_for_few_numbers(name: str) -> None:
    """Whatever else it waited for would keep a GPU idle at every token."""
    decoder, runs, numbers = DECODERS[name]
    short, long = decoded(decoder, runs, 2), decoded(decoder, runs, 2 + LONGEST)
    more = {what: long[what] - short[what] for what in long if long[what] != short[what]}
    assert more == {"number": numbers * LONGEST}
