"""`capacity compare --dry-run`: the runs that would be made."""

import json

import pytest
from console import run_many

LISTED = "compare --dry-run --json --learning-rates 0.01 --out mine"
PAIRS = "compare --dry-run --json --methods sft,grpo --seeds 2 --learning-rates sft=0.003,grpo=0.01"
MATCHED = (
    "compare --dry-run --json --methods sft,sft+grpo,random-reward --seeds 1 --learning-rates sft=0.003,grpo=0.01,"
    "random-reward=0.01 --match tokens --tokens-per-step 500 --task abacus?style_bits=8&style_shift=0"
)
FOR_PEOPLE = "compare --dry-run --learning-rates 0.01 --seeds 1 --budget 13"
CHOSEN = "compare --dry-run --json --learning-rates 0.01 --seeds 1 --adapter lora-xs --rank 8 --targets v_proj,q_proj"


@pytest.fixture(scope="module")
def dry_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dry")
    return run_many([LISTED, PAIRS, MATCHED, FOR_PEOPLE, CHOSEN], folder)[0], folder


def test_dry_run_lists_the_runs(dry_runs):
    done = dry_runs[0][LISTED]
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["study"] == "mine"
    expected = [f"{method} 84 + 1008 bits seed {seed}" for method in ("rft", "grpo", "sft") for seed in range(5)]
    expected += 2 * [f"base T={t} seed 0" for t in ("0", "0.25", "0.5", "0.75", "1")]  # on validation and on test
    expected += [f"base T=1 seed {seed}" for seed in range(1, 5)]  # each seed has draws of its own
    assert sorted(r["label"] for r in plan["runs"]) == sorted(expected)
    assert {r["state"] for r in plan["runs"]} == {"missing"}
    assert len({r["id"] for r in plan["runs"]}) == len(expected)
    trained = [r["spec"] for r in plan["runs"] if r["spec"]["training"]]
    assert {s["training"]["learning_rate"] for s in trained} == {0.01}


def test_dry_run_makes_no_folder(dry_runs):
    assert [done.returncode for done in dry_runs[0].values()] == [0] * 5
    assert list(dry_runs[1].iterdir()) == []


def test_dry_run_pairs_differ_in_method_and_rate_only(dry_runs):
    done = dry_runs[0][PAIRS]
    assert done.returncode == 0, done.stderr
    specs = {(r["spec"]["method"], r["spec"]["seed"]): r["spec"] for r in json.loads(done.stdout)["runs"]}
    for seed in range(2):
        sft, grpo = specs["sft", seed], specs["grpo", seed]
        assert (sft["training"]["learning_rate"], grpo["training"]["learning_rate"]) == (0.003, 0.01)
        assert sft["grpo"] is None
        assert grpo["grpo"] is not None
        for pair in (sft, grpo):
            pair["training"].pop("learning_rate")
            pair.pop("grpo")
            pair.pop("method")
        assert sft.pop("task")["demonstrations"] == "worked"
        assert grpo.pop("task")["demonstrations"] == "none"
        assert sft == grpo
        assert sft["adapter"]["projection_seed"] == seed


def test_dry_run_takes_knobs_matching_and_the_rates_of_both_halves(dry_runs):
    done = dry_runs[0][MATCHED]
    assert done.returncode == 0, done.stderr
    specs = {r["spec"]["method"]: r["spec"] for r in json.loads(done.stdout)["runs"]}
    for method in ("sft", "sft+grpo", "random-reward"):
        training = specs[method]["training"]
        assert (training["match"], training["tokens_per_step"]) == ("tokens", 500)
        knobs = {} if method == "random-reward" else {"style_bits": 8.0, "style_shift": 0.0}
        assert specs[method]["task"]["options"] == knobs
    assert specs["sft+grpo"]["warm_start"] == {"learning_rate": 0.003}
    assert specs["sft+grpo"]["training"]["learning_rate"] == 0.01


def test_dry_run_takes_the_size_that_was_chosen(dry_runs):
    plan = json.loads(dry_runs[0][CHOSEN].stdout)
    adapters = [r["spec"]["adapter"] for r in plan["runs"] if r["spec"]["training"]]
    expected = {"kind": "lora-xs", "rank": 8, "scaling": "paper", "targets": ["q_proj", "v_proj"]}
    assert adapters == [expected] * 3  # sft, rft and grpo
    assert plan["study"].startswith("capacity-studies/compare-abacus-0.9m-lora-xs-512-")


def test_dry_run_for_people_shows_a_row_a_run(dry_runs):
    done = dry_runs[0][FOR_PEOPLE]
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" missing") == 13
    assert "13 runs in capacity-studies/compare-abacus-0.9m-tinylora-13-" in done.stdout
