"""Adapters on bases quantised by bitsandbytes, which runs on CPUs too: `make test-real`."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import CONFIGS, adapters, logits, tiny
from given import assert_near, assert_same_predictions, given_rollout, gradients, ragged
from sampled import sample
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast

from capacity.adapters.attach import attach
from capacity.adapters.files import artifact
from capacity.adapters.files.merge import merge
from capacity.adapters.files.peft_folder import load_peft_lora, save_peft_lora
from capacity.adapters.linears import weight_matrix
from capacity.adapters.open import open_native
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.errors import CapacityError, SpecError
from capacity.forward.model import Forward, packed_predictions, padded_predictions
from capacity.forward.rollout import pad_left
from capacity.models.loading import without_repacking
from capacity.sampling.decoding.blocks import takes
from capacity.spec.adapters import FullUpdate, LoraXs, TinyLora
from capacity.training.base import Base

SETTINGS = {
    "8bit": BitsAndBytesConfig(load_in_8bit=True),
    "4bit": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_use_double_quant=True,
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """A Llama whose sides are multiples of 64, the blocks of 4-bit quantisation."""
    path: Path = tmp_path_factory.mktemp("llama64")
    name, settings = CONFIGS["llama"]
    CONFIGS["llama64"] = (name, {**settings, "hidden_size": 64, "intermediate_size": 128})
    tiny("llama64").save_pretrained(path)
    del CONFIGS["llama64"]
    return path


def load(folder: Path, name: str) -> Any:
    """The model as `capacity.models.loading.load` quantises it, but for nested blocks."""
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=copy.deepcopy(SETTINGS[name]), dtype=torch.float32, device_map="cpu"
    )
    without_repacking(model)
    return model.eval()


@pytest.fixture(params=SETTINGS)
def quantised(request: Any, folder: Path) -> Any:
    return lambda: load(folder, request.param)


@pytest.mark.parametrize("kind", ["tinylora", "tinylora-split", "lora-xs", "lora", "vera", "vb-lora"])
def test_native_rebuilt_and_exported_are_one(quantised: Any, kind: str, tmp_path: Path) -> None:
    before = logits(quantised())
    base = quantised()
    fingerprint = artifact.base_fingerprint(base)
    adapted = attach(base, adapters()[kind], None)
    if kind != "vb-lora":  # starts at random
        assert torch.equal(logits(adapted.model), before)
    assert {p.dtype for p in adapted.trained.values()} == {torch.float32}
    generator = torch.Generator().manual_seed(2)
    adapted.set_vector(adapted.vector() + 0.3 * torch.randn(adapted.trained_parameters, generator=generator))
    payload = artifact.store(adapted, "bf16")
    data = artifact.pack(adapted, payload, model="llama64", base=fingerprint, dtype="bf16")
    expected = logits(adapted.model)
    assert float((expected - before).abs().max()) > 0.01
    rebuilt = artifact.rebuild(artifact.read(data, "update"), quantised(), None)
    assert torch.equal(logits(rebuilt.model), expected)
    save_peft_lora(adapted, tmp_path, "fp32", "llama64")
    torch.testing.assert_close(logits(load_peft_lora(quantised(), tmp_path)), expected, atol=2e-5, rtol=1e-5)
    with pytest.raises(SpecError, match="a quantised base cannot be merged into"):
        merge(adapted, "fp32")


def test_factors_are_those_of_the_dequantised_weights(quantised: Any) -> None:
    adapted = attach(quantised(), LoraXs(rank=2), None)
    reference = quantised()
    for shape in adapted.shapes:
        weight = weight_matrix(reference.get_submodule(shape.name))
        assert weight.shape == (shape.d, shape.k)
        sigma = torch.linalg.svdvals(weight.double())[:2]
        b = adapted.layer(shape).lora_B["default"].b.double()
        torch.testing.assert_close(b.norm(dim=0), sigma, atol=1e-5, rtol=1e-5)


def test_the_fingerprint_is_of_the_weights_not_of_their_codes(quantised: Any, tmp_path: Path) -> None:
    quantised().save_pretrained(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, device_map="cpu").eval()
    known = WeightFolder(tmp_path).digests(None)
    assert artifact.base_fingerprint(saved, known) == artifact.base_fingerprint(saved)


def test_weights_repacked_by_use_are_refused_not_misread(folder: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(folder, quantization_config=SETTINGS["4bit"], device_map="cpu").eval()
    before = weight_matrix(base.model.layers[0].mlp.up_proj)
    logits(base)
    if getattr(base.model.layers[0].mlp.up_proj.weight.quant_state, "packing_format_for_cpu", False):
        for adapter in (LoraXs(rank=2), adapters()["lora"]):
            with pytest.raises(CapacityError, match="repacks 4-bit weights"):
                attach(base, adapter, None)
        with pytest.raises(CapacityError, match="repacks 4-bit weights"):
            weight_matrix(base.model.layers[0].mlp.up_proj)
    else:  # a CPU without the instructions for it
        assert torch.equal(weight_matrix(base.model.layers[0].mlp.up_proj), before)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [(adapters()["uni-lora"], "does not work on a quantised base"), (FullUpdate(), "load the model in fp32")],
)
def test_adapters_that_cannot_sit_on_a_quantised_base_are_refused(quantised: Any, adapter: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        attach(quantised(), adapter, None)


def test_trl_leaves_what_is_trained_in_fp32(quantised: Any, tokenizer: Any, monkeypatch: Any) -> None:
    """TRL casts the trained parameters of a quantised model to bf16; θ must come out of it as it went in."""
    from small import small_spec

    from capacity.tasks.catalog import open_task
    from capacity.training import trl_trainer
    from capacity.training.sft import SftArm

    spec = small_spec("sft")
    task = open_task(spec.task)
    adapted = attach(quantised(), TinyLora(groups=7, u=2, projection_seed=0), None)
    start = 0.1 + torch.arange(14) / 1000  # needs more digits than bf16 has
    adapted.set_vector(start)
    seen: list[torch.Tensor] = []
    arm = SftArm(adapted, tokenizer, task, spec)
    monkeypatch.setattr(type(arm), "loss", _count_of(seen))
    trl_trainer.train(arm, list(task.items("train", 8)))
    assert torch.equal(seen[0], start)
    assert {p.dtype for p in adapted.trained.values()} == {torch.float32}


def _count_of(seen: list[torch.Tensor]) -> Any:
    """A loss that needs no vocabulary, the sum of θ; it keeps what θ was."""

    def loss(arm: Any, batch: Any) -> Any:
        seen.append(arm.adapted.vector())
        return sum(p.sum() for p in arm.adapted.trained.values())

    return loss


@pytest.mark.parametrize("kind", ["tinylora", "lora-xs", "lora"])
def test_packed_tokens_give_what_padded_rows_give(quantised: Any, kind: str) -> None:
    adapted = attach(quantised(), adapters()[kind], None)
    generator = torch.Generator().manual_seed(2)
    adapted.set_vector(adapted.vector() + 0.3 * torch.randn(adapted.trained_parameters, generator=generator))
    rollout = given_rollout(*ragged([4, 2, 1, 3, 2]))
    assert Forward(adapted.model).packs
    packed, padded = packed_predictions(adapted.model, rollout), padded_predictions(adapted.model, rollout)
    assert_same_predictions(packed, padded)
    assert_near(gradients(packed, adapted.trained), gradients(padded, adapted.trained))


def test_a_quantised_base_is_sampled_by_its_own_pass(quantised: Any) -> None:
    adapted = attach(quantised(), LoraXs(rank=2), None)
    assert not takes(adapted)
    prompts = ragged([4, 1, 2])[0]
    uniforms = torch.rand(len(prompts), 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = sample(adapted.model, *pad_left(prompts, 0), uniforms, temperature=1.0, ends=range(20, 30), pad=0)
    expected = padded_predictions(adapted.model, drawn).logprobs().detach()
    assert_near({"logprobs": drawn.sampler_logprobs}, {"logprobs": expected})


@pytest.mark.parametrize("kind", ["tinylora", "lora-xs", "lora"])
def test_gradients_are_those_of_finite_differences_after_the_base_has_been_used(folder: Path, kind: str) -> None:
    """The first pass without a gradient, which sampling makes, must not change what later ones learn from.

    An 8-bit base rounds its inputs, so it has no slopes to compare with.
    """
    adapted = attach(load(folder, "4bit"), adapters()[kind], None)
    generator = torch.Generator().manual_seed(2)
    start = adapted.vector() + 0.3 * torch.randn(adapted.trained_parameters, generator=generator)
    adapted.set_vector(start)
    rollout = given_rollout(*ragged([3, 2]))
    with torch.no_grad():
        adapted.model.eval()(input_ids=rollout.prompt_ids)
    found = torch.cat(
        [g.reshape(-1) for g in gradients(packed_predictions(adapted.model, rollout), adapted.trained).values()]
    )
    weights = torch.randn(rollout.completion_ids.shape, generator=torch.Generator().manual_seed(7)).double()
    direction = found / torch.linalg.vector_norm(found)

    def value(step: float) -> float:
        adapted.set_vector(start + step * direction)
        with torch.no_grad():
            return float((padded_predictions(adapted.model, rollout).logprobs().double() * weights).sum())

    slope = (value(0.01) - value(-0.01)) / 0.02
    assert slope == pytest.approx(float(torch.linalg.vector_norm(found)), rel=0.02)


def test_an_artifact_of_a_quantised_base_is_opened_by_its_name(folder: Path, tmp_path: Path) -> None:
    """Factors come from the dequantised weights in training, and so when the update is opened again."""
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "</s>": 1}, unk_token="a")),
                            eos_token="</s>").save_pretrained(folder)  # fmt: skip
    name = f"{folder}?quantised=nf4"
    base = Base.loaded(name, "cpu", tmp_path)
    adapted = base.adapted(LoraXs(rank=2))
    adapted.set_vector(adapted.vector() + 0.25)
    payload = artifact.store(adapted, "bf16")
    path = tmp_path / "update.safetensors"
    path.write_bytes(artifact.pack(adapted, payload, model=name, base=base.fingerprint, dtype="bf16"))
    opened = open_native(path, None, "cpu", tmp_path)
    assert torch.equal(logits(opened.model), logits(adapted.model))
