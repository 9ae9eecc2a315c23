"""`capacity plan`: the counts of every alias and of a folder, as JSON and for people."""

import json

import pytest
from console import run_many

from capacity.plan.models import ALIASES
from capacity.plan.storage import FIXED_SIZE_DTYPES, payload_bytes

PLANS = [
    ("--budget 13", {"trained_parameters": 13, "groups": 13, "u": 1, "group_sizes": [3, 3] + [2] * 11}),
    ("--budget 26B", {"trained_parameters": 7, "projection": "chosen", "projection_bits": 12}),
    ("--budget 26B --projection random", {"trained_parameters": 13, "projection": None}),
    ("--budget 26B --projection random --storage-dtype fp32", {"trained_parameters": 6}),
    ("--budget 208bit --projection random", {"trained_parameters": 13}),
    ("--u 4 --groups 25", {"trained_parameters": 100, "groups": 25, "u": 4}),
    ("--n-tie 7", {"trained_parameters": 4, "groups": 4, "group_sizes": [7] * 4}),
    ("--groups 7 --sharing structured", {"sharing": "structured", "group_sizes": [4] * 7}),
    ("--adapter full", {"adapter": "full", "trained_parameters": 861952, "groups": None}),
    ("--budget 861952", {"adapter": "full", "trained_parameters": 861952}),
    ("--adapter lora-xs --rank 8", {"adapter": "lora-xs", "trained_parameters": 1792}),
    ("--adapter lora-xs --budget 1000", {"adapter": "lora-xs", "rank": 5, "trained_parameters": 700}),
    ("--adapter lora --budget 30KiB --targets v_proj,q_proj", {"rank": 7, "targets": "q_proj, v_proj"}),
    ("--adapter vera --budget 6000", {"adapter": "vera", "rank": 13, "trained_parameters": 5996}),
    ("--adapter vb-lora --vectors 2", {"vectors": 2, "vector_length": 128, "trained_parameters": 896}),
    ("--adapter uni-lora --budget 26B", {"length": 13, "trained_parameters": 13, "sharing": None, "scaling": None}),
    ("--adapter steering --blocks 3,0", {"adapter": "steering", "blocks": "0, 3", "trained_parameters": 256}),
    ("--adapter bitfit", {"adapter": "bitfit", "trained_parameters": 1536, "adapted_modules": None}),
    ("--scaling split --allocation gradient", {"scaling": "split", "allocation": "gradient"}),
    ("--storage-dtype entropy", {"trained_parameters": 84}),
    ("--model Qwen/Qwen2.5-3B-Instruct", {"model": "qwen2.5-3b", "trained_parameters": 100}),
]


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    commands = [f"plan --json --model {alias}" for alias in ALIASES]
    commands += [f"plan --json {options}" for options, _ in PLANS]
    commands += ["plan --budget 13 --modules", "plan --budget 13 --modules --json"]
    return run_many(commands, tmp_path_factory.mktemp("plans"))


def test_plan_imports_no_torch(plans):
    assert plans[1] == []


@pytest.mark.parametrize("alias", ALIASES)
def test_plan_of_every_alias_gives_the_counts_as_json(plans, alias):
    done = plans[0][f"plan --json --model {alias}"]
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    modules = len(ALIASES[alias].shape.adapted_modules())
    expected = 84 if modules == 28 else 100
    assert plan["model"] == alias
    assert plan["model_parameters"] == ALIASES[alias].shape.parameters
    assert plan["adapted_modules"] == modules
    assert plan["trained_parameters"] == expected
    assert plan["groups"] == min(modules, 100)
    assert len(plan["group_sizes"]) == plan["groups"]
    assert sum(plan["group_sizes"]) == modules
    choice = 126 if ALIASES[alias].source == "embedded" else 0  # 12 bits for each of 84 parameters
    assert plan["update_bytes"] == {d: payload_bytes(expected, d) + choice for d in FIXED_SIZE_DTYPES}
    assert plan["update_bytes"]["bf16"] == 2 * expected + choice


@pytest.mark.parametrize(("options", "expected"), PLANS)
def test_plan_is_what_the_options_ask_for(plans, options, expected):
    done = plans[0][f"plan --json {options}"]
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert {key: plan[key] for key in expected} == expected


def test_plan_lists_every_module_with_its_group(plans):
    plan = json.loads(plans[0]["plan --budget 13 --modules --json"].stdout)
    expected = ALIASES["abacus-0.9m"].shape.adapted_modules()
    assert [(m["name"], m["d"], m["k"]) for m in plan["modules"]] == [(m.name, m.d, m.k) for m in expected]
    groups = [m["group"] for m in plan["modules"]]
    assert [groups.count(g) for g in range(13)] == plan["group_sizes"]


def test_plan_for_people_says_the_same_numbers(plans):
    done = plans[0]["plan --budget 13 --modules"]
    assert done.returncode == 0
    words = done.stdout.split()
    assert {"abacus-0.9m", "861,952", "13", "model.layers.0.self_attn.q_proj", "384×128"} <= set(words)


def test_plan_reads_the_config_of_a_folder(tmp_path):
    config = {
        "model_type": "gpt2",
        "vocab_size": 96,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 32,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    ended, heavy = run_many(["plan --model . --json --modules --adapter lora --rank 1"], tmp_path)
    assert heavy == []
    (done,) = ended.values()
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["source"], plan["family"], plan["adapted_modules"]) == ("folder", "gpt2", 8)
    assert plan["modules"][0] == {"name": "transformer.h.0.attn.c_attn", "d": 192, "k": 64, "group": None}
    assert plan["trained_parameters"] == 2 * (192 + 64 + 64 + 64 + 256 + 64 + 64 + 256)


def test_memory_and_budgets_are_read_with_their_units(capacity):
    budgets = ("1,000", "1k", "0.001M")
    plans = [json.loads(capacity("plan", "--budget", b, "--memory", "24GB", "--json").stdout) for b in budgets]
    assert plans[0] == plans[1] == plans[2]
    assert plans[0]["trained_parameters"] <= 1000
