"""The controls of an adapter: switched off, and an adapter of zeros that goes through the same kernels; drift."""

import copy
import json
from pathlib import Path
from typing import Any

import architectures
import pytest
import torch
from architectures import IDS, MASK, tiny
from engines import PlainEngine
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

import capacity
from capacity.adapters.attach import attach
from capacity.adapters.controls import context_of_control, save_zero_lora
from capacity.adapters.files.peft_folder import CONFIG, load_peft_lora
from capacity.adapters.open import Opened
from capacity.errors import SpecError
from capacity.library import evaluate as module
from capacity.library.passes import Passes
from capacity.sampling.vllm import start
from capacity.sampling.vllm.several import evaluate_several
from capacity.spec.adapters import Adapter, Steering
from capacity.spec.parts import EvaluationSpec
from capacity.tasks.abacus import AbacusTask

ADAPTERS: dict[str, Adapter] = {**architectures.adapters(), **architectures.WEIGHTS, "steering": Steering()}
TARGETS = ["q_proj", "v_proj"]
SPEC = EvaluationSpec(split="test", items=6, temperature=0.0, max_new_tokens=16)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=MASK).logits
    return found


def far(model: nn.Module, scale: float = 0.2) -> None:
    """Moves what is trained, or all of a PEFT adapter, away from its start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_of_zeros_answers_as_the_base_and_comes_back_as_it_was(kind: str) -> None:
    base = tiny("qwen2" if kind == "bitfit" else "llama")
    untrained = logits(base)
    adapted = attach(copy.deepcopy(base), ADAPTERS[kind], None)
    far(adapted.model)
    adapted.model.eval()
    before, state = logits(adapted.model), {name: p.detach().clone() for name, p in adapted.trained.items()}
    assert not torch.allclose(before, untrained, atol=0.01)
    opened = Opened(adapted.model, None, "base", "native", adapted)
    with context_of_control("zero", opened, Path("a"))():
        assert torch.equal(logits(adapted.model), untrained)
    assert torch.equal(logits(adapted.model), before)
    assert all(torch.equal(p, state[name]) for name, p in adapted.trained.items())


def test_an_adapter_of_zeros_runs_the_adapter_s_layers_and_one_switched_off_does_not() -> None:
    adapted = attach(tiny("llama"), ADAPTERS["lora"], None)
    opened = Opened(adapted.model, None, "base", "native", adapted)
    called: list[str] = []
    adapted.layer(adapted.shapes[0]).lora_B.default.register_forward_hook(lambda *_: called.append("B"))  # type: ignore[attr-defined]
    with context_of_control("off", opened, Path("a"))():
        logits(adapted.model)
    assert called == []
    with context_of_control("zero", opened, Path("a"))():
        logits(adapted.model)
    assert called == ["B"]


def saved(base: Any, config: Any, folder: Path) -> Opened:
    """A PEFT folder whose adapter is far from its start, put on the base."""
    model = get_peft_model(copy.deepcopy(base), config)
    far(model)
    model.save_pretrained(folder, save_embedding_layers=False)
    return Opened(load_peft_lora(copy.deepcopy(base), folder), None, "base", "peft")


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"lora_bias": True}, {"target_modules": ["embed_tokens"]}]
)
def test_a_peft_lora_of_zeros_answers_as_the_base(options: dict[str, Any], tmp_path: Path) -> None:
    base = tiny("llama")
    opened = saved(base, LoraConfig(task_type="CAUSAL_LM", **{"target_modules": TARGETS, **options}), tmp_path)
    trained = logits(opened.model)
    assert not torch.allclose(trained, logits(base), atol=0.01)
    with context_of_control("zero", opened, tmp_path)():
        assert torch.equal(logits(opened.model), logits(base))
    assert torch.equal(logits(opened.model), trained)
    out = tmp_path / "zero"
    out.mkdir()
    save_zero_lora(tmp_path, out)
    assert torch.equal(logits(load_peft_lora(copy.deepcopy(base), out)), logits(base))
    mine, theirs = load_file(out / "adapter_model.safetensors"), load_file(tmp_path / "adapter_model.safetensors")
    assert {key: t.shape for key, t in mine.items()} == {key: t.shape for key, t in theirs.items()}
    assert (out / CONFIG).read_bytes() == (tmp_path / CONFIG).read_bytes()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LoraConfig(target_modules=TARGETS, use_dora=True), "holds .*lora_magnitude_vector.* beside A and B"),
        (LoraConfig(target_modules=TARGETS, modules_to_save=["lm_head"]), "holds .*lm_head.* beside A and B"),
        (LoraConfig(target_modules=TARGETS, trainable_token_indices=[4]), "holds .*token.* beside A and B"),
        (IA3Config(target_modules=TARGETS, feedforward_modules=[]), "of kind IA3, whose zero is not known"),
        (LoraConfig(target_modules=TARGETS, bias="all"), "changes the base itself"),
    ],
)
def test_an_adapter_whose_zero_is_not_known_is_refused(config: Any, says: str, tmp_path: Path) -> None:
    opened = saved(tiny("llama"), config, tmp_path)
    with pytest.raises(SpecError, match=f"--control zero: .* {says}"):
        context_of_control("zero", opened, tmp_path)
    with pytest.raises(SpecError, match=f"--control zero: .* {says}"):
        save_zero_lora(tmp_path, tmp_path / "out")


def lora_folder(smallest: Any, folder: Path) -> Path:
    model = get_peft_model(copy.deepcopy(smallest), LoraConfig(task_type="CAUSAL_LM", target_modules=TARGETS))
    far(model)
    model.save_pretrained(folder)
    return folder


def test_the_command_gives_control_and_drift(loaded_smallest: Any, tmp_path: Path) -> None:
    folder = lora_folder(loaded_smallest[0], tmp_path)
    found = {
        control: capacity.evaluate("abacus-0.2m", folder, items=6, control=control, drift=control == "zero")
        for control in ("off", "zero")
    }
    base = capacity.evaluate("abacus-0.2m", items=6)
    for control, name in (("off", "adapter off"), ("zero", "adapter of zeros")):
        told = found[control].to_json()
        assert told["control"]["kind"] == control
        assert told["control"]["outcomes"] == base.to_json()["outcomes"]
        assert any(line.startswith(f"{name}: ") for line in found[control].lines)
    assert found["off"].to_json()["drift"] is None
    drift = found["zero"].to_json()["drift"]
    for half in ("adapter", "control"):  # this program's own sampling does not drift
        assert (drift[half]["drift"], drift[half]["changed_samples"]) == (0.0, 0)
    assert drift["adapter"]["second_pass"]["outcomes"] == found["zero"].to_json()["outcomes"]
    assert "drift of the control: none: both passes graded every sample alike" in found["zero"].lines


def test_passes_come_in_the_order_adapter_control_control_adapter(
    loaded_smallest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Progress:
        def __init__(self, phase: str) -> None:
            seen.append(phase)
            self.on_module = self.on_count = lambda *_: None

        def __enter__(self) -> "Progress":
            return self

        def __exit__(self, *_: object) -> None: ...

    folder = lora_folder(loaded_smallest[0], tmp_path)
    module.evaluate("abacus-0.2m", folder, items=2, control="zero", drift=True, progress=Progress)  # type: ignore[arg-type]
    assert seen == ["factors", "items", "items, adapter of zeros", "items, adapter of zeros", "items"]


def test_a_linear_drift_cancels_in_the_gain_of_both_passes(loaded_smallest: Any) -> None:
    """Right answers of 10 items by time: adapter 6, control 5, control 4, adapter 3; the update gains nothing."""
    one = capacity.evaluate("abacus-0.2m", items=10).measured

    def right(count: int) -> Any:
        outcomes = tuple(
            outcome.model_copy(update={"correct": (int(index < count),)})
            for index, outcome in enumerate(one.evaluation.outcomes)
        )
        return type(one)(type(one.evaluation)(outcomes, "", 10, count, 1))

    adapter, control = Passes(right(6), right(3)), Passes(right(5), right(4))
    assert adapter.gain_over(control).value == pytest.approx(0.0, abs=1e-12)
    assert Passes(right(6)).gain_over(Passes(right(5))).value == pytest.approx(0.1)
    assert adapter.drift is not None
    assert adapter.drift.value == pytest.approx(-0.3)
    assert adapter.drift_words().startswith("−30.0 points (")
    assert adapter.drift_words().endswith("samples graded differently: 3")


class Recording(PlainEngine):
    """Remembers whose rows came in which order."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.order: list[str | None] = []

    def generate(self, requests: Any, **options: Any) -> Any:
        self.order += list(dict.fromkeys(request.adapter for request in requests))
        return super().generate(requests, **options)


def test_an_engine_gets_a_folder_of_zeros_beside_the_others_and_both_orders(
    loaded_smallest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Recording(loaded_smallest[0], loaded_smallest[1].pad_token_id)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(start, "open_local", lambda *_, **options: asked.update(options) or engine)
    monkeypatch.setattr(start, "close_quietly", lambda _: None)
    folder = str(lora_folder(loaded_smallest[0], tmp_path))
    found = capacity.evaluate_adapters("abacus-0.2m", [folder], items=4, temperature=0.0, control="zero", drift=True)
    assert asked["adapters"] == 2
    assert engine.order == ["zero", "adapter-0", "adapter-0", "zero"]
    told = found.to_json()
    assert told["base"] is None
    assert told["zero"]["outcomes"] == capacity.evaluate("abacus-0.2m", items=4, temperature=0.0).to_json()["outcomes"]
    assert told["zero"]["changed_samples"] == told["adapters"][0]["changed_samples"] == 0
    assert "Drift of adapter of zeros: none: both passes graded every sample alike." in found.note
    assert json.dumps(told)


def test_zeros_are_not_taken_for_an_adapter_that_leaks_into_the_base(loaded_smallest: Any, tmp_path: Path) -> None:
    class Noisy(PlainEngine):
        """Other batches round otherwise, so rows of the base are nearer to zeros than to the base alone."""

        def score(self, sequences: Any) -> Any:
            shift = 1e-4 if len(self.adapters) else 0.0
            return [[value + shift for value in row] for row in super().score(sequences)]

    engine = Noisy(loaded_smallest[0], loaded_smallest[1].pad_token_id)
    folder, out = lora_folder(loaded_smallest[0], tmp_path), tmp_path / "zero"
    out.mkdir()
    save_zero_lora(folder, out)
    found = evaluate_several(engine, *loaded_smallest, AbacusTask(), SPEC, {"a": folder}, zero=out)
    assert found.zero == found.base


@pytest.mark.parametrize("name", ["base", "adapter of zeros", "zero", "adapter-1"])
def test_an_adapter_may_have_any_name(name: str, loaded_smallest: Any, tmp_path: Path) -> None:
    folder, out = lora_folder(loaded_smallest[0], tmp_path), tmp_path / "zero"
    out.mkdir()
    save_zero_lora(folder, out)
    engine = PlainEngine(loaded_smallest[0], loaded_smallest[1].pad_token_id)
    found = evaluate_several(engine, *loaded_smallest, AbacusTask(), SPEC, {"one": folder, name: folder}, zero=out)
    assert list(found.adapters) == ["one", name]
    assert found.adapters[name] == found.adapters["one"] != found.base
    assert found.base == found.zero
