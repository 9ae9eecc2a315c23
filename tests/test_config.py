import hashlib
import json
from copy import deepcopy
from typing import Any

import fakes
import pytest
from pydantic import ValidationError

from capacity import config
from capacity.config import RunSpec, load_spec
from capacity.errors import DataError

GRPO: dict[str, Any] = {
    "schema_version": 2,
    "model": "abacus-0.9m",
    "task": {"name": "abacus", "demonstrations": "worked"},
    "method": "grpo",
    "adapter": {
        "kind": "tinylora",
        "rank": 2,
        "u": 1,
        "groups": 13,
        "sharing": "tiled",
        "scaling": "paper",
        "allocation": "even",
        "allocation_batches": 4,
        "targets": None,
        "projection_seed": 3,
    },
    "storage_dtype": "bf16",
    "training": {
        "match": "prompts",
        "steps": 2,
        "prompts_per_step": 3,
        "samples_per_prompt": 4,
        "max_new_tokens": 24,
        "learning_rate": 0.01,
        "schedule": "linear",
        "warmup_steps": 1,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-08,
        "max_grad_norm": 1.0,
    },
    "grpo": {
        "temperature": 1.0,
        "loss": "grpo",
        "epsilon": 0.2,
        "scale_rewards": "group",
        "advantage_epsilon": 0.0001,
        "kl_to_base_weight": 0,
    },
    "evaluation": {
        "split": "test",
        "items": 1024,
        "samples_per_item": 1,
        "temperature": 1.0,
        "max_new_tokens": 24,
        "seed": 0,
    },
    "seed": 3,
}
BASE: dict[str, Any] = {
    "schema_version": 2,
    "model": "abacus-0.9m",
    "task": {"name": "abacus", "demonstrations": "worked"},
    "method": "base",
    "adapter": {"kind": "none"},
    "storage_dtype": "bf16",
    "training": None,
    "grpo": None,
    "evaluation": {
        "split": "test",
        "items": 512,
        "samples_per_item": 1,
        "temperature": 0.25,
        "max_new_tokens": 24,
        "seed": 0,
    },
    "seed": 0,
}
LITERALS = [
    pytest.param(GRPO, "a597033acffdd70032799203ccb60c53ef3f301e2d2c5d03c3e589652d46333a", id="grpo"),
    pytest.param(BASE, "e568348c9176b89fa941665d56d8a3bd78fe70ccedb4b69ea4795d1db949f196", id="base"),
]


def changed(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `raw` with the field at the dotted `path` set to `value`."""
    copy = deepcopy(raw)
    *folders, last = path.split(".")
    target = copy
    for name in folders:
        target = target[name]
    target[last] = value
    return copy


@pytest.mark.parametrize(("raw", "digest"), LITERALS)
def test_identity_keeps_its_golden_value(raw, digest):
    spec = RunSpec.model_validate(raw)
    assert spec.identity == digest
    assert spec.short_id == digest[:16]


@pytest.mark.parametrize(("raw", "digest"), LITERALS)
def test_identity_is_the_hash_of_sorted_compact_json(raw, digest):
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    assert RunSpec.model_validate(raw).canonical_json() == text
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_defaults_are_part_of_the_identity_as_they_are():
    assert fakes.spec("grpo", seed=3, items=1024).identity == RunSpec.model_validate(GRPO).identity


def test_key_order_does_not_change_the_identity():
    def reverse(value: Any) -> Any:
        return {k: reverse(value[k]) for k in reversed(value)} if isinstance(value, dict) else value

    assert json.dumps(reverse(GRPO)) != json.dumps(GRPO)
    assert RunSpec.model_validate(reverse(GRPO)).identity == RunSpec.model_validate(GRPO).identity


@pytest.mark.parametrize(
    ("written", "rewritten"),
    [
        ('"learning_rate": 0.01,', '"learning_rate": 1e-2,'),
        ('"learning_rate": 0.01,', '"learning_rate": 0.0100000000000000000001,'),
        ('"temperature": 1.0,', '"temperature": 1,'),
        ('"adam_epsilon": 1e-08,', '"adam_epsilon": 0.00000001,'),
        ('"steps": 2,', '"steps": 2.0,'),
        ('"kl_to_base_weight": 0', '"kl_to_base_weight": 0.0'),
        ('"schema_version": 2,', '"schema_version": 2.0,'),
    ],
)
def test_form_of_a_number_does_not_change_the_identity(written, rewritten):
    text = json.dumps(GRPO)
    other = text.replace(written, rewritten)
    assert other != text
    assert load_spec(json.loads(other), "spec.json").identity == RunSpec.model_validate(GRPO).identity


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", "qwen2.5-3b"),
        ("task.demonstrations", "own"),
        ("adapter.projection_seed", 4),
        ("adapter.sharing", "structured"),
        ("adapter.scaling", "split"),
        ("storage_dtype", "fp16"),
        ("training.learning_rate", 0.010000000000000002),
        ("training.adam_beta2", 0.99),
        ("grpo.epsilon", 0.3),
        ("evaluation.temperature", 0.75),
        ("evaluation.seed", 1),
        ("seed", 4),
    ],
)
def test_every_part_of_the_spec_changes_the_identity(path, value):
    other = RunSpec.model_validate(changed(GRPO, path, value))
    assert other.identity != RunSpec.model_validate(GRPO).identity


@pytest.mark.parametrize("place", ["workers", "task.path", "adapter.alpha", "training.device", "grpo.beta"])
def test_extra_field_is_refused(place):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        RunSpec.model_validate(changed(GRPO, place, 1))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["training.learning_rate", "grpo.epsilon", "evaluation.temperature"])
def test_number_that_is_not_finite_is_refused(place, number):
    with pytest.raises(ValidationError, match=place):
        RunSpec.model_validate(changed(GRPO, place, number))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("adapter.u", 0),
        ("adapter.groups", 0),
        ("adapter.kind", "lora-xl"),
        ("training.steps", 0),
        ("training.samples_per_prompt", 1),
        ("training.learning_rate", 0),
        ("grpo.temperature", 0),
        ("grpo.kl_to_base_weight", 0.1),
        ("evaluation.items", 0),
        ("evaluation.split", "train"),
        ("evaluation.temperature", -0.1),
        ("method", "dpo"),
        ("storage_dtype", "int3"),
        ("seed", -1),
        ("seed", 0.5),
    ],
)
def test_value_out_of_range_is_refused(place, value):
    with pytest.raises(ValidationError, match=place.split(".")[0]):
        RunSpec.model_validate(changed(GRPO, place, value))


def test_specs_are_frozen_at_every_level():
    spec = RunSpec.model_validate(GRPO)
    parts = {"seed": spec, "rank": spec.adapter, "steps": spec.training, "name": spec.task}
    for field, part in parts.items():
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, field, 9)
    assert spec.identity == RunSpec.model_validate(GRPO).identity


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        (fakes.spec("grpo", 3), "grpo 13 seed 3"),
        (fakes.spec("base", temperature=0.25), "base T=0.25 seed 0"),
        (RunSpec.model_validate(changed(GRPO, "adapter", {"kind": "lora-xs", "rank": 8})), "grpo lora-xs r=8 seed 3"),
        (RunSpec.model_validate(changed(GRPO, "adapter", {"kind": "bitfit"})), "grpo bitfit seed 3"),
        (RunSpec.model_validate(changed(GRPO, "adapter", {"kind": "full"})), "grpo full seed 3"),
    ],
)
def test_label_says_method_size_and_seed(spec, label):
    assert spec.label == label


def test_stored_spec_is_read_back_as_it_was():
    spec = RunSpec.model_validate(GRPO)
    assert load_spec(json.loads(spec.canonical_json()), "spec.json") == spec


@pytest.mark.parametrize("version", [0, 3, -1, "2", None, "one", 1.5])
def test_unknown_schema_version_is_refused_in_one_line_naming_the_file(version):
    with pytest.raises(DataError) as caught:
        load_spec(changed(GRPO, "schema_version", version), "study/runs/ab/spec.json")
    says = f"spec of schema version {version}, this program reads 2"
    assert str(caught.value) == f"study/runs/ab/spec.json: {says}"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("seed", -1, "seed: "),
        ("seed", None, "seed: "),
        ("training.learning_rate", float("nan"), "training.learning_rate: "),
        ("adapter.kind", "lora-xl", "adapter: "),
        ("adapter.u", "many", "adapter.tinylora.u: "),
        ("surplus", 1, "surplus: Extra inputs are not permitted"),
    ],
)
def test_broken_spec_is_refused_in_one_line_naming_file_and_field(path, value, says):
    with pytest.raises(DataError) as caught:
        load_spec(changed(GRPO, path, value), "study/runs/ab/spec.json")
    assert str(caught.value).startswith(f"study/runs/ab/spec.json: not a valid spec: {says}")
    assert "\n" not in str(caught.value)


def test_spec_without_a_field_is_refused_naming_it():
    raw = {key: value for key, value in GRPO.items() if key != "seed"}
    with pytest.raises(DataError, match=r"^spec.json: not a valid spec: seed: Field required$"):
        load_spec(raw, "spec.json")


def test_older_spec_is_migrated_step_by_step(monkeypatch):
    def name_the_dtype(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, "schema_version": 0, "storage_dtype": raw["dtype"]}

    def drop_the_old_name(raw: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in raw.items() if k != "dtype"}, "schema_version": 2}

    monkeypatch.setattr(config, "MIGRATIONS", {-1: name_the_dtype, 0: drop_the_old_name})
    old = {k: v for k, v in GRPO.items() if k != "storage_dtype"} | {"schema_version": -1, "dtype": "bf16"}
    assert load_spec(old, "spec.json") == RunSpec.model_validate(GRPO)


def test_specs_of_version_1_are_read_as_what_they_meant():
    adapter = {k: v for k, v in GRPO["adapter"].items() if k not in ("allocation", "allocation_batches", "targets")}
    old = {**GRPO, "schema_version": 1, "adapter": adapter}
    assert load_spec(old, "spec.json") == RunSpec.model_validate(GRPO)


def test_current_spec_passes_no_migration(monkeypatch):
    def never(raw: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError

    monkeypatch.setattr(config, "MIGRATIONS", {1: never, 2: never})
    assert load_spec(GRPO, "spec.json") == RunSpec.model_validate(GRPO)


def test_migration_that_gives_a_broken_spec_is_refused(monkeypatch):
    monkeypatch.setattr(config, "MIGRATIONS", {0: lambda raw: {**raw, "schema_version": 2}})
    with pytest.raises(DataError, match=r"spec\.json: not a valid spec: surplus"):
        load_spec({**GRPO, "schema_version": 0, "surplus": 1}, "spec.json")


@pytest.mark.parametrize(
    ("spec", "path", "value"),
    [
        (GRPO, "grpo", None),
        (GRPO, "training", None),
        (GRPO, "adapter", {"kind": "none"}),
        (GRPO, "method", "sft"),
        (GRPO, "method", "base"),
        (BASE, "adapter", {"kind": "full"}),
        (BASE, "method", "grpo"),
    ],
)
def test_parts_that_do_not_belong_to_the_method_are_refused(spec, path, value):
    with pytest.raises(ValidationError, match="method"):
        RunSpec.model_validate(changed(spec, path, value))


@pytest.mark.parametrize("raw", [[], None, "spec", 3])
def test_stored_values_that_are_no_specs_at_all_are_refused(raw):
    with pytest.raises(DataError, match=r"^here: not a spec$"):
        load_spec(raw, "here")
