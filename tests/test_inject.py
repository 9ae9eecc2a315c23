import copy
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from peft import TinyLoraConfig, get_peft_model
from torch import nn

from capacity.adapters.attach import attach
from capacity.adapters.linears import adapted_modules
from capacity.adapters.model import AdaptedModel
from capacity.errors import SpecError
from capacity.plan.models import ALIASES
from capacity.spec.adapters import FullUpdate, NoAdapter, TinyLora

IDS = torch.tensor([[1, 4, 5, 13, 6, 7, 13, 8, 9, 13, 10, 11, 14, 18], [0, 0, 1, 4, 5, 13, 6, 7, 13, 8, 9, 13, 3, 4]])
MASK = (IDS != 0).long()

THETA = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.theta"


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK).logits


def randomise(adapted: AdaptedModel, scale: float = 0.1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    update = {n: scale * torch.randn(t.shape, generator=generator) for n, t in adapted.update().items()}
    adapted.set_update(update)
    return update


def tinylora(groups: int, u: int, **options) -> TinyLora:
    return TinyLora(groups=groups, u=u, projection_seed=3, **options)


def test_modules_of_the_loaded_model_are_those_that_its_shape_predicts(model) -> None:
    assert adapted_modules(model) == ALIASES["abacus-0.9m"].shape.adapted_modules()
    assert sum(p.numel() for p in model.parameters()) == ALIASES["abacus-0.9m"].shape.parameters


@pytest.mark.parametrize("adapter", [tinylora(28, 3), tinylora(1, 1), tinylora(9, 2, scaling="split"), FullUpdate()])
def test_untrained_update_equals_the_base_bit_for_bit(model, adapter) -> None:
    base = logits(model)
    adapted = attach(model, adapter, None)
    assert torch.equal(logits(adapted.model), base)


@pytest.mark.parametrize(
    ("groups", "u", "sharing"), [(1, 1, "tiled"), (13, 1, "tiled"), (28, 3, "tiled"), (9, 4, "structured")]
)
def test_exactly_the_planned_parameters_are_trained_by_one_owner(model, groups: int, u: int, sharing: str) -> None:
    adapted = attach(model, tinylora(groups, u, sharing=sharing), None)
    trained = [(n, p) for n, p in adapted.model.named_parameters() if p.requires_grad]
    assert [(n, p.numel(), p.dtype) for n, p in trained] == [(THETA, groups * u, torch.float32)]
    assert adapted.trained_parameters == groups * u


def test_full_trains_every_weight_once(model) -> None:
    adapted = attach(model, FullUpdate(), None)
    assert adapted.trained_parameters == ALIASES["abacus-0.9m"].shape.parameters


def independent_delta(weight: np.ndarray, name: str, v: np.ndarray, seed: int, r: int) -> np.ndarray:
    """ΔW of the paper in float64: full SVD, P from SHAKE-256 written out again."""
    import hashlib

    u, s, vt = np.linalg.svd(weight.astype(np.float64))
    signs = np.sign(u[np.abs(u[:, :r]).argmax(axis=0), range(r)])
    total = np.zeros((r, r))
    for i, value in enumerate(v):
        raw = hashlib.shake_256(f"capacity-P-1|{seed}|{name}|{i}".encode()).digest(8 * r * r)
        cells = [int.from_bytes(raw[8 * j : 8 * j + 8], "big") >> 11 for j in range(r * r)]
        p = np.array([NormalDist().inv_cdf((c + 0.5) / 2**53) for c in cells]).reshape(r, r) / math.sqrt(r)
        total += value * p
    return (u[:, :r] * signs * s[:r]) @ total @ (vt[:r] * signs[:, None])


@pytest.mark.parametrize(
    ("groups", "u", "sharing", "rank"), [(28, 3, "tiled", 2), (13, 1, "tiled", 2), (9, 2, "structured", 3)]
)
def test_merged_difference_equals_an_independent_float64_formula(model, groups, u, sharing, rank) -> None:
    before = {s.name: model.get_parameter(s.name + ".weight").detach().double().numpy() for s in adapted_modules(model)}
    spec = tinylora(groups, u, sharing=sharing, rank=rank)
    adapted = attach(model, spec, None)
    theta = randomise(adapted)["theta"].double().numpy().reshape(groups, u)
    shapes = ALIASES["abacus-0.9m"].shape.adapted_modules()
    from capacity.plan.sharing import assign_groups

    group = assign_groups([s.type for s in shapes], groups, sharing)
    for index, shape in enumerate(shapes):
        expected = independent_delta(before[shape.name], shape.name, theta[group[index]], spec.projection_seed, rank)
        found = adapted.bare.get_submodule(shape.name).get_delta_weight("default").detach().double().numpy()
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < 1e-5, (shape.name, error)


def test_merging_equals_the_adapted_forward(model) -> None:
    adapted = attach(model, tinylora(28, 3), None)
    randomise(adapted)
    expected = logits(adapted.model)
    merged = copy.deepcopy(adapted.model).merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(logits(merged), logits_of_base(adapted), atol=1e-2)


def logits_of_base(adapted: AdaptedModel) -> torch.Tensor:
    with adapted.switched_off() as base:
        return logits(base)


def test_split_scaling_equals_peft_tinylora_given_the_same_p_and_v(model) -> None:
    base = copy.deepcopy(model)
    u = 3
    adapted = attach(model, tinylora(28, u, scaling="split"), None)
    theta = randomise(adapted)["theta"]
    names = [s.name for s in adapted_modules(base)]
    config = TinyLoraConfig(r=2, u=u, weight_tying=0.0, target_modules=names, task_type="CAUSAL_LM")
    peft_model = get_peft_model(base, config)
    for index, name in enumerate(names):
        theirs, ours = base.get_submodule(name), adapted.bare.get_submodule(name)
        a, b = ours.lora_A["default"].weight, ours.lora_B["default"].b
        # The sign of a pair of singular vectors is a convention: theirs is LAPACK's.
        flips = torch.sign((theirs.tinylora_A["default"] * a).sum(1))
        torch.testing.assert_close(theirs.tinylora_A["default"] * flips[:, None], a, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(theirs.tinylora_B["default"] * flips, b, atol=2e-5, rtol=1e-4)
        theirs.tinylora_P["default"] = ours.lora_B["default"].p * flips[:, None] * flips
        theirs.tinylora_v["default"][theirs._tinylora_v_key["default"]].data.copy_(theta.view(28, u)[index])
        torch.testing.assert_close(
            theirs.get_delta_weight("default"), ours.get_delta_weight("default"), atol=1e-5, rtol=1e-4
        )
    torch.testing.assert_close(logits(peft_model), logits(adapted.model), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("adapter", [tinylora(13, 1), FullUpdate()])
def test_switched_off_is_the_base_and_back_on_is_the_update(model, adapter) -> None:
    base = logits(model)
    adapted = attach(model, adapter, None)
    randomise(adapted, 0.01)
    on = logits(adapted.model)
    assert not torch.equal(on, base)
    assert torch.equal(logits_of_base(adapted), base)
    assert torch.equal(logits(adapted.model), on)
    trained = {n for n, p in adapted.model.named_parameters() if p.requires_grad}
    assert trained == set(adapted.trained)
    assert sum(p.numel() for p in adapted.trained.values()) == adapted.trained_parameters


def test_switching_adapters_makes_nothing_else_trainable(model) -> None:
    adapted = attach(model, tinylora(28, 3), None)
    with adapted.model.disable_adapter():
        pass
    adapted.model.set_adapter("default")
    assert list(adapted.trained) == [THETA]


def test_deep_copy_follows_its_own_theta(model) -> None:
    adapted = attach(model, tinylora(28, 3), None)
    copied = copy.deepcopy(adapted.model)
    before = logits(copied)
    randomise(adapted)
    assert torch.equal(logits(copied), before)
    with torch.no_grad():
        copied.get_parameter(THETA).copy_(adapted.update()["theta"])
    assert torch.equal(logits(copied), logits(adapted.model))


def test_update_round_trips(model) -> None:
    adapted = attach(model, FullUpdate(), None)
    update = randomise(adapted, 1e-2)
    for name, tensor in adapted.update().items():
        torch.testing.assert_close(tensor, update[name], atol=1e-6, rtol=0)


def test_state_dict_holds_a_plain_lora_pair_that_makes_the_same_difference(model) -> None:
    adapted = attach(model, tinylora(28, 3), None)
    randomise(adapted)
    state = adapted.model.state_dict()
    name = "model.layers.2.mlp.down_proj"
    a, b = (state[f"base_model.model.{name}.lora_{x}.default.weight"] for x in "AB")
    torch.testing.assert_close(b @ a, adapted.bare.get_submodule(name).get_delta_weight("default"))


def test_no_adapter_trains_nothing(model) -> None:
    assert attach(model, NoAdapter(), None).trained_parameters == 0


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (tinylora(28, 5), "u 5 is outside 1 … 4, the largest useful u"),
        (tinylora(29, 1), "29 groups are outside 1 … 28"),
        (tinylora(5, 1, sharing="structured"), "at least one group for each of the 7 module types"),
        (TinyLora(groups=28, u=1, rank=129, projection_seed=0), "rank 129 is above the smaller side"),
    ],
)
def test_specs_that_do_not_fit_are_refused(model, adapter, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        attach(model, adapter, None)
