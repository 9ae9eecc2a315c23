"""Steering vectors: counts, start, switch, artifact, training, evaluation, and what they cannot be."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import CONFIGS, IDS, MASK, logits, tiny
from pydantic import ValidationError
from sizes import chosen, within
from small import SMALLEST, TASK, small_spec
from torch import nn

import capacity
from capacity.adapters.attach import attach
from capacity.adapters.files import artifact
from capacity.adapters.files.merge import MergeTally, merge, merged_weights
from capacity.adapters.files.peft_folder import save_peft_lora
from capacity.adapters.model import AdaptedModel
from capacity.adapters.open import open_native
from capacity.errors import BudgetError, DataError, SpecError
from capacity.plan.grid import grid_points
from capacity.plan.kinds.steering import steered_blocks
from capacity.plan.models import ALIASES
from capacity.plan.sampling import rollout_spec, with_rollouts
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.specs import trained_spec
from capacity.plan.study_file import read_study_file
from capacity.sampling.vllm.folders import peft_folders
from capacity.spec.adapters import Steering
from capacity.spec.methods import METHODS, Method
from capacity.spec.parts import RolloutSpec
from capacity.spec.run import RunSpec
from capacity.training.run import execute
from capacity_cli.app import app

EVERY_BLOCK = Steering()
MODEL = "abacus-0.9m"  # four blocks, 128 wide


def steered(base: Any, adapter: Steering = EVERY_BLOCK, scale: float = 0.3) -> AdaptedModel:
    """A copy of `base` with vectors that are far from zero."""
    adapted = attach(copy.deepcopy(base), adapter, None)
    generator = torch.Generator().manual_seed(2)
    adapted.set_vector(scale * torch.randn(adapted.trained_parameters, generator=generator))
    return adapted


@pytest.fixture(scope="module", params=CONFIGS)
def base(request: Any) -> Any:
    return tiny(request.param)


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("llama")


# Planning


@pytest.mark.parametrize(
    ("blocks", "spec", "count"),
    [
        (None, Steering(), 512),
        ((0, 3), Steering(blocks=(0, 3)), 256),
        ((3, 0), Steering(blocks=(0, 3)), 256),
        ("2", Steering(blocks=(2,)), 128),
        ((0, 1, 2, 3), Steering(), 512),
    ],
)
def test_a_vector_of_the_models_width_for_each_chosen_block(blocks: Any, spec: Steering, count: int) -> None:
    size = chosen(MODEL, "steering", blocks=blocks)
    assert (size.adapter(7), size.trained_parameters, size.modules) == (spec, count, ())


@pytest.mark.parametrize(
    ("budget", "blocks"), [("128", (2,)), ("300", (1, 3)), ("512B", (1, 3)), ("511", (0, 2, 3)), ("512", None)]
)
def test_a_budget_takes_blocks_spread_over_the_depth(budget: str, blocks: Any) -> None:
    size = within(MODEL, budget, adapter="steering")
    assert size.adapter(0) == Steering(blocks=blocks)
    assert size.trained_parameters == 128 * (4 if blocks is None else len(blocks))


@pytest.mark.parametrize("model", ["abacus-0.9m", "qwen2.5-3b", "llama-3.1-8b"])
def test_every_number_of_blocks_has_distinct_blocks_and_the_largest_that_fits_is_taken(model: str) -> None:
    shape = ALIASES[model].shape
    for count in range(1, shape.layers + 1):
        for limit in (count * shape.hidden, (count + 1) * shape.hidden - 1):
            size = within(model, str(limit), adapter="steering")
            assert size.trained_parameters == count * shape.hidden


def test_a_budget_below_one_vector_names_the_smallest_size() -> None:
    with pytest.raises(BudgetError, match="too small for adapter steering, which starts at 128 on this model"):
        within(MODEL, "127", adapter="steering")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (4,)}, "block 4 is outside 0 … 3, the blocks of this model"),
        ({"blocks": (-1,)}, "block -1 is outside 0 … 3"),
        ({"blocks": (1, 1)}, "name one or more, each once"),
        ({"blocks": ()}, "name one or more, each once"),
        ({"blocks": "0,x"}, "--blocks '0,x' cannot be read: write numbers by comma, such as 0,3"),
        ({"rank": 2}, "adapter steering takes no --rank: it takes --blocks"),
        ({"blocks": (1,), "budget": 512}, "give --budget, or --blocks, not both"),
    ],
)
def test_choices_that_cannot_be_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        chosen(MODEL, "steering", **options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_adapters_take_no_blocks() -> None:
    with pytest.raises(SpecError, match="adapter lora takes no --blocks: it takes --rank, --targets"):
        chosen(MODEL, "lora", blocks=(0,))


def test_a_spec_has_its_blocks_in_one_order() -> None:
    for blocks in ([3, 0], [1, 1], []):
        with pytest.raises(ValidationError):
            Steering.model_validate({"blocks": blocks})


def test_study_files_and_the_command_line_name_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        'name = "steering"\n[[grids]]\nmodels = ["abacus"]\nmethods = ["grpo"]\nrates = 0.01\n'
        'sizes = [{ adapter = "steering" }, { adapter = "steering", blocks = [0, 3] }]\n'
    )
    assert [cell.size.adapter(0) for cell in grid_points(read_study_file(path))] == [
        Steering(),
        Steering(blocks=(0, 3)),
    ]
    app(["plan", "--model", MODEL, "--adapter", "steering", "--blocks", "0,3", "--json"], standalone_mode=False)
    plan = json.loads(capsys.readouterr().out)
    assert (plan["adapter"], plan["blocks"], plan["trained_parameters"]) == ("steering", "0, 3", 256)
    assert plan["update_bytes"]["bf16"] == 512


# On a model


@pytest.mark.parametrize("blocks", [None, (1,)])
def test_untrained_vectors_equal_the_base_bit_for_bit(base: Any, blocks: Any) -> None:
    adapted = attach(copy.deepcopy(base), Steering(blocks=blocks), None)
    assert torch.equal(logits(adapted.model), logits(base))
    width = base.config.hidden_size
    (theta,) = adapted.trained.values()
    assert (theta.dtype, tuple(theta.shape)) == (torch.float32, (2 if blocks is None else 1, width))
    assert adapted.trained_parameters == theta.numel()


def test_vectors_are_added_to_the_residual_stream_after_their_blocks(base: Any) -> None:
    """By hand: the vector of the first block in front of the second block, that of the last in front of the norm."""
    adapted = steered(base)
    first, last = adapted.vector().view(2, -1)
    by_hand = copy.deepcopy(base)
    inner = by_hand.base_model
    blocks = inner.h if hasattr(inner, "h") else inner.layers
    norm = next(m for n, m in inner.named_children() if n in ("norm", "ln_f", "final_layernorm"))
    blocks[1].register_forward_pre_hook(lambda _, args: (args[0] + first, *args[1:]))
    norm.register_forward_pre_hook(lambda _, args: (args[0] + last, *args[1:]))
    expected = logits(by_hand)
    assert float((expected - logits(base)).abs().max()) > 1e-2
    torch.testing.assert_close(logits(adapted.model), expected, atol=1e-6, rtol=1e-6)


def test_only_the_chosen_blocks_are_steered(llama: Any) -> None:
    both = steered(llama)
    vector = both.vector().view(2, -1)
    vector[0] = 0
    both.set_vector(vector.flatten())
    one = attach(copy.deepcopy(llama), Steering(blocks=(1,)), None)
    one.set_vector(vector[1])
    assert torch.equal(logits(one.model), logits(both.model))


def test_switched_off_is_the_base_and_back_on_is_the_update(base: Any) -> None:
    adapted = steered(base)
    on = logits(adapted.model)
    with adapted.switched_off() as off:
        assert torch.equal(logits(off), logits(base))
    assert torch.equal(logits(adapted.model), on)
    assert not torch.equal(on, logits(base))


def test_detached_is_the_base_again(base: Any) -> None:
    bare = steered(base).detach()
    assert torch.equal(logits(bare), logits(base))
    assert list(bare.state_dict()) == list(base.state_dict())


def test_training_reaches_the_vectors_alone(base: Any) -> None:
    adapted = steered(base)
    adapted.model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss.backward()
    reached = {name for name, p in adapted.model.named_parameters() if p.grad is not None}
    assert reached == set(adapted.trained) == {"steering.theta"}
    theta = adapted.trained["steering.theta"]
    assert theta.grad is not None
    assert bool(theta.grad.any(dim=1).all())


def test_half_precision_bases_keep_fp32_vectors() -> None:
    base = tiny("llama", torch.bfloat16)
    adapted = attach(copy.deepcopy(base), Steering(), None)
    assert torch.equal(logits(adapted.model), logits(base))
    assert {p.dtype for p in adapted.trained.values()} == {torch.float32}
    assert not torch.equal(logits(steered(base).model), logits(base))


def test_deep_copies_follow_their_own_vectors(llama: Any) -> None:
    adapted = steered(llama)
    copied = copy.deepcopy(adapted)
    assert torch.equal(logits(copied.model), logits(adapted.model))
    copied.set_vector(torch.zeros(copied.trained_parameters))
    assert torch.equal(logits(copied.model), logits(llama))
    with copied.switched_off():
        assert not torch.equal(logits(adapted.model), logits(llama))


def test_pickled_they_compute_the_same(llama: Any) -> None:
    adapted = steered(llama)
    copied = pickle.loads(pickle.dumps(adapted))
    assert torch.equal(logits(copied.model), logits(adapted.model))
    with copied.switched_off():
        assert torch.equal(logits(copied.model), logits(llama))


def test_a_model_without_a_list_of_blocks_is_refused() -> None:
    with pytest.raises(SpecError, match="needs the list of a model's blocks, and Linear has none"):
        attach(nn.Linear(3, 3), Steering(), None)
    with pytest.raises(SpecError, match="block 2 is outside 0 … 1"):
        attach(tiny("llama"), Steering(blocks=(2,)), None)
    assert steered_blocks(None, 3) == (0, 1, 2)


# The artifact


def test_the_artifact_rebuilds_the_update(base: Any) -> None:
    adapted = steered(base, Steering(blocks=(1,)))
    payload = artifact.store(adapted, "bf16")
    data = artifact.pack(adapted, payload, model="m", base=artifact.base_fingerprint(base), dtype="bf16")
    read = artifact.read(data, "update")
    assert read.recipe.adapter == Steering(blocks=(1,))
    rebuilt = artifact.rebuild(read, copy.deepcopy(base), None)
    assert torch.equal(rebuilt.vector(), adapted.vector())
    assert torch.equal(logits(rebuilt.model), logits(adapted.model))


def test_the_artifact_refuses_another_base_and_another_update(llama: Any) -> None:
    adapted = steered(llama)
    payload, base = artifact.store(adapted, "fp32"), artifact.base_fingerprint(llama)
    data = artifact.pack(adapted, payload, model="m", base=base, dtype="fp32")
    with pytest.raises(DataError, match="made on another base"):
        artifact.rebuild(artifact.read(data, "update"), tiny("qwen2"), None)
    adapted.set_vector(adapted.vector() * 1.01)
    other = artifact.pack(adapted, payload, model="m", base=base, dtype="fp32")
    with pytest.raises(DataError, match="ΔW differ from those of the artifact by about"):
        artifact.rebuild(artifact.read(other, "update"), copy.deepcopy(llama), None)


# Runs


def run_spec(method: Method, **options: Any) -> RunSpec:
    """A run of the smallest model, two steps."""
    size = chosen(SMALLEST, "steering", **options)
    whole = trained_spec(SMALLEST, TASK, method, size, 0, "bf16", rates=dict.fromkeys(METHODS, 0.05))
    return small_spec(method, model=SMALLEST).model_copy(update={"adapter": whole.adapter})


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_run_trains_stores_and_evaluates_them_and_is_reproducible(method: Method, tmp_path: Path) -> None:
    spec = run_spec(method, blocks=(1, 2))
    assert spec.label == f"{method} steering 1,2 seed 0"
    record = execute(spec, "cpu")
    assert record.result.trained_parameters == 2 * ALIASES[SMALLEST].shape.hidden
    assert record.result.update_bytes == 2 * record.result.trained_parameters
    assert record.result.update_square_sum is not None
    assert record.result.update_square_sum > 0
    assert record.artifact is not None
    again = execute(spec, "cpu")
    assert again.artifact == record.artifact
    (tmp_path / "update.safetensors").write_bytes(record.artifact)
    opened = open_native(tmp_path, None, "cpu")
    assert opened.adapted is not None
    assert bool(opened.adapted.vector().any())


# What they cannot be


@pytest.mark.parametrize("form", ["peft", "merged"])
def test_export_says_in_one_line_that_there_is_no_such_form(form: str, tmp_path: Path) -> None:
    record = execute(run_spec("sft"), "cpu")
    assert record.artifact is not None
    (tmp_path / "update.safetensors").write_bytes(record.artifact)
    out = tmp_path / "out"
    with pytest.raises(SpecError) as refused:
        capacity.export(tmp_path / "update.safetensors", form, out=out)
    assert "can be neither exported as a LoRA adapter nor merged" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not out.exists()
    with pytest.raises(SpecError, match="an update of kind steering is no LoRA adapter: vLLM cannot load it"):
        peft_folders(None, [tmp_path], tmp_path, "cpu")


def test_no_form_of_weights_leaves_the_vectors_out_in_silence(llama: Any, tmp_path: Path) -> None:
    adapted = steered(llama)
    for attempt in (
        lambda: save_peft_lora(adapted, tmp_path, "fp32", "base"),
        lambda: merge(adapted, "fp32"),
        lambda: list(merged_weights(adapted, "fp32", MergeTally())),
    ):
        with pytest.raises(SpecError, match="changes hidden states, no weights"):
            attempt()


@pytest.mark.parametrize("sync", ["hot-swap", "merged"])
def test_rollouts_of_another_engine_are_refused_in_one_line(sync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, rollouts = run_spec("grpo"), RolloutSpec(sync=sync)
    with pytest.raises(SpecError, match="changes hidden states, and vLLM takes LoRA adapters and weights only"):
        with_rollouts(spec, rollouts)
    with pytest.raises(ValidationError, match="changes hidden states: no engine can follow it"):
        RunSpec.model_validate({**spec.model_dump(), "rollouts": rollouts.model_dump()})
    large = ALIASES["qwen2.5-3b"].shape
    monkeypatch.setenv("CAPACITY_VLLM_URL", "http://localhost:1")
    assert rollout_spec("auto", "qwen2.5-3b", large, "cuda", Steering()) is None
    with pytest.raises(SpecError, match="use --rollouts transformers"):
        rollout_spec("vllm", "qwen2.5-3b", large, "cuda", Steering())


def test_size_of_reads_the_width_of_any_model() -> None:
    size = size_of("llama-3.1-8b", SizeChoice(adapter="steering"), "bf16")
    assert size.trained_parameters == 32 * 4096
