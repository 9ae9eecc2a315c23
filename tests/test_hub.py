"""Names of models, and models that are not embedded: hub ids, folders, GGUF files, options. Nothing is downloaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from capacity.errors import CapacityError, DataError, SpecError
from capacity.models import hub
from capacity.models.loading import load, model_folder
from capacity.plan.hub_config import unavailable
from capacity.plan.memory import advice, memory_plan
from capacity.plan.model_names import ModelName, parse_model
from capacity.plan.models import ALIASES, check_trainable, model_shape, resolve

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache of huggingface_hub, and no way to fill it."""
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_options_are_part_of_the_name() -> None:
    named = parse_model("qwen2.5-3b?quantised=nf4&dtype=bf16")
    assert named == ModelName("qwen2.5-3b", dtype="bf16", quantised="nf4")
    assert str(named) == "qwen2.5-3b?dtype=bf16&quantised=nf4"
    assert str(parse_model("abacus-0.9m?dtype=fp32")) == "abacus-0.9m"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qwen2.5-3b?dtyp=bf16", "unknown option of a model 'dtyp': did you mean dtype"),
        ("qwen2.5-3b?dtype=bf8", "unknown dtype 'bf8': did you mean bf16"),
        ("qwen2.5-3b?quantised=int4", "unknown quantised 'int4'"),
        ("qwen2.5-3b?dtype", "'dtype' is not of the form name=value"),
        ("qwen2.5-3b?dtype=bf16&dtype=fp16", "'dtype=fp16' is given twice"),
        ("?dtype=bf16", "has no name"),
        ("qwen2.5-4b", r"unknown model 'qwen2\.5-4b': did you mean"),
        ("./absent", r"\./absent: no such folder"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(name)


def test_resolve_keeps_what_makes_another_base(tmp_path: Path) -> None:
    assert resolve("Qwen/Qwen2.5-3B-Instruct?dtype=bf16") == "qwen2.5-3b?dtype=bf16"
    assert resolve("abacus") == "abacus-0.9m"
    assert resolve("some/model") == "some/model"
    assert resolve(str(tmp_path)) == str(tmp_path)
    assert model_shape("qwen2.5-3b?dtype=bf16") == ("qwen2.5-3b", ALIASES["qwen2.5-3b"].shape)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("abacus?quantised=nf4", "too small to quantise"),
        ("abacus?revision=abc", "revision= belongs to models of the hub"),
        ("smollm2-135m?revision=abc", "revision= belongs to models of the hub"),
    ],
)
def test_options_that_do_not_go_together(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_trainable(resolve(name))


@pytest.mark.parametrize("name", ["qwen2.5-3b?dtype=bf16&revision=abc", "some/model", "smollm2-135m", "abacus"])
def test_every_other_model_may_be_trained(name: str) -> None:
    check_trainable(resolve(name))


def test_a_hub_model_out_of_reach_is_one_line() -> None:
    reached = r"some/model is not in the cache and the hub cannot be reached: connect once, or download https://"
    with pytest.raises(DataError, match=reached):
        model_shape("some/model")
    with pytest.raises(DataError, match=r"model Qwen/Qwen2\.5-3B-Instruct is not in the cache and the hub cannot"):
        model_folder("qwen2.5-3b")
    with pytest.raises(DataError, match="at revision abc is not in the cache"):
        load("qwen2.5-3b?revision=abc", "cpu")


class _Refusal(Exception):
    """Stands in for the errors of huggingface_hub, by name."""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "is gated: accept its terms at https://huggingface.co/org/m and set HF_TOKEN"),
        ("RepositoryNotFoundError", "is not on the hub, or is private"),
        ("RevisionNotFoundError", "no such revision"),
        ("ConnectionError", "the hub cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_one_line(kind: str, message: str) -> None:
    error = unavailable("org/m", None, type(kind, (_Refusal,), {})("many\nlines"))
    assert message in str(error)
    assert "\n" not in str(error)


def test_a_hub_model_in_the_cache_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "config.json"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    name, shape = model_shape("some/model")
    assert (name, shape.layers, len(shape.linears)) == ("some/model", 2, 14)
    assert model_folder("some/model") == tmp_path


def test_a_cached_config_alone_is_no_model(tmp_path: Path) -> None:
    assert not hub._is_whole(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1.safetensors"}}))
    assert not hub._is_whole(tmp_path)
    (tmp_path / "1.safetensors").touch()
    assert hub._is_whole(tmp_path)


def test_gguf_files_that_are_none(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    with pytest.raises(DataError, match=r"absent\.gguf: no such file"):
        model_shape(str(tmp_path / "absent.gguf"))
    (tmp_path / "text.gguf").write_text("no model at all, but long enough to hold a header of some kind")
    with pytest.raises(DataError, match=r"text\.gguf: not a GGUF file"):
        model_shape(str(tmp_path / "text.gguf"))


def test_quantisation_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from capacity.models import loading

    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    with pytest.raises(CapacityError, match=r"quantised=nf4 needs bitsandbytes: pip install bitsandbytes$"):
        load("abacus?quantised=nf4", "cpu")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_dtype_and_attention_come_from_the_name(attention: str, loaded: Any) -> None:
    import torch

    model, _ = load(f"abacus?dtype=bf16&attention={attention}", "cpu")
    assert model.config._attn_implementation == attention
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


PLAN: dict[str, Any] = {"trained": 0, "sequences": 64, "micro_batch": 4, "prompt_tokens": 256, "new_tokens": 512}


def test_memory_counts_weights_and_cache_exactly() -> None:
    shape = ALIASES["qwen2.5-3b"].shape
    plan = memory_plan(shape, **PLAN, dtype="bf16")
    assert plan.weights == 2 * shape.parameters
    assert plan.cache == 64 * 768 * 2 * 36 * 2 * 128 * 2
    assert memory_plan(shape, **PLAN).weights == 4 * shape.parameters
    assert memory_plan(shape, **PLAN, dtype="bf16", quantised="nf4").weights < 0.5 * plan.weights
    assert memory_plan(shape, **{**PLAN, "trained": shape.parameters}, full=True).update == 20 * shape.parameters
    assert plan.peak == max(plan.sampling, plan.training)


@pytest.mark.parametrize(
    ("available", "way_out"),
    [(10**12, None), (10**9, "quantised=nf4"), (9 * 10**9, "lower the task's max_new_tokens")],
)
def test_advice_names_what_to_change(available: int, way_out: str | None) -> None:
    least = memory_plan(ALIASES["qwen2.5-3b"].shape, **{**PLAN, "sequences": 1, "micro_batch": 1}, dtype="bf16")
    said = advice(least, available)
    assert (said is None) if way_out is None else (said is not None and way_out in said)
