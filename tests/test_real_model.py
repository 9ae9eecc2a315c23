"""The adapter layer on a real pre-trained model, SmolLM2-135M: `make test-real`."""

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capacity.adapters.attach import attach
from capacity.adapters.files import artifact
from capacity.adapters.files.merge import merge
from capacity.adapters.files.peft_folder import load_peft_lora, save_peft_lora
from capacity.adapters.linears import weight_matrix
from capacity.adapters.model import AdaptedModel
from capacity.adapters.svd.checkpoint import WeightFolder
from capacity.adapters.svd.factors import Factors
from capacity.models.loading import load, model_folder
from capacity.plan.models import ALIASES
from capacity.spec.adapters import Adapter, Lora, LoraXs, TinyLora

THIRTEEN = TinyLora(groups=13, u=1, projection_seed=0)
TEXT = "She keeps 16 - 3 - 4 = 9 eggs to sell, so she earns 9 * 2 = 18 dollars."


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Any]:
    torch.set_num_threads(1)
    return load("smollm2-135m", "cpu")


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**tokenizer(TEXT, return_tensors="pt")).logits


def trained(base: Any, adapter: Adapter) -> AdaptedModel:
    adapted = attach(copy.deepcopy(base), adapter, None)
    generator = torch.Generator().manual_seed(0)
    adapted.set_vector(adapted.vector() + 0.02 * torch.randn(adapted.trained_parameters, generator=generator))
    return adapted


def test_all_modules_are_adapted_and_the_start_is_the_base(smollm2: Any) -> None:
    adapted = attach(copy.deepcopy(smollm2[0]), THIRTEEN, None)
    assert adapted.trained_parameters == 13
    assert len(adapted.shapes) == 210
    assert adapted.shapes == ALIASES["smollm2-135m"].shape.adapted_modules()
    assert torch.equal(logits(adapted.model, smollm2[1]), logits(smollm2[0], smollm2[1]))


def test_a_cached_second_start_takes_under_a_second(smollm2: Any, tmp_path: Path) -> None:
    weights = WeightFolder(model_folder("smollm2-135m"))
    attach(copy.deepcopy(smollm2[0]), THIRTEEN, tmp_path, weights=weights)
    taken = []
    for _ in range(3):  # the fastest is the one that other work on the machine has slowed least
        model = copy.deepcopy(smollm2[0])
        began = time.monotonic()
        attach(model, THIRTEEN, tmp_path, weights=weights)
        taken.append(time.monotonic() - began)
    assert min(taken) < 1, taken


@pytest.mark.parametrize("adapter", [THIRTEEN, LoraXs(rank=2), Lora(rank=1, init_seed=0)], ids=lambda a: a.kind)
def test_native_exported_and_merged_are_one(smollm2: Any, adapter: Adapter, tmp_path: Path) -> None:
    base, tokenizer = smollm2
    adapted = trained(base, adapter)
    payload = artifact.store(adapted, "bf16")
    fingerprint = artifact.base_fingerprint(base)
    data = artifact.pack(adapted, payload, model="smollm2-135m", base=fingerprint, dtype="bf16")
    if adapter == THIRTEEN:
        assert len(data) <= 1024
    expected = logits(adapted.model, tokenizer)
    moved = float((expected - logits(base, tokenizer)).abs().max())
    assert moved > 0.1
    rebuilt = artifact.rebuild(artifact.read(data, "update"), copy.deepcopy(base), None)
    torch.testing.assert_close(logits(rebuilt.model, tokenizer), expected, atol=1e-3, rtol=1e-4)
    save_peft_lora(adapted, tmp_path, "fp32", "smollm2-135m")
    peft = load_peft_lora(copy.deepcopy(base), tmp_path)
    torch.testing.assert_close(logits(peft, tokenizer), expected, atol=1e-3, rtol=1e-4)
    merged, report = merge(adapted, "fp32")
    torch.testing.assert_close(logits(merged, tokenizer), expected, atol=1e-3, rtol=1e-4)
    assert report.cosine > 0.9999


def test_a_second_svd_algorithm_rebuilds_the_same(smollm2: Any) -> None:
    adapted = trained(smollm2[0], THIRTEEN)
    factors, chosen = {}, adapted.shapes[::15]
    for shape in chosen:
        weight = weight_matrix(smollm2[0].get_submodule(shape.name)).double().numpy()
        u, s, vt = np.linalg.svd(weight, full_matrices=False)
        signs = np.sign(u[np.abs(u[:, :2]).argmax(axis=0), range(2)])
        factors[shape.name] = Factors(u[:, :2] * signs, s[:2], vt[:2] * signs[:, None], float(s[2]))
    other = attach(copy.deepcopy(smollm2[0]), THIRTEEN, None, factors=factors)
    other.set_vector(adapted.vector())
    for (shape, a, b), (_, c, d) in zip(adapted.pairs(), other.pairs(), strict=True):
        if shape in chosen:
            assert float((b @ a - d @ c).norm() / (b @ a).norm()) <= 1e-4, shape.name
