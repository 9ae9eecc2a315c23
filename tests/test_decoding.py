"""Completions: every decoder draws what passes over single sequences without a cache give, by the same uniforms."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from architectures import CONFIGS, WEIGHTS, adapters, tiny
from given import assert_near, ragged
from scipy.stats import chisquare
from torch import Tensor, nn
from transformers import DynamicCache

from capacity.adapters.attach import attach
from capacity.adapters.lanes import pairs_of
from capacity.adapters.model import AdaptedModel
from capacity.forward.model import padded_logits
from capacity.forward.rollout import Rollout, pad_left
from capacity.sampling.decoding import complete as completing
from capacity.sampling.decoding import general
from capacity.sampling.decoding.blocks import BlockDecoder, takes
from capacity.sampling.decoding.cache import RoomyLayer
from capacity.sampling.decoding.complete import complete
from capacity.sampling.decoding.general import GeneralDecoder
from capacity.sampling.own_model import unadapted
from capacity.spec.adapters import Lora, LoraXs, Steering

FAMILIES = ("qwen2", "llama", "qwen3")
PROMPTS = ragged([4, 1, 3, 1, 2])[0]  # groups and single prompts, of different lengths
LONGEST = 10
ENDS = (2, 11, 17, 23, 31, 42, 55)  # so many that sequences end at different times


def uniforms_of(rows: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, LONGEST, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def completed(decoder: Any, temperature: float = 0.9, prompts: Any = PROMPTS, ends: Collection[int] = ENDS) -> Rollout:
    ids, mask = pad_left(prompts, 0)
    return complete(decoder, ids, mask, uniforms_of(len(ids)), temperature=temperature, ends=ends, pad=0)


def decoders(adapted: AdaptedModel) -> dict[str, Any]:
    return {
        "general": GeneralDecoder(adapted.model),
        "blocks": BlockDecoder(adapted.bare, [pairs_of(adapted)]),
    }


def trained(name: str, kind: str | None, **changes: Any) -> AdaptedModel:
    """A model with an update far from zero, or with none."""
    base = tiny(name, **changes)
    if kind is None:
        return unadapted(base)
    adapted = attach(base, {**adapters(), **WEIGHTS}[kind], None)
    start = adapted.vector()
    scale = 0.02 if kind in WEIGHTS else 0.3
    adapted.set_vector(start + scale * torch.randn(start.shape, generator=torch.Generator().manual_seed(3)))
    return adapted


def check(rollout: Rollout, model: nn.Module, temperature: float = 0.9) -> None:
    """Compares completions, and what the sampler has measured, with one pass over them, without a cache.

    Each token must be the one that its uniform draws, given the tokens before it.
    """
    mask = rollout.completion_mask.bool()
    lengths = mask.sum(1).tolist()
    with torch.no_grad():
        logits = padded_logits(model, rollout).double()
    if temperature == 0:
        drawn = logits.argmax(-1)
    else:
        cumulative = (logits / temperature).softmax(-1).cumsum(-1)
        uniforms = uniforms_of(len(mask))[:, : mask.shape[1], None]
        drawn = (cumulative <= uniforms * cumulative[..., -1:]).sum(-1)
    assert torch.equal(drawn[mask], rollout.completion_ids[mask])
    for row, completion in enumerate(rollout.completions()):
        assert not set(completion[:-1]) & set(ENDS)
        assert completion[-1] in ENDS or len(completion) == LONGEST
        assert not rollout.completion_ids[row, lengths[row] :].any()
    assert max(lengths) == mask.shape[1]
    assert temperature == 0 or min(lengths) < max(lengths)
    logprobs = logits.log_softmax(-1)
    of_pass = {
        "plain": logprobs.gather(-1, rollout.completion_ids[..., None])[..., 0] * mask,
        "entropies": -(logprobs.exp() * logprobs).sum(-1) * mask,
    }
    found = {"plain": rollout.plain_logprobs, "entropies": rollout.entropies}
    if temperature:
        tempered = (logits / temperature).log_softmax(-1)
        of_pass["drawn"] = tempered.gather(-1, rollout.completion_ids[..., None])[..., 0] * mask
        found["drawn"] = rollout.sampler_logprobs
    else:
        assert not rollout.sampler_logprobs.any()
    assert_near({name: t.double() for name, t in found.items() if t is not None}, of_pass)


@pytest.mark.parametrize("kind", [None, *adapters(), "full", "bitfit"])
@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_and_the_models_own_pass_draw_the_same(name: str, kind: str | None) -> None:
    if (name, kind) in (("llama", "bitfit"), ("qwen3", "bitfit")):
        pytest.skip("this model has no biases")
    adapted = trained(name, kind)
    assert takes(adapted)
    drawn = {name: completed(decoder) for name, decoder in decoders(adapted).items()}
    assert torch.equal(drawn["blocks"].completion_ids, drawn["general"].completion_ids)
    for rollout in drawn.values():
        check(rollout, adapted.model)
    if kind is None:
        return
    with adapted.switched_off():
        off = {name: completed(decoder) for name, decoder in decoders(adapted).items()}
        for rollout in off.values():
            check(rollout, adapted.model)
    assert not torch.equal(off["blocks"].plain_logprobs, drawn["blocks"].plain_logprobs)
    with pytest.raises(AssertionError):
        check(off["blocks"], adapted.model)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("llama", {"head_dim": 16, "num_key_value_heads": 4}),
        ("llama", {"num_key_value_heads": 1}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}}),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 16,
                    "rope_theta": 100.0,
                }
            },
        ),
        (
            "qwen2",
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 16,
                    "rope_theta": 100.0,
                }
            },
        ),
        ("qwen3", {"attention_bias": True}),
    ],
)
def test_blocks_follow_the_settings_of_their_model(name: str, changes: dict[str, Any]) -> None:
    adapted = trained(name, "lora", **changes)
    assert takes(adapted)
    rollout = completed(decoders(adapted)["blocks"])
    check(rollout, adapted.model)
    with pytest.raises(AssertionError):
        check(rollout, trained(name, "lora").model)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt2", {}),
        ("phi3", {"sliding_window": 6}),
        ("gemma3_text", {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
        ("gemma2", {"sliding_window": 5, "attn_logit_softcapping": 2.0}),
        ("mixtral", {}),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_general_decoder_draws_right_on_other_architectures(
    name: str, changes: dict[str, Any], temperature: float
) -> None:
    model = tiny(name, **changes)
    assert not takes(unadapted(model))
    check(completed(GeneralDecoder(model), temperature), model, temperature)


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_completions_are_those_of_generate(name: str) -> None:
    adapted = trained(name, "lora")
    ids, mask = pad_left(PROMPTS, 0)
    theirs = adapted.model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=LONGEST, eos_token_id=list(ENDS),
        pad_token_id=0,
    )[:, ids.shape[1] :]  # fmt: skip
    for decoder in decoders(adapted).values():
        ours = completed(decoder, 0.0)
        assert torch.equal(ours.completion_ids, theirs[:, : ours.completion_ids.shape[1]])
        check(ours, adapted.model, 0.0)


@pytest.mark.parametrize("kind", ["blocks", "general"])
def test_the_batch_and_what_is_dropped_from_it_change_no_row(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = trained("qwen2", "lora-xs")
    kept: list[int] = []

    def under(share: float) -> Rollout:
        decoder = decoders(adapted)[kind]
        keep = decoder.keep
        decoder.keep = lambda rows: kept.append(len(rows)) or keep(rows)
        monkeypatch.setattr(completing, "_WORTH_DROPPING", share)
        kept.clear()
        return completed(decoder)

    never = under(0.0)
    assert len(kept) <= (kind == "general")  # which expands prompts by `keep`
    always = under(1.0)
    assert len(kept) > LONGEST // 2
    for name, tensor in never.tensors():
        torch.testing.assert_close(dict(always.tensors())[name], tensor, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["gemma3_text", "mistral"])
def test_rows_leave_caches_of_windows_in_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"layer_types": ["sliding_attention", "full_attention"]} if name == "gemma3_text" else {}
    model = tiny(name, sliding_window=4, **changes)
    monkeypatch.setattr(completing, "_WORTH_DROPPING", 1.0)
    check(completed(GeneralDecoder(model)), model)


@pytest.mark.parametrize(
    ("name", "changes", "roomy_layers"),
    [
        ("gpt2", {}, 2),
        ("gemma3_text", {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}, 1),
    ],
)
def test_a_cache_with_room_gives_what_a_growing_cache_gives_and_copies_nothing(
    name: str, changes: dict[str, Any], roomy_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(name, **changes)
    monkeypatch.setattr(completing, "_WORTH_DROPPING", 1.0)
    decoder, places = GeneralDecoder(model), set()
    step = decoder.step

    def watched(tokens: torch.Tensor) -> torch.Tensor:
        logits = step(tokens)
        places.add(tuple(layer.keys.data_ptr() for layer in decoder.cache.layers if isinstance(layer, RoomyLayer)))
        return logits

    decoder.step = watched
    roomy = completed(decoder)
    assert len(places) == 1
    assert len(next(iter(places))) == roomy_layers
    monkeypatch.setattr(general, "roomy_cache", lambda config, _: DynamicCache(config=config))
    growing = completed(GeneralDecoder(model))
    assert torch.equal(roomy.completion_ids, growing.completion_ids)
    torch.testing.assert_close(roomy.plain_logprobs, growing.plain_logprobs, atol=1e-6, rtol=1e-6)


def test_without_end_tokens_completions_have_the_largest_length() -> None:
    for decoder in decoders(trained("llama", None)).values():
        rollout = completed(decoder, ends=())
        assert rollout.completion_mask.all()
        assert rollout.completion_ids.shape[1] == LONGEST


@pytest.mark.parametrize("kind", ["blocks", "general"])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_samples_follow_the_models_distribution(kind: str, temperature: float) -> None:
    """All sequences of two tokens, of which the first may end them, against their exact probabilities."""
    vocabulary, end, count = 9, 3, 4000
    model = tiny("qwen2", vocab_size=vocabulary)
    adapted = unadapted(model)
    prompt = [1, 5, 4]
    with torch.no_grad():
        rows = torch.tensor([[*prompt, token] for token in range(vocabulary)])
        logits = model(input_ids=rows).logits.double() / temperature
    first, second = logits[0, 2].softmax(0), logits[:, 3].softmax(1)
    exact = {(a,): float(first[a]) for a in [end]}
    exact |= {(a, b): float(first[a] * second[a, b]) for a in range(vocabulary) if a != end for b in range(vocabulary)}

    ids, mask = pad_left([prompt] * count, 0)
    uniforms = torch.from_numpy(np.random.default_rng(0).random((count, 2)))
    drawn = complete(decoders(adapted)[kind], ids, mask, uniforms, temperature=temperature, ends=[end], pad=0)
    counts = dict.fromkeys(exact, 0)
    for completion in drawn.completions():
        counts[tuple(completion)] += 1
    likely = [cell for cell, p in exact.items() if p * count >= 5]

    def p_value(shares: dict[tuple[int, ...], float]) -> float:
        observed = [counts[cell] for cell in likely]
        wanted = [shares[cell] * count for cell in likely]
        rest = count - sum(observed), count - sum(wanted)
        if rest[1] > 5:
            observed.append(rest[0])
            wanted.append(rest[1])
        return float(chisquare(observed, np.array(wanted) * sum(observed) / sum(wanted)).pvalue)

    assert len(likely) > 20
    assert p_value(exact) > 0.01
    hotter = {cell: p**0.8 for cell, p in exact.items()}
    assert p_value({cell: p / sum(hotter.values()) for cell, p in hotter.items()}) < 1e-6


def hooked() -> AdaptedModel:
    model = tiny("llama")
    model.model.layers[0].mlp.register_forward_hook(lambda *_: None)
    return unadapted(model)


def before_hooked() -> AdaptedModel:
    model = tiny("llama")
    model.model.layers[0].self_attn.q_proj.register_forward_pre_hook(lambda *_: None)
    return unadapted(model)


def foreign() -> AdaptedModel:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("llama"), LoraConfig(target_modules=["q_proj"]))
    return AdaptedModel(model, unadapted(model).adapter, model.base_model.model)


def foreign_beside_ours() -> AdaptedModel:
    from peft import LoraConfig, get_peft_model

    model = tiny("llama")
    get_peft_model(model, LoraConfig(target_modules=["embed_tokens"]))
    return attach(model, LoraXs(rank=2), None)


def merged() -> AdaptedModel:
    adapted = trained("llama", "lora")
    adapted.model.merge_adapter()
    return adapted


def another_adapter() -> AdaptedModel:
    from peft import LoraConfig

    adapted = trained("llama", "lora")
    targets = [shape.name for shape in adapted.shapes]
    adapted.model.add_adapter("other", LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    adapted.model.set_adapter("other")
    return adapted


class Scaled(transformers.LlamaForCausalLM):
    """A model of a user's own, which says that it is a Llama."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * 0.5
        return out


def own_forward() -> AdaptedModel:
    kind, settings = CONFIGS["llama"]
    return unadapted(Scaled(getattr(transformers, kind)(**settings)).eval())


class Doubled(nn.Linear):
    """A linear that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def other_linear() -> AdaptedModel:
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj = Doubled(48, 80, bias=False)
    return unadapted(model)


REFUSED = {
    "hooks": hooked,
    "hooks before": before_hooked,
    "steering": lambda: attach(tiny("llama"), Steering(), None),
    "dynamic rope": lambda: trained(
        "llama", None, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}
    ),
    "windows": lambda: trained("qwen2", None, use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "another activation": lambda: trained("llama", None, hidden_act="gelu"),
    "bf16": lambda: unadapted(tiny("llama", torch.bfloat16)),
    "bf16 with an update": lambda: attach(tiny("llama", torch.bfloat16), Lora(rank=2, init_seed=0), None),
    "foreign layers": foreign,
    "foreign layers beside ours": foreign_beside_ours,
    "a merged update": merged,
    "another adapter": another_adapter,
    "a forward pass of its own": own_forward,
    "another linear": other_linear,
    "mixtral": lambda: unadapted(tiny("mixtral")),
    "gemma": lambda: unadapted(tiny("gemma")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_blocks_refuse_what_they_would_get_wrong(case: str) -> None:
    adapted = REFUSED[case]()
    assert not takes(adapted)
    if adapted.model.dtype == torch.float32:  # the general decoder is right where blocks are not
        check(completed(GeneralDecoder(adapted.model.eval())), adapted.model)


def test_weights_are_those_of_the_moment_when_the_decoder_is_made() -> None:
    adapted = trained("qwen2", "lora-xs")
    before = completed(decoders(adapted)["blocks"])
    start = adapted.vector()
    adapted.set_vector(start * 3)
    check(completed(decoders(adapted)["blocks"]), adapted.model)
    with pytest.raises(AssertionError):
        check(before, adapted.model)
    adapted.set_vector(start)
    check(before, adapted.model)
