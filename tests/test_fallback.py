"""Models that packed tokens cannot go through: their rows are padded, they say so once, and nothing else changes."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from architectures import _COMMON as COMMON
from architectures import tiny
from given import assert_near, assert_same_predictions, given_rollout, ragged
from sampled import sample
from torch import Tensor, nn

from capacity.adapters.attach import attach
from capacity.forward.model import Forward, padded_predictions
from capacity.forward.rollout import Rollout
from capacity.spec.adapters import LoraXs

WINDOW = 12  # longer than the sequences of the trial by which packing is found out, shorter than these
PROMPTS, COMPLETIONS = ragged([4, 2])
ROLLOUT = given_rollout([[*range(3, 17)]] * 4 + PROMPTS[4:], [[*range(20, 33)], *COMPLETIONS[1:]])
_STATES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "bos_token_id": 1, "eos_token_id": 2}
_EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "states": ("MambaConfig", {**_STATES, "state_size": 4, "pad_token_id": 0}),
    "convolutions": ("Lfm2Config", {**COMMON, "layer_types": ["conv", "full_attention"]}),
    "window in the mask alone": ("PhimoeConfig", {**COMMON, **_EXPERTS, "sliding_window": WINDOW}),
    "chunks": ("Llama4TextConfig", {**COMMON, **_EXPERTS, "head_dim": 12, "attention_chunk_size": WINDOW}),
    "sinks": ("GptOssConfig", {**COMMON, **_EXPERTS, "head_dim": 16, "sliding_window": WINDOW}),
    "slopes": ("MptConfig", {"vocab_size": 61, "d_model": 48, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}),
    "an attention of its own": ("BloomConfig", {"vocab_size": 61, "hidden_size": 48, "n_layer": 2, "n_head": 4}),
}


def odd(name: str) -> Any:
    """A random model of an architecture that does not pack."""
    kind, settings = CONFIGS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    return model.eval()


class Averaging(nn.Module):
    """A model that is no transformer: each token sees the mean of the embeddings before it, whatever it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=61)
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(61, 16), nn.Linear(16, 61)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, logits_to_keep: Any = 0, **_: Any
    ) -> Any:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        x = self.embed(input_ids) * mask[..., None]
        mean = x.cumsum(1) / mask.cumsum(1).clamp(min=1)[..., None]
        kept = logits_to_keep if isinstance(logits_to_keep, Tensor) else slice(-logits_to_keep, None)
        return SimpleNamespace(logits=self.head(mean[:, kept]))


def by_row(model: Any, rollout: Rollout) -> Tensor:
    """Log-probabilities from passes over one sequence each, without padding."""
    found = torch.zeros(rollout.completion_ids.shape)
    pairs = zip(rollout.prompt_ids, rollout.prompt_mask, rollout.completions(), strict=True)
    for row, (ids, mask, completion) in enumerate(pairs):
        alone = given_rollout([ids[mask.bool()].tolist()], [completion])
        found[row, : len(completion)] = padded_predictions(model, alone).logprobs()[0]
    return found


@pytest.mark.parametrize("name", [*CONFIGS, "averages"])
def test_other_models_fall_back_to_padded_rows_and_are_right(name: str) -> None:
    model = Averaging() if name == "averages" else odd(name)
    with pytest.warns(UserWarning, match=f"{type(model).__name__} does not take packed tokens, so rows are padded"):
        forward = Forward(model)
    assert not forward.packs
    found = forward(ROLLOUT)
    assert_near({"logprobs": found.logprobs()}, {"logprobs": by_row(model, ROLLOUT)})
    assert_same_predictions(found, padded_predictions(model, ROLLOUT))


def test_the_warning_comes_once_however_many_passes_and_places() -> None:
    model = odd("convolutions")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        first = Forward(model)
        for forward in (first, Forward(model), *(Forward(model) for _ in range(2))):
            forward(ROLLOUT)
    assert len([w for w in said if "packed tokens" in str(w.message)]) == 1


def test_a_model_that_packs_says_nothing_and_stays_in_its_mode() -> None:
    model = tiny("llama").train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Forward(model).packs
    assert model.training


def test_an_update_on_such_a_model_gets_its_gradient() -> None:
    adapted = attach(odd("convolutions"), LoraXs(rank=2), None)
    adapted.set_vector(0.3 * torch.randn(adapted.vector().shape, generator=torch.Generator().manual_seed(0)))
    (theta,) = adapted.trained.values()
    with pytest.warns(UserWarning, match="does not take packed tokens"):
        loss = Forward(adapted.model)(ROLLOUT).logprobs().sum()
    (found,) = torch.autograd.grad(loss, theta)
    (expected,) = torch.autograd.grad(by_row(adapted.model, ROLLOUT).sum(), theta)
    assert_near({"theta": found}, {"theta": expected})


@pytest.mark.parametrize("name", ["states", "convolutions", "window in the mask alone", "chunks", "sinks", "slopes"])
def test_such_models_are_sampled_by_the_general_decoder(name: str) -> None:
    model = odd(name)
    uniforms = torch.rand(len(PROMPTS), 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = list(range(20, 40))  # so that sequences end early and leave the batch
    drawn = sample(model, ROLLOUT.prompt_ids, ROLLOUT.prompt_mask, uniforms, temperature=1.0, ends=ends, pad=0)
    assert 1 <= int(drawn.completion_mask.sum(1).min()) < int(drawn.completion_mask.sum(1).max())
    with torch.no_grad():
        expected = by_row(model, drawn)
    assert_near({"logprobs": drawn.sampler_logprobs}, {"logprobs": expected})
