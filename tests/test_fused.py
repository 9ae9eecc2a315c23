"""The fused layer is PEFT's own layer around the same factors, whatever is switched on beside them."""

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from architectures import IDS, MASK, adapters, logits, tiny
from given import assert_near
from peft import LoraConfig
from peft.tuners.lora.layer import Linear
from torch import Tensor

from capacity.adapters import linear as fused_linear
from capacity.adapters.attach import attach
from capacity.adapters.kinds.fused import FusedLinear
from capacity.adapters.kinds.low_rank import NAME
from capacity.adapters.model import AdaptedModel

KINDS = ("tinylora", "tinylora-split", "lora-xs")


def adapted_model(kind: str = "lora-xs", name: str = "qwen2", dtype: Any = torch.float32, scale: float = 0.3) -> Any:
    adapted = attach(tiny(name, dtype), adapters()[kind], None)
    start = adapted.vector()
    adapted.set_vector(scale * torch.randn(start.shape, generator=torch.Generator().manual_seed(3)))
    return adapted


def pefts_own(adapted: AdaptedModel) -> AdaptedModel:
    """A copy whose layers take PEFT's forward pass."""
    other = copy.deepcopy(adapted)
    for shape in other.shapes:
        layer = other.bare.get_submodule(shape.name)
        assert type(layer) is FusedLinear
        layer.__class__ = Linear
    return other


@contextmanager
def fused_passes() -> Iterator[list[int]]:
    """Counts the passes that are fused, in a list of one number."""
    count, apply = [0], fused_linear._Adapted.apply

    def counted(*args: Any) -> Any:
        count[0] += 1
        return apply(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_linear._Adapted, "apply", counted)
        yield count


def passed(model: Any, parameters: dict[str, Any]) -> dict[str, Tensor]:
    """Logits of two padded sequences, the gradient of a sum of them, and that of the embeddings that go in."""
    inputs = model.get_input_embeddings()(IDS).detach().requires_grad_(True)
    out = model(inputs_embeds=inputs, attention_mask=MASK).logits[MASK.bool()].float()
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad((out * weights).sum(), [inputs, *parameters.values()], allow_unused=True)
    named = dict(zip(["inputs", *parameters], found, strict=True))
    return {"logits": out.detach()} | {name: g for name, g in named.items() if g is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["qwen2", "llama", "gemma", "phi"])
def test_outputs_and_gradients_are_those_of_pefts_layer(name: str, kind: str) -> None:
    adapted = adapted_model(kind, name)
    theirs = pefts_own(adapted)
    with fused_passes() as count:
        found = passed(adapted.model, adapted.trained)
    assert count[0] == len(adapted.shapes)
    with fused_passes() as count:
        expected = passed(theirs.model, theirs.trained)
    assert count[0] == 0
    assert len(found) == 2 + len(adapted.trained)
    assert_near(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_without_an_update_it_is_the_base_bit_for_bit(kind: str) -> None:
    base = tiny("qwen2")
    adapted = adapted_model(kind, scale=0.0)
    with fused_passes() as count:
        assert torch.equal(logits(adapted.model), logits(base))
    assert count[0] == len(adapted.shapes)


def test_one_layer_with_odd_shapes() -> None:
    """Inputs of no token, of one dimension and of four, with and without a gradient of their own."""
    adapted = adapted_model()
    layer, shape = adapted.layer(adapted.shapes[0]), adapted.shapes[0]
    theirs = copy.deepcopy(layer)
    theirs.__class__ = Linear
    for size in ((0,), (), (1,), (2, 3, 5)):
        x = torch.randn(*size, shape.k)
        with fused_passes() as count:
            found = layer(x)
        assert count[0] == 1
        torch.testing.assert_close(found, theirs(x), atol=1e-5, rtol=1e-5)
        assert found.shape == (*size, shape.d)
        strided = torch.randn(*size, 2 * shape.k)[..., ::2].requires_grad_(True)
        ours, other = (torch.autograd.grad(m(strided).square().sum(), strided)[0] for m in (layer, theirs))
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-5)


def second(adapted: AdaptedModel) -> None:
    targets = [shape.name for shape in adapted.shapes]
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        adapted.model.add_adapter("second", config)


def off(adapted: AdaptedModel) -> None:
    for shape in adapted.shapes:
        adapted.layer(shape).enable_adapters(False)


def merged(adapted: AdaptedModel) -> None:
    adapted.model.merge_adapter()


def other_on(adapted: AdaptedModel) -> None:
    second(adapted)
    adapted.model.set_adapter("second")


def both_on(adapted: AdaptedModel) -> None:
    second(adapted)
    adapted.bare.peft_config = adapted.model.peft_config
    adapted.model.base_model.set_adapter([NAME, "second"])


def scaled(adapted: AdaptedModel) -> None:
    for shape in adapted.shapes:
        adapted.layer(shape).scale_layer(0.5)


@pytest.mark.parametrize("change", [off, merged, other_on, both_on, scaled])
def test_whatever_else_is_switched_on_takes_pefts_pass(change: Any) -> None:
    adapted = adapted_model()
    usual = logits(adapted.model)
    change(adapted)
    theirs = pefts_own(adapted)
    with fused_passes() as count:
        found = logits(adapted.model)
    assert count[0] == 0
    assert torch.equal(found, logits(theirs.model))
    if change is merged:
        torch.testing.assert_close(found, usual, atol=2e-5, rtol=1e-5)
        adapted.model.unmerge_adapter()
        torch.testing.assert_close(logits(adapted.model), usual, atol=2e-5, rtol=1e-5)
    else:
        assert float((found - usual).abs().max()) > 5e-3


def test_a_second_adapter_that_is_not_on_changes_nothing() -> None:
    adapted = adapted_model()
    usual = logits(adapted.model)
    second(adapted)
    with fused_passes() as count:
        assert torch.equal(logits(adapted.model), usual)
    assert count[0] == len(adapted.shapes)
    adapted.model.delete_adapter("second")
    assert torch.equal(logits(adapted.model), usual)


@pytest.mark.parametrize("kind", ["tinylora", "lora-xs"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_takes_pefts_pass(kind: str, dtype: torch.dtype) -> None:
    adapted = adapted_model(kind, dtype=dtype)
    theirs = pefts_own(adapted)
    with fused_passes() as count:
        found = passed(adapted.model, adapted.trained)
    assert count[0] == 0
    expected = passed(theirs.model, theirs.trained)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_automatic_mixed_precision_gives_what_pefts_layer_gives() -> None:
    adapted = adapted_model()
    theirs = pefts_own(adapted)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (passed(a.model, a.trained) for a in (adapted, theirs))
    assert_near(found, expected, relative=0.02)  # of bf16


@pytest.mark.parametrize("what", ["weight", "bias"])
def test_a_base_that_trains_gets_its_gradient(what: str) -> None:
    adapted = adapted_model()
    theirs = pefts_own(adapted)
    name = f"{adapted.shapes[0].name}.base_layer.{what}"
    found, expected = (
        passed(a.model, {what: a.bare.get_parameter(name).requires_grad_(True), **a.trained}) for a in (adapted, theirs)
    )
    assert what in expected
    assert_near(found, expected)


def test_copies_and_pickles_are_their_own() -> None:
    adapted = adapted_model("tinylora")
    usual = logits(adapted.model)
    for other in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        with fused_passes() as count:
            assert torch.equal(logits(other.model), usual)
        assert count[0] == len(adapted.shapes)
        assert_near(passed(other.model, other.trained), passed(adapted.model, adapted.trained))
        other.set_vector(other.vector() * 2)
        assert not torch.equal(logits(other.model), usual)
        assert torch.equal(logits(adapted.model), usual)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant: bool) -> None:
    adapted = adapted_model()
    adapted.model.train()
    expected = passed(adapted.model, adapted.trained)
    adapted.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    parameters = adapted.trained
    inputs = adapted.model.get_input_embeddings()(IDS).detach().requires_grad_(True)
    with fused_passes() as count:
        out = adapted.model(inputs_embeds=inputs, attention_mask=MASK, use_cache=False).logits[MASK.bool()]
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
        torch.autograd.backward((out * weights).sum())
    assert count[0] == 2 * len(adapted.shapes)  # each layer goes forward twice
    found = {"logits": out.detach(), "inputs": inputs.grad, **{name: p.grad for name, p in parameters.items()}}
    assert_near({name: g for name, g in found.items() if g is not None}, expected)


def test_a_pass_without_gradient_keeps_no_graph() -> None:
    adapted = adapted_model()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert not adapted.model(input_ids=IDS, attention_mask=MASK).logits.requires_grad
    assert adapted.model(input_ids=IDS, attention_mask=MASK).logits.requires_grad
