"""A packed pass over a model is the padded one: predictions and gradients, on every architecture."""

import copy
import warnings
from typing import Any

import pytest
import torch
from architectures import ATTENTION, CONFIGS, MIXTURES, adapters, tiny
from fakes import unhurried
from given import Sequences, assert_near, assert_same_predictions, given_rollout, gradients, ragged, sequences
from hypothesis import given, settings

from capacity.adapters.attach import attach
from capacity.adapters.model import AdaptedModel
from capacity.forward import attention
from capacity.forward.model import Forward, joint_predictions, packed_predictions, padded_predictions
from capacity.forward.packing import pack
from capacity.forward.rollout import Rollout

# Windows are shorter than the sequences, and soft caps bend the scores of these models.
SHORT: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
    "gemma3_text": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "mistral": {"sliding_window": 5},
    "phi3": {"sliding_window": 6},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
}
VARIANTS = {**{name: (name, {}) for name in CONFIGS}, **{f"{name}-short": (name, SHORT[name]) for name in SHORT}}
ROLLOUT = given_rollout(*ragged([4, 4, 2, 6]))


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: Any) -> tuple[str, Any]:
    name, changes = VARIANTS[request.param]
    return name, tiny(name, **changes)


def adapted_copy(name: str, base: Any, kind: str) -> AdaptedModel:
    """The model with an update far from zero. The experts of a mixture are not adapted."""
    targets = ATTENTION if name in MIXTURES else None
    adapted = attach(copy.deepcopy(base), adapters(targets)[kind], None)
    start = adapted.vector()
    adapted.set_vector(start + 0.3 * torch.randn(start.shape, generator=torch.Generator().manual_seed(3)))
    return adapted


def compared(model: Any, parameters: dict[str, Any], rollout: Rollout) -> None:
    packed, padded = packed_predictions(model, rollout), padded_predictions(model, rollout)
    assert_same_predictions(packed, padded)
    assert_near(gradients(packed, parameters, 0.7), gradients(padded, parameters, 0.7))


def test_predictions_and_the_gradient_of_every_weight_are_those_of_padded_rows(variant: tuple[str, Any]) -> None:
    _, model = variant
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Forward(model).packs
    assert pack(ROLLOUT).k == 2
    compared(model, dict(model.named_parameters()), ROLLOUT)


@pytest.mark.parametrize("kind", ["tinylora", "lora-xs", "lora"])
def test_the_gradient_of_an_update_is_that_of_padded_rows(variant: tuple[str, Any], kind: str) -> None:
    adapted = adapted_copy(*variant, kind)
    compared(adapted.model, adapted.trained, ROLLOUT)
    with torch.no_grad(), adapted.switched_off():
        assert_same_predictions(packed_predictions(adapted.model, ROLLOUT), padded_predictions(variant[1], ROLLOUT))


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gemma3_text", "gpt2"])
def test_any_lengths_and_repetitions_give_what_padded_rows_give(name: str) -> None:
    adapted = adapted_copy(name, tiny(name, **SHORT.get(name, {})), "lora-xs")

    @settings(unhurried, max_examples=25)
    @given(sequences())
    def check(rows: Sequences) -> None:
        compared(adapted.model, adapted.trained, given_rollout(*rows))

    check()


@pytest.mark.parametrize("name", SHORT)
def test_windows_and_soft_caps_of_these_models_matter(name: str) -> None:
    short, usual = (padded_predictions(tiny(name, **changes), ROLLOUT).logprobs() for changes in (SHORT[name], {}))
    assert float((short - usual).abs().max()) > 0.1


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_a_shared_prompt_gives_the_gradient_of_repeated_prompts(name: str) -> None:
    model = tiny(name, **SHORT.get(name, {}))
    parameters = dict(model.named_parameters())
    shared = given_rollout(*ragged([4, 4, 4]))
    shuffled = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]  # no neighbours have the same prompt
    repeated = shared.selected(torch.tensor(shuffled))
    assert (pack(shared).k, pack(repeated).k) == (4, 1)
    assert pack(shared).tokens < pack(repeated).tokens
    one, other = packed_predictions(model, shared), packed_predictions(model, repeated)
    weights = torch.randn(one.shape, generator=torch.Generator().manual_seed(7))
    logprobs = one.logprobs(), other.logprobs()
    torch.testing.assert_close(logprobs[0][shuffled], logprobs[1], atol=1e-5, rtol=1e-5)
    found, expected = (
        dict(zip(parameters, torch.autograd.grad((lp * w).sum(), list(parameters.values())), strict=True))
        for lp, w in ((logprobs[0], weights), (logprobs[1], weights[shuffled]))
    )
    assert_near(found, expected)


def test_equal_sequences_are_computed_once_with_the_gradient_of_all_of_them() -> None:
    """Both rows of the first prompt, and two of the three of the second, say the same."""
    prompts = [[3, 4], [3, 4], [5], [5], [5]]
    rollout = given_rollout(prompts, [[7, 8, 9], [7, 8, 9], [7, 8, 9], [6, 2], [7, 8, 9]])
    packed = pack(rollout)
    assert packed.completions.lengths.tolist() == [2, 0, 2, 1, 0]
    adapted = adapted_copy("qwen2", tiny("qwen2"), "lora-xs")
    assert len(packed_predictions(adapted.model, rollout).logits) == 3 + 3 + 2  # of 14 completion tokens
    compared(adapted.model, adapted.trained, rollout)


def test_rows_without_a_token_and_padding_in_every_row_change_nothing() -> None:
    """An engine may give back empty completions, and rows are cut out of wider batches."""
    model = tiny("llama")
    prompts, completions = ragged([2, 2])
    completions[1] = []
    whole = given_rollout(prompts, completions)
    wider = Rollout(
        **{
            name: torch.nn.functional.pad(tensor, (3, 0) if name.startswith("prompt") else (0, 3))
            for name, tensor in whole.tensors()
        }
    )
    compared(model, dict(model.named_parameters()), whole)
    compared(model, dict(model.named_parameters()), wider)
    width = whole.completion_ids.shape[1]
    found, expected = packed_predictions(model, wider).logprobs(), packed_predictions(model, whole).logprobs()
    assert torch.equal(found[:, :width], expected)
    assert not found[:, width:].any()
    assert not expected[1].any()


@pytest.mark.parametrize("name", ["qwen2", "mistral"])
def test_rows_too_long_to_hold_their_scores_go_through_fused_attention(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(name, **SHORT[name])
    parameters = dict(model.named_parameters())
    held = packed_predictions(model, ROLLOUT)
    expected = gradients(held, parameters)
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(attention, "_HELD", 4)
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", lambda *a, **k: calls.append(a) or fused(*a, **k))
    long = packed_predictions(model, ROLLOUT)
    assert len(calls) == 2 * model.config.num_hidden_layers  # prompts, then completions
    assert_same_predictions(long, held)
    assert_near(gradients(long, parameters), expected)


@pytest.mark.parametrize("name", ["qwen2", "gemma3_text"])
def test_runs_in_one_pass_get_what_each_gets_alone(name: str) -> None:
    model = tiny(name, **SHORT[name])
    rollouts = [ROLLOUT, given_rollout(*ragged([1, 1, 1], seed=4)), given_rollout([[5], [5]], [[7], [8]])]
    together = joint_predictions(model, rollouts)
    for found, rollout in zip(together, rollouts, strict=True):
        assert_same_predictions(found, packed_predictions(model, rollout))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gpt2"])
def test_half_precision_is_as_near_to_the_truth_packed_as_padded(name: str, dtype: torch.dtype) -> None:
    model = tiny(name, dtype)
    truth = padded_predictions(copy.deepcopy(model).float(), ROLLOUT).logprobs()
    packed, padded = packed_predictions(model, ROLLOUT), padded_predictions(model, ROLLOUT)
    assert Forward(model).packs
    assert packed.logits.dtype == torch.float32
    errors = [float(torch.linalg.vector_norm(p.logprobs() - truth).detach()) for p in (packed, padded)]
    assert 0 < errors[0] < 1.5 * errors[1]


def test_dropout_is_off_in_training_passes() -> None:
    model = tiny("gpt2")
    assert model.config.resid_pdrop == model.config.embd_pdrop == model.config.attn_pdrop == 0.1
    expected = padded_predictions(model.eval(), ROLLOUT).logprobs()
    for packs in (True, False):
        forward = Forward(model)
        forward.packs = packs
        model.train()  # as TRL's trainers do before each step
        torch.testing.assert_close(forward(ROLLOUT).logprobs(), expected, atol=1e-5, rtol=1e-5)


def test_the_models_own_attention_is_put_back() -> None:
    model = tiny("llama")
    before = model(input_ids=ROLLOUT.prompt_ids).logits
    implementation = model.config._attn_implementation
    packed_predictions(model, ROLLOUT)
    assert model.config._attn_implementation == implementation
    broken = tiny("gpt2")
    with pytest.raises(IndexError):
        packed_predictions(broken, given_rollout([[1]], [[5, 200, 6]]))  # no such token
    assert broken.config._attn_implementation == implementation
    assert torch.equal(model(input_ids=ROLLOUT.prompt_ids).logits, before)
