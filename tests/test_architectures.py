"""Every adapter on every architecture: native artifact ≡ rebuilt ≡ exported PEFT LoRA ≡ merged in fp32."""

import copy
from pathlib import Path
from typing import Any

import architectures
import pytest
import torch
from architectures import ATTENTION, CONFIGS, MIXTURES, WEIGHTS, logits, tiny

from capacity.adapters.attach import attach
from capacity.adapters.files import artifact
from capacity.adapters.files.merge import merge
from capacity.adapters.files.peft_folder import load_peft_lora, save_peft_lora
from capacity.adapters.layout import Layout
from capacity.adapters.linears import adapted_modules
from capacity.adapters.model import AdaptedModel
from capacity.errors import SpecError
from capacity.spec.adapters import Adapter, Lora, LoraXs, ProjectionChoice, TinyLora

ADAPTERS = architectures.adapters()
# Logits here are of order 1, so fp32 leaves about 1e-6 a layer when B·(A·x) and (W + B·A)·x are compared.
CLOSE: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-5}
MOVED = 5e-3  # what an update must change at least for the comparison to mean something


def adapter_for(name: str, kind: str) -> Adapter:
    """The experts of a mixture are not adapted, so its attention is named."""
    return architectures.adapters(ATTENTION if name in MIXTURES else None)[kind]


def trained(model: Any, adapter: Adapter, scale: float = 0.3) -> AdaptedModel:
    """An adapter whose update is far from zero."""
    adapted = attach(model, adapter, None)
    generator = torch.Generator().manual_seed(2)
    adapted.set_update({n: t + scale * torch.randn(t.shape, generator=generator) for n, t in adapted.update().items()})
    return adapted


@pytest.fixture(scope="module", params=CONFIGS)
def architecture(request: Any) -> tuple[str, Any]:
    return request.param, tiny(request.param)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_native_rebuilt_exported_and_merged_are_one(architecture: Any, kind: str, tmp_path: Path) -> None:
    name, base = architecture
    adapter = adapter_for(name, kind)
    adapted = trained(copy.deepcopy(base), adapter)
    payload = artifact.store(adapted, "fp32")
    data = artifact.pack(adapted, payload, model=name, base=artifact.base_fingerprint(base), dtype="fp32")
    expected = logits(adapted.model)
    assert float((expected - logits(base)).abs().max()) > MOVED

    rebuilt = artifact.rebuild(artifact.read(data, "update"), copy.deepcopy(base), None)
    torch.testing.assert_close(logits(rebuilt.model), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(rebuilt.vector(), adapted.vector())

    save_peft_lora(adapted, tmp_path, "fp32", name)
    torch.testing.assert_close(logits(load_peft_lora(copy.deepcopy(base), tmp_path)), expected, **CLOSE)

    merged, report = merge(adapted, "fp32")
    torch.testing.assert_close(logits(merged), expected, **CLOSE)
    assert report.cosine > 0.99999
    assert [n for n, _ in merged.named_parameters()] == [n for n, _ in base.named_parameters()]


def test_a_chosen_projection_is_the_same_native_exported_and_merged(architecture: Any, tmp_path: Path) -> None:
    name, base = architecture
    targets = ATTENTION if name in MIXTURES else None
    choice = ProjectionChoice(bits=4)
    adapter = TinyLora(groups=3, u=2, projection_seed=5, targets=targets, choice=choice)
    adapted = attach(copy.deepcopy(base), adapter, None, layout=Layout(candidates=(3, 15, 0, 7, 9, 1)))
    vector = torch.tensor([0.4, -0.3, 0.5, 0.2, -0.6, 0.3])
    adapted.set_vector(vector)
    data = artifact.pack(
        adapted, artifact.store(adapted, "fp32"), model=name, base=artifact.base_fingerprint(base), dtype="fp32"
    )
    expected = logits(adapted.model)
    assert float((expected - logits(base)).abs().max()) > MOVED
    rebuilt = artifact.rebuild(artifact.read(data, "update"), copy.deepcopy(base), None)
    torch.testing.assert_close(logits(rebuilt.model), expected, atol=1e-5, rtol=1e-5)
    save_peft_lora(adapted, tmp_path, "fp32", name)
    torch.testing.assert_close(logits(load_peft_lora(copy.deepcopy(base), tmp_path)), expected, **CLOSE)
    merged, _ = merge(adapted, "fp32")
    torch.testing.assert_close(logits(merged), expected, **CLOSE)
    random = attach(copy.deepcopy(base), adapter.model_copy(update={"choice": None}), None)
    random.set_vector(vector)
    assert float((logits(random.model) - expected).abs().max()) > MOVED


@pytest.mark.parametrize("kind", ["tinylora", "tinylora-split", "lora-xs", "lora", "vera"])
def test_untrained_adapters_equal_the_base_bit_for_bit(architecture: Any, kind: str) -> None:
    name, base = architecture
    adapted = attach(copy.deepcopy(base), adapter_for(name, kind), None)
    assert torch.equal(logits(adapted.model), logits(base))


@pytest.mark.parametrize("kind", WEIGHTS)
def test_updates_of_the_weights_themselves_rebuild_and_merge(architecture: Any, kind: str) -> None:
    name, base = architecture
    if kind == "bitfit" and not any(n.endswith("bias") for n, _ in base.named_parameters()):
        with pytest.raises(SpecError, match="has no biases"):
            attach(copy.deepcopy(base), WEIGHTS[kind], None)
        return
    adapted = trained(copy.deepcopy(base), WEIGHTS[kind], 0.01)
    payload = artifact.store(adapted, "fp32")
    data = artifact.pack(adapted, payload, model=name, base=artifact.base_fingerprint(base), dtype="fp32")
    expected = logits(adapted.model)
    assert not torch.equal(expected, logits(base))
    rebuilt = artifact.rebuild(artifact.read(data, "update"), copy.deepcopy(base), None)
    assert torch.equal(logits(rebuilt.model), expected)
    with pytest.raises(SpecError, match="export it merged"):
        save_peft_lora(adapted, Path(), "fp32", name)
    merged, report = merge(adapted, "fp32")
    torch.testing.assert_close(logits(merged), expected, **CLOSE)
    assert report.cosine > 0.99999


@pytest.mark.parametrize("kind", ADAPTERS)
def test_training_reaches_only_what_is_planned(architecture: Any, kind: str) -> None:
    name, base = architecture
    adapted = trained(copy.deepcopy(base), adapter_for(name, kind))
    adapted.model.train()
    adapted.model(input_ids=architectures.IDS, labels=architectures.IDS).loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in adapted.trained.values())
    assert all(p.dtype == torch.float32 for p in adapted.trained.values())
    untrained = {n for n, p in adapted.model.named_parameters() if p.grad is None}
    assert untrained | set(adapted.trained) == {n for n, _ in adapted.model.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["tinylora", "lora-xs", "lora"])
def test_half_precision_bases_keep_fp32_updates(kind: str, dtype: torch.dtype) -> None:
    base = tiny("llama", dtype)
    adapted = attach(copy.deepcopy(base), ADAPTERS[kind], None)
    assert torch.equal(logits(adapted.model), logits(base))
    assert {p.dtype for p in adapted.trained.values()} == {torch.float32}
    adapted = trained(copy.deepcopy(base), ADAPTERS[kind])
    exact = trained(copy.deepcopy(base).float(), ADAPTERS[kind])
    # The base's own activations are rounded, so only what the update adds can be compared, and only to its size.
    there = logits(exact.model) - logits(copy.deepcopy(base).float())
    here = logits(adapted.model) - logits(base)
    assert float(torch.linalg.vector_norm(here - there) / torch.linalg.vector_norm(there)) < 0.25
    assert artifact.base_fingerprint(base) == artifact.base_fingerprint(copy.deepcopy(base).float())


def test_experts_are_refused_in_one_line() -> None:
    with pytest.raises(
        SpecError, match=r"experts in fused tensors \(model\.layers\.0\.mlp\.experts\).*--targets q_proj"
    ):
        attach(tiny("mixtral"), LoraXs(rank=2), None)


def test_unknown_targets_are_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="unknown module type 'q_prj': did you mean q_proj"):
        attach(tiny("llama"), LoraXs(rank=2, targets=("q_prj",)), None)


def test_fused_projections_count_as_one_module() -> None:
    types = [s.type for s in adapted_modules(tiny("phi3"))]
    assert types == ["o_proj", "qkv_proj", "gate_up_proj", "down_proj"] * 2


def test_targets_leave_everything_else_alone() -> None:
    base = tiny("qwen2")
    adapted = trained(copy.deepcopy(base), TinyLora(groups=2, u=1, projection_seed=0, targets=("v_proj",)))
    assert [s.name for s in adapted.shapes] == ["model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.v_proj"]
    merged, _ = merge(adapted, "fp32")
    changed = [n for n, p in merged.named_parameters() if not torch.equal(p, base.get_parameter(n))]
    assert changed == [f"{s.name}.weight" for s in adapted.shapes]


def test_lora_starts_from_its_seed() -> None:
    def start(seed: int) -> torch.Tensor:
        return attach(tiny("llama"), Lora(rank=2, init_seed=seed), None).vector()

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_lora_equals_pefts_own_trained_on_the_same_numbers() -> None:
    from peft import LoraConfig, get_peft_model

    adapted = trained(tiny("gpt2"), ADAPTERS["lora"])
    config = LoraConfig(
        r=2, lora_alpha=2, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    theirs = get_peft_model(tiny("gpt2"), config)
    theirs.load_state_dict(adapted.model.state_dict())
    assert torch.equal(logits(theirs), logits(adapted.model))


@pytest.mark.parametrize("name", ["llama", "qwen2", "phi3"])  # PSOFT knows no Conv1D
def test_lora_xs_equals_psoft_given_the_same_factors(name: str) -> None:
    """PEFT's PSOFT with a free R adds B(R − I)A to W and trains R: LoRA-XS with √Σ on both sides."""
    from peft import PsoftConfig, get_peft_model

    base = tiny(name)
    adapted = trained(copy.deepcopy(base), LoraXs(rank=3, scaling="split"))
    cores = adapted.vector().view(len(adapted.shapes), 3, 3)
    config = PsoftConfig(
        r=3, psoft_alpha=3, psoft_orth=False, psoft_mag_a=False, psoft_mag_b=False, ab_svd_init="pissa_init",
        target_modules=[s.name for s in adapted.shapes], task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = get_peft_model(copy.deepcopy(base), config)
    trainable = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert trainable == adapted.trained_parameters == 9 * len(adapted.shapes)
    for (shape, a, _), core in zip(adapted.pairs(), cores, strict=True):
        layer = theirs.base_model.model.get_submodule(shape.name)
        up = adapted.layer(shape).lora_B["default"].b
        their_a, their_b = layer._psoft_A_cache["default"], layer._psoft_B_cache["default"]
        # Their factors are LAPACK's: ours but for the signs of pairs.
        flips = torch.sign((their_a * a).sum(1))
        torch.testing.assert_close(their_a * flips[:, None], a, atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(their_b * flips, up, atol=2e-4, rtol=1e-3)
        layer._psoft_A_cache["default"], layer._psoft_B_cache["default"] = a.clone(), up.clone()
        with torch.no_grad():
            layer.psoft_R["default"].weight.copy_(torch.eye(3) + core)
        torch.testing.assert_close(layer.get_delta_weight("default"), up @ core @ a, atol=1e-5, rtol=1e-4)
    expected = logits(adapted.model)
    assert float((expected - logits(base)).abs().max()) > MOVED
    torch.testing.assert_close(logits(theirs), expected, **CLOSE)


@pytest.mark.parametrize(("size", "fits"), [(0.3, True), (1e-7, False), (1e6, False)])
def test_a_dtype_that_cannot_hold_the_update_is_refused(size: float, fits: bool, tmp_path: Path) -> None:
    adapted = attach(tiny("llama"), ADAPTERS["tinylora"], None)
    adapted.set_vector(torch.full((adapted.trained_parameters,), size))
    save_peft_lora(adapted, tmp_path, "bf16", "base")
    if fits:
        save_peft_lora(adapted, tmp_path, "fp16", "base")
    else:
        with pytest.raises(SpecError, match="fp16 cannot hold the update of model"):
            save_peft_lora(adapted, tmp_path, "fp16", "base")
