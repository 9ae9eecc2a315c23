import hashlib
import json
from copy import deepcopy
from typing import Any

import fakes
import pytest
from pydantic import ValidationError

from capacity.errors import DataError
from capacity.spec import run
from capacity.spec.methods import METHODS
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec, load_spec
from capacity.tasks.abacus_language import LARGEST_SHIFT
from capacity.tasks.catalog import open_task

PARTS: dict[str, Any] = {
    "grpo": {
        "temperature": 1.0,
        "loss": "grpo",
        "epsilon": 0.2,
        "scale_rewards": "group",
        "advantage_epsilon": 0.0001,
        "kl_to_base_weight": 0,
    },
    "rft": {"temperature": 1.0},
    "warm_start": {"learning_rate": 0.003},
}
UNSEEN: dict[str, Any] = {"name": "abacus", "demonstrations": "none", "options": {}}
WORKED: dict[str, Any] = {
    "name": "abacus",
    "demonstrations": "worked",
    "options": {"style_bits": 4.0, "style_shift": 4.0},
}


def trained(method: str, task: dict[str, Any], *parts: str) -> dict[str, Any]:
    """The whole JSON of a trained run of a method with these parts."""
    return {
        "schema_version": 3,
        "model": "abacus-0.9m",
        "task": task,
        "method": method,
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
            "tokens_per_step": None,
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
        **{part: PARTS[part] if part in parts else None for part in PARTS},
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


GRPO = trained("grpo", UNSEEN, "grpo")
SFT = trained("sft", WORKED)
BASE: dict[str, Any] = {
    "schema_version": 3,
    "model": "abacus-0.9m",
    "task": UNSEEN,
    "method": "base",
    "adapter": {"kind": "none"},
    "storage_dtype": "bf16",
    "training": None,
    "grpo": None,
    "rft": None,
    "warm_start": None,
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
    pytest.param(
        BASE,
        "ec8d303313967f7e24f42e35b84b55b95d0f4c92ff11f5c75e7a75166895acc2",
        id="base",
    ),
    pytest.param(
        {**trained("zero", UNSEEN), "training": None},
        "627ffc7ed808fec8bdf823098a9671ad3a7b049b2e6fe911b47ecc90550774fe",
        id="zero",
    ),
    pytest.param(
        SFT,
        "3bf9461c21d59bc26d24668f760708282604a90cb45bda0060aec00269d9bd53",
        id="sft",
    ),
    pytest.param(
        trained("rft", UNSEEN, "rft"), "3c8c5332eac44aee4c847a93bdc2020186726ecb998e22c68bdee8fec497e588", id="rft"
    ),
    pytest.param(
        trained("rft-online", UNSEEN, "rft"),
        "297032e866a985bd8354e6fa4c7afe55cc3bc040df4470eff2c36fc2eb60eb86",
        id="rft-online",
    ),
    pytest.param(
        GRPO,
        "f9ab4c86985c7ef0197e2df7ddbf36bdde17316fec3c917d010f63b0fab278a5",
        id="grpo",
    ),
    pytest.param(
        trained("random-reward", UNSEEN, "grpo"),
        "47d4705f85d40a2bb1530b12fbc63dd6a0571b6d616ecca0a572a814ef2b7840",
        id="random-reward",
    ),
    pytest.param(
        trained("sft+grpo", WORKED, "grpo", "warm_start"),
        "769bf00745bd161f565cc4da3ac34de5cbfd8c660377b11d857642e6f2494051",
        id="sft+grpo",
    ),
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


def test_every_method_has_a_golden_value():
    assert [p.id for p in LITERALS] == list(METHODS)


@pytest.mark.parametrize(("raw", "digest"), LITERALS[1:])
def test_defaults_are_part_of_the_identity_as_they_are(raw, digest):
    assert fakes.spec(raw["method"], seed=3, items=1024).identity == digest


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
        ('"schema_version": 3,', '"schema_version": 3.0,'),
        ('"style_shift": 4.0', '"style_shift": 4'),
    ],
)
def test_form_of_a_number_does_not_change_the_identity(written, rewritten):
    texts = [json.dumps(raw) for raw in (GRPO, SFT)]
    others = [text.replace(written, rewritten) for text in texts]
    assert others != texts
    for raw, other in zip((GRPO, SFT), others, strict=True):
        assert load_spec(json.loads(other), "spec.json").identity == RunSpec.model_validate(raw).identity


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", "qwen2.5-3b"),
        ("task.options", {"style_bits": 8.0}),
        ("training.steps", 3),
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


@pytest.mark.parametrize(
    ("path", "value"),
    [("task.demonstrations", "own"), ("task.options.style_bits", 8.0), ("task.options.style_shift", 4.000000000000001),
     ("training.match", "sequences"), ("warm_start.learning_rate", 0.004)],
)  # fmt: skip
def test_demonstrations_and_their_knobs_change_the_identity_of_what_sees_them(path, value):
    raw = trained("sft+grpo", WORKED, "grpo", "warm_start")
    assert RunSpec.model_validate(changed(raw, path, value)).identity != RunSpec.model_validate(raw).identity


def test_matching_by_tokens_changes_the_identity_with_its_number():
    by_tokens = [changed(changed(SFT, "training.match", "tokens"), "training.tokens_per_step", n) for n in (500, 501)]
    assert len({RunSpec.model_validate(raw).identity for raw in (SFT, *by_tokens)}) == 3


@pytest.mark.parametrize(("match", "tokens"), [("tokens", None), ("prompts", 500), ("sequences", 500), ("tokens", 0)])
def test_tokens_a_step_go_with_matching_tokens_only(match, tokens):
    raw = changed(changed(SFT, "training.match", match), "training.tokens_per_step", tokens)
    with pytest.raises(ValidationError, match="tokens_per_step"):
        RunSpec.model_validate(raw)


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


@pytest.mark.parametrize("version", [0, 4, -1, "3", None, "one", 1.5])
def test_unknown_schema_version_is_refused_in_one_line_naming_the_file(version):
    with pytest.raises(DataError) as caught:
        load_spec(changed(GRPO, "schema_version", version), "study/runs/ab/spec.json")
    says = f"spec of schema version {version}, this program reads 3"
    assert str(caught.value) == f"study/runs/ab/spec.json: {says}"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("seed", -1, "seed is -1: it must be 0 or more"),
        ("seed", None, "seed is None: it must be a whole number"),
        ("training.learning_rate", float("nan"), "training.learning_rate is nan: it must be "),
        ("adapter.kind", "lora-xl", "adapter is "),
        ("adapter.u", "many", "adapter.tinylora.u is 'many': it must be a whole number"),
        ("surplus", 1, "unknown field 'surplus': did you mean "),
        ("sed", 1, "unknown field 'sed': did you mean seed?"),
        ("adapter.grouops", 1, "adapter.tinylora: unknown field 'grouops': did you mean groups?"),
    ],
)
def test_broken_spec_is_refused_in_one_line_naming_file_and_field(path, value, says):
    with pytest.raises(DataError) as caught:
        load_spec(changed(GRPO, path, value), "study/runs/ab/spec.json")
    assert str(caught.value).startswith(f"study/runs/ab/spec.json: not a valid spec: {says}")
    assert "\n" not in str(caught.value)


def test_spec_without_a_field_is_refused_naming_it():
    raw = {key: value for key, value in GRPO.items() if key != "seed"}
    with pytest.raises(DataError, match=r"^spec.json: not a valid spec: seed is missing$"):
        load_spec(raw, "spec.json")


def test_older_spec_is_migrated_step_by_step(monkeypatch):
    def name_the_dtype(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, "schema_version": 0, "storage_dtype": raw["dtype"]}

    def drop_the_old_name(raw: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in raw.items() if k != "dtype"}, "schema_version": 3}

    monkeypatch.setattr(run, "MIGRATIONS", {-1: name_the_dtype, 0: drop_the_old_name})
    old = {k: v for k, v in GRPO.items() if k != "storage_dtype"} | {"schema_version": -1, "dtype": "bf16"}
    assert load_spec(old, "spec.json") == RunSpec.model_validate(GRPO)


def version_2(raw: dict[str, Any], style: str = "worked") -> dict[str, Any]:
    """How version 2 would have stored a spec: it named the demonstrations of every method, and no knobs."""
    old = {k: v for k, v in deepcopy(raw).items() if k not in ("rft", "warm_start")}
    if old["training"]:
        del old["training"]["tokens_per_step"]
    return {**old, "schema_version": 2, "task": {"name": "abacus", "demonstrations": style}}


# Stored by the program that wrote schema version 2, and its identity there.
STORED_2 = (
    '{"adapter":{"allocation":"even","allocation_batches":4,"groups":13,"kind":"tinylora","projection_seed":3,'
    '"rank":2,"scaling":"paper","sharing":"tiled","targets":null,"u":1},"evaluation":{"items":1024,'
    '"max_new_tokens":24,"samples_per_item":1,"seed":0,"split":"test","temperature":1.0},"grpo":{'
    '"advantage_epsilon":0.0001,"epsilon":0.2,"kl_to_base_weight":0,"loss":"grpo","scale_rewards":"group",'
    '"temperature":1.0},"method":"grpo","model":"abacus-0.9m","schema_version":2,"seed":3,"storage_dtype":"bf16",'
    '"task":{"demonstrations":"worked","name":"abacus"},"training":{"adam_beta1":0.9,"adam_beta2":0.999,'
    '"adam_epsilon":1e-08,"learning_rate":0.01,"match":"prompts","max_grad_norm":1.0,"max_new_tokens":24,'
    '"prompts_per_step":3,"samples_per_prompt":4,"schedule":"linear","steps":2,"warmup_steps":1}}'
)
IDENTITY_2 = "a597033acffdd70032799203ccb60c53ef3f301e2d2c5d03c3e589652d46333a"


def test_stored_spec_of_version_2_is_read_as_its_successor():
    assert hashlib.sha256(STORED_2.encode()).hexdigest() == IDENTITY_2
    assert json.loads(STORED_2) == version_2(GRPO)
    assert load_spec(json.loads(STORED_2), "spec.json") == RunSpec.model_validate(GRPO)


@pytest.mark.parametrize("raw", [GRPO, BASE])
@pytest.mark.parametrize("style", ["worked", "own", "answers"])
def test_version_2_named_demonstrations_that_its_methods_did_not_see(raw, style):
    assert load_spec(version_2(raw, style), "spec.json") == RunSpec.model_validate(raw)


def test_worked_demonstrations_of_version_2_had_no_fillers_and_reversed_odds():
    spec = load_spec(version_2(SFT), "spec.json")
    assert spec.task == TaskSpec(
        name="abacus", demonstrations="worked", options={"style_bits": 0.0, "style_shift": LARGEST_SHIFT}
    )
    assert open_task(spec.task).style_bits == 0
    others = {"task": spec.task.model_dump()}
    assert spec == RunSpec.model_validate({**SFT, **others})


@pytest.mark.parametrize("style", ["own", "answers"])
def test_other_styles_of_version_2_have_no_knobs(style):
    assert load_spec(version_2(SFT, style), "spec.json").task == TaskSpec(name="abacus", demonstrations=style)


def test_specs_of_version_1_are_read_as_what_they_meant():
    old = {**version_2(GRPO), "schema_version": 1}
    old["adapter"] = {
        k: v for k, v in GRPO["adapter"].items() if k not in ("allocation", "allocation_batches", "targets")
    }
    assert load_spec(old, "spec.json") == RunSpec.model_validate(GRPO)


def test_current_spec_passes_no_migration(monkeypatch):
    def never(raw: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError

    monkeypatch.setattr(run, "MIGRATIONS", dict.fromkeys((1, 2, 3), never))
    assert load_spec(GRPO, "spec.json") == RunSpec.model_validate(GRPO)


def test_migration_that_gives_a_broken_spec_is_refused(monkeypatch):
    monkeypatch.setattr(run, "MIGRATIONS", {0: lambda raw: {**raw, "schema_version": 3}})
    with pytest.raises(DataError, match=r"spec\.json: not a valid spec: unknown field .surplus."):
        load_spec({**GRPO, "schema_version": 0, "surplus": 1}, "spec.json")


@pytest.mark.parametrize(
    ("spec", "path", "value"),
    [
        (GRPO, "grpo", None),
        (GRPO, "training", None),
        (GRPO, "adapter", {"kind": "none"}),
        (GRPO, "method", "sft"),
        (GRPO, "method", "base"),
        (GRPO, "method", "rft"),
        (GRPO, "method", "sft+grpo"),
        (GRPO, "rft", {"temperature": 1.0}),
        (GRPO, "warm_start", {"learning_rate": 0.01}),
        (GRPO, "task", WORKED),
        (SFT, "grpo", PARTS["grpo"]),
        (SFT, "task", UNSEEN),
        (BASE, "adapter", {"kind": "full"}),
        (BASE, "method", "grpo"),
    ],
)
def test_parts_that_do_not_belong_to_the_method_are_refused(spec, path, value):
    with pytest.raises(ValidationError, match=r"method|the .* part belongs to"):
        RunSpec.model_validate(changed(spec, path, value))


def test_a_warm_start_takes_two_steps():
    raw = trained("sft+grpo", WORKED, "grpo", "warm_start")
    assert RunSpec.model_validate(changed(raw, "training.steps", 2)).training.steps == 2
    with pytest.raises(ValidationError, match=r"sft\+grpo takes at least two steps"):
        RunSpec.model_validate(changed(raw, "training.steps", 1))


def test_methods_that_see_no_demonstrations_share_one_task():
    tasks = [TaskSpec(name="abacus", demonstrations=d) for d in ("worked", "own", "answers", "none")]
    assert {t.unseen().label for t in tasks} == {"abacus?demonstrations=none"}
    assert RunSpec.model_validate(GRPO).task == tasks[0].unseen()


@pytest.mark.parametrize("raw", [[], None, "spec", 3])
def test_stored_values_that_are_no_specs_at_all_are_refused(raw):
    with pytest.raises(DataError, match=r"^here: not a spec$"):
        load_spec(raw, "here")
