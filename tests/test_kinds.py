"""Every kind of adapter has one spec, one plan and one build, and they agree."""

import copy
from typing import Any, get_args

import pytest
from sizes import chosen, within

from capacity.adapters.attach import BUILDS, attach
from capacity.plan import sharing
from capacity.plan.kinds.table import KINDS, trained_parameters
from capacity.plan.models import ALIASES
from capacity.plan.sizes import SizeChoice, size_of
from capacity.spec.adapters import Adapter, NoAdapter

MODEL = "abacus-0.9m"
SPECS = get_args(get_args(Adapter)[0])
# Options that stand under other names in a spec: groups, and the parts of a choice.
ELSEWHERE = ("n_tie", "projection", "projection_bits", "projection_by")


def test_every_kind_has_a_spec_a_plan_and_a_build() -> None:
    kinds = {spec.model_fields["kind"].default for spec in SPECS}
    assert kinds == set(BUILDS) == {"none", *KINDS}
    assert all(KINDS[name].spec is spec for spec in SPECS if (name := spec.model_fields["kind"].default) != "none")


def test_options_of_the_kinds_are_those_of_a_size() -> None:
    options = set(SizeChoice.model_fields) - {"budget", "adapter"}
    assert {option for kind in KINDS.values() for option in kind.options} == options
    for kind in KINDS.values():
        assert set(kind.decided) <= set(kind.options)
        assert {option for option in kind.options if option not in ELSEWHERE} <= set(kind.spec.model_fields)


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_parameters_are_trained_as_are_planned(kind: str, model: Any) -> None:
    size = chosen(MODEL, kind)
    adapted = attach(copy.deepcopy(model), size.adapter(3), None)
    assert adapted.trained_parameters == size.trained_parameters
    assert adapted.shapes == size.modules


@pytest.mark.parametrize("kind", KINDS)
def test_each_seed_has_its_own_random_parts(kind: str) -> None:
    size = chosen(MODEL, kind)
    random = any(name.endswith("_seed") for name in KINDS[kind].spec.model_fields)
    assert (size.adapter(1) != size.adapter(2)) == random
    assert size.adapter(0) == size.template


def test_groups_are_formed_once_to_plan_and_once_to_build(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    formed: list[int] = []
    original = sharing.assign_groups

    def counted(types: Any, groups: int, how: Any) -> tuple[int, ...]:
        formed.append(groups)
        return original(types, groups, how)

    monkeypatch.setattr(sharing, "assign_groups", counted)
    size = within(MODEL, "100")
    assert formed == [28]
    attach(model, size.adapter(0), None)
    assert formed == [28, 28]


def test_a_size_without_any_choice_is_the_default_budget_in_study_files_and_commands() -> None:
    assert str(SizeChoice().limit) == str(SizeChoice(rank=4, sharing="structured").limit)
    assert SizeChoice().limit == SizeChoice(budget=100).limit
    assert SizeChoice(adapter="lora").limit is None
    assert SizeChoice(u=2).limit is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", [None, ("q_proj", "v_proj")])
def test_the_spec_of_an_update_counts_what_its_size_counts(kind: str, targets: tuple[str, ...] | None) -> None:
    told = {"targets": targets} if targets and "targets" in KINDS[kind].options else {}
    size = size_of("qwen2.5-3b", SizeChoice(adapter=kind, **told), "bf16")
    found = trained_parameters(size.adapter(7), "qwen2.5-3b", ALIASES["qwen2.5-3b"].shape)
    assert found == size.trained_parameters > 0
    assert trained_parameters(NoAdapter(), "qwen2.5-3b", ALIASES["qwen2.5-3b"].shape) == 0
