"""Adapters that others made with PEFT: each supported kind answers as under PEFT's `generate`, others are refused."""

import copy
import json
from pathlib import Path
from typing import Any

import architectures
import pytest
import torch
from architectures import MASK, tiny
from peft import (
    CPTConfig,
    LoraConfig,
    PeftType,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from sampled import sample

from capacity.adapters.files.peft_folder import load_peft_lora
from capacity.adapters.files.peft_kinds import KINDS
from capacity.errors import DataError, SpecError
from capacity.library.evaluate import evaluate

NEW = 6
IDS = architectures.IDS.clamp(max=56)  # within the vocabulary of the abacus models too
GREEDY = {"input_ids": IDS, "attention_mask": MASK, "do_sample": False, "max_new_tokens": NEW, "eos_token_id": None}
TARGETS = {"target_modules": ["q_proj", "v_proj"]}
# What a kind needs beside or instead of the targets, on a model this small.
OPTIONS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 100},
    "C3A": {"block_size": 24},
    "IA3": {"feedforward_modules": []},
    "LN_TUNING": {"target_modules": None},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4, "r": 0},
    "PSOFT": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"target_modules": None, "token_indices": [4, 5]},
    "VBLORA": {"vector_length": 8, "num_vectors": 5, "r": 2},
    "WAVEFT": {"n_frequency": 20},
}
LORAS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "biases": {"lora_bias": True},
    "head": {"modules_to_save": ["lm_head"]},
    "tokens": {"trainable_token_indices": [4, 5]},
    "one layer": {"layers_to_transform": [1]},
    "ranks": {"rank_pattern": {"q_proj": 2}},
    "every linear": {"target_modules": "all-linear"},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
}
VIRTUAL = {
    "PROMPT_TUNING": PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "PREFIX_TUNING": PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "P_TUNING": PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=16, task_type="CAUSAL_LM"),
    "CPT": CPTConfig(cpt_token_ids=[1, 2], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 2], task_type="CAUSAL_LM"),
}


@pytest.fixture(scope="module")
def base() -> Any:
    torch.set_num_threads(1)
    return tiny("llama")


def made(base: Any, config: Any, folder: Path) -> Any:
    """A PEFT model whose adapter is far from its start, saved in `folder`."""
    model = get_peft_model(copy.deepcopy(base), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.eval().save_pretrained(folder)
    return model


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", **{**TARGETS, **options})


def generated(model: Any) -> torch.Tensor:
    """What our sampling makes of the two prompts, greedily."""
    uniforms = torch.zeros(len(IDS), NEW, dtype=torch.float64)
    return sample(model, IDS, MASK, uniforms, temperature=0.0, ends=[], pad=0).completion_ids


def check(base: Any, config: Any, folder: Path) -> None:
    """Holds our sampling against `generate`, and the adapter switched off against the base."""
    theirs = made(base, config, folder)
    ours = load_peft_lora(copy.deepcopy(base), folder)
    assert torch.equal(generated(ours), theirs.generate(**GREEDY)[:, IDS.shape[1] :])
    with torch.no_grad():
        untrained = base(input_ids=IDS, attention_mask=MASK).logits
        assert torch.equal(ours(input_ids=IDS, attention_mask=MASK).logits, theirs(IDS, attention_mask=MASK).logits)
        assert not torch.allclose(ours(input_ids=IDS, attention_mask=MASK).logits, untrained, atol=0.01)
        with ours.disable_adapter():
            assert torch.equal(ours(input_ids=IDS, attention_mask=MASK).logits, untrained)


@pytest.mark.parametrize("kind", KINDS)
def test_every_supported_kind_answers_as_generate_does(base: Any, kind: str, tmp_path: Path) -> None:
    options = {k: v for k, v in {**TARGETS, **OPTIONS.get(kind, {})}.items() if v is not None}
    check(base, PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[kind]](task_type="CAUSAL_LM", **options), tmp_path)


@pytest.mark.parametrize("variant", LORAS)
def test_every_form_of_lora_answers_as_generate_does(base: Any, variant: str, tmp_path: Path) -> None:
    check(base, lora(**LORAS[variant]), tmp_path)


@pytest.mark.parametrize("kind", VIRTUAL)
def test_virtual_tokens_are_refused(base: Any, kind: str, tmp_path: Path) -> None:
    made(base, VIRTUAL[kind], tmp_path)
    with pytest.raises(DataError, match=f"PEFT adapters of kind {kind} are not supported: only .* LORA,") as refusal:
        load_peft_lora(copy.deepcopy(base), tmp_path)
    assert "\n" not in str(refusal.value)


def test_an_activated_lora_is_refused(base: Any, tmp_path: Path) -> None:
    made(base, lora(alora_invocation_tokens=[13]), tmp_path)
    with pytest.raises(DataError, match=r"an activated LoRA \(alora_invocation_tokens\) .* take a plain LoRA"):
        load_peft_lora(copy.deepcopy(base), tmp_path)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bias": "all"}, "bias=all"),
        ({"bias": "lora_only"}, "bias=lora_only"),
        ({"layer_replication": [(0, 2), (0, 2)]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"init_lora_weights": "olora"}, "init_lora_weights=olora"),
    ],
)
def test_an_adapter_that_changes_the_base_answers_as_generate_does_and_has_no_control(
    options: dict[str, Any], named: str, loaded_smallest: Any, tmp_path: Path
) -> None:
    model, _ = loaded_smallest
    theirs = made(model, lora(**options), tmp_path)
    ours = load_peft_lora(copy.deepcopy(model), tmp_path)
    assert torch.equal(generated(ours), theirs.generate(**GREEDY)[:, IDS.shape[1] :])
    with torch.no_grad(), ours.disable_adapter():
        assert not torch.equal(ours(input_ids=IDS, attention_mask=MASK).logits, model(IDS, attention_mask=MASK).logits)
    found = evaluate("abacus-0.2m", tmp_path, items=4)
    assert found.kl_to_base_bits is None
    assert "KL to the base: not measured, because the adapter changes the base itself" in found.lines
    for control in ("off", "zero"):
        with pytest.raises(SpecError, match=rf"--control {control}: .* changes the base itself \({named}\)"):
            evaluate("abacus-0.2m", tmp_path, items=4, control=control)


@pytest.mark.parametrize("kind", [*sorted({k.value for k in PeftType} - set(KINDS)), None])
def test_every_other_kind_is_refused(base: Any, kind: str | None, tmp_path: Path) -> None:
    made(base, VIRTUAL["PROMPT_TUNING"], tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "peft_type": kind}))
    with pytest.raises(DataError, match=f"PEFT adapters of kind {kind} are not supported"):
        load_peft_lora(copy.deepcopy(base), tmp_path)
