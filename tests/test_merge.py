"""Weights with an update merged into them: one computation for `capacity export` and for rollouts, and its tally."""

import copy
from typing import Any

import pytest
import torch
from architectures import WEIGHTS, adapters, tiny

from capacity.adapters.attach import attach
from capacity.adapters.files.merge import MergeTally, merge, merged_weights
from capacity.adapters.model import AdaptedModel
from capacity.errors import DataError

ADAPTERS = {**adapters(), **WEIGHTS}


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny("gpt2")  # transposed weights, biases, a tied head


def updated(base: Any, kind: str, scale: float) -> AdaptedModel:
    adapted = attach(copy.deepcopy(base), ADAPTERS[kind], None)
    noise = torch.randn(adapted.trained_parameters, generator=torch.Generator().manual_seed(2))
    adapted.set_vector(adapted.vector() + scale * noise)
    return adapted


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["tinylora", "lora", "vera", "bitfit", "full"])
def test_an_engine_is_sent_the_weights_that_export_writes(base: Any, kind: str, dtype: str) -> None:
    adapted, tally = updated(base, kind, 1e-3), MergeTally()
    sent = dict(merged_weights(adapted, dtype, tally))
    assert torch.equal(adapted.vector(), updated(base, kind, 1e-3).vector())  # it is left as it is
    merged, report = merge(adapted, dtype)
    written = dict(merged.named_parameters())
    assert list(sent) == list(written) == [name for name, _ in base.named_parameters()]
    assert all(torch.equal(sent[name], written[name]) for name in written)
    assert tally.report() == report
    assert tally.bytes == sum(t.numel() * t.element_size() for t in sent.values())


def test_the_tally_counts_what_rounding_left() -> None:
    tally = MergeTally()
    weights, intended = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([2.0**-10, 2.0**-6, 1.0])
    tally.add("w", weights.bfloat16(), intended, (weights + intended).bfloat16())
    realised = torch.tensor([0.0, 2.0**-6, 1.0])  # a bf16 has 8 bits
    report = tally.report()
    assert (report.moved, report.worst_module) == (2 / 3, "w")
    assert report.cosine == tally.cosine == pytest.approx(float(torch.cosine_similarity(realised, intended, dim=0)))
    assert report.relative_norm == pytest.approx(float(realised.norm() / intended.norm()))
    lost = MergeTally()
    lost.add("w", weights.bfloat16(), torch.full((3,), 2.0**-10) * weights, weights.bfloat16())
    assert (lost.cosine, lost.report().relative_norm, lost.report().moved) == (0.0, 0.0, 0.0)


def test_an_update_that_is_zero_has_no_cosine_and_counts_as_realised(base: Any) -> None:
    adapted, tally = updated(base, "tinylora", 0.0), MergeTally()
    assert all(name for name, _ in merged_weights(adapted, "bf16", tally))
    assert tally.cosine is None
    report = tally.report()
    assert (report.cosine, report.worst_cosine, report.moved, report.relative_norm) == (1.0, 1.0, 0.0, 1.0)


def test_weights_beyond_the_range_of_their_dtype_are_refused_for_both(base: Any) -> None:
    adapted = updated(base, "full", 1e5)
    with pytest.raises(DataError, match=r"merged weight .* does not fit fp16: merge into fp32 or bf16"):
        dict(merged_weights(adapted, "fp16", MergeTally()))
    with pytest.raises(DataError, match=r"merged weight .* does not fit fp16: merge into fp32 or bf16"):
        merge(adapted, "fp16")
