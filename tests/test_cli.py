import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import fakes
import pytest

from capacity.plan.models import ALIASES
from capacity.plan.storage import FIXED_SIZE_DTYPES, payload_bytes
from capacity.runs.study import Study

CAPACITY = str(Path(sys.executable).parent / "capacity")
COMMANDS = (
    "baseline", "bits", "check", "compare", "describe", "evaluate", "export", "factors", "models", "plan", "report",
    "runs", "sweep", "tasks", "threshold", "version",
)  # fmt: skip
# What the console script does, for many command lines in one process.
DRIVER = """
import contextlib, io, json, sys, traceback
from capacity_cli.app import main
answers = []
for command in json.load(sys.stdin):
    sys.argv = ["capacity", *command.split()]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
    answers.append([code, out.getvalue(), err.getvalue()])
heavy = {"torch", "transformers", "trl", "peft", "datasets", "safetensors", "tokenizers"}
json.dump({"answers": answers, "heavy": sorted(heavy & set(sys.modules))}, sys.stdout)
"""


def run(arguments, cwd, stdin=""):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        arguments,
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=120,
        check=False,
    )


def run_many(commands, cwd):
    """What each command line of `capacity` prints, and which heavy libraries they imported together."""
    done = run([sys.executable, "-c", DRIVER], cwd, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ended = [subprocess.CompletedProcess(c, *a) for c, a in zip(commands, report["answers"], strict=True)]
    return dict(zip(commands, ended, strict=True)), report["heavy"]


@pytest.fixture
def capacity(tmp_path):
    """Runs `capacity` in an empty folder."""

    def call(*arguments):
        return run([CAPACITY, *arguments], tmp_path)

    return call


def assert_one_line(done, code):
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("capacity: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert done.stdout == ""
    assert done.returncode == code


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_exits_with_zero(capacity, command):
    done = capacity(command, "--help")
    assert done.returncode == 0
    assert f"capacity {command}" in done.stdout
    assert done.stderr == ""


def test_help_names_every_command(capacity):
    done = capacity("--help")
    assert done.returncode == 0
    assert [c for c in COMMANDS if c not in done.stdout] == []


def test_help_takes_less_than_half_a_second_with_a_goal_of_three_tenths(tmp_path):
    """Wall clock, the shortest of five, which other work on the machine moves least. The goal is 0.3 s."""
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        run([CAPACITY, "--help"], tmp_path)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5


def test_version_is_that_of_the_package(capacity):
    from capacity import __version__

    assert capacity("version").stdout == f"{__version__}\n"


PLANS = [
    ("--budget 13", {"trained_parameters": 13, "groups": 13, "u": 1, "group_sizes": [3, 3] + [2] * 11}),
    ("--budget 26B", {"trained_parameters": 13}),
    ("--budget 26B --storage-dtype fp32", {"trained_parameters": 6}),
    ("--budget 208bit", {"trained_parameters": 13}),
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
    assert plan["update_bytes"] == {d: payload_bytes(expected, d) for d in FIXED_SIZE_DTYPES}
    assert plan["update_bytes"]["bf16"] == 2 * expected


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


WRONG = [
    ("plan --model qwen2.5-3", "did you mean qwen2.5-3b"),
    ("plan --model zzzz", "unknown model 'zzzz': choose from abacus, "),
    ("plan --storage-dtype bf61", "unknown storage dtype 'bf61': did you mean bf16"),
    ("plan --sharing structred", "unknown sharing 'structred': did you mean structured?"),
    ("plan --adapter lroa", "unknown adapter 'lroa': did you mean lora"),
    ("plan --adapter zzzz", "unknown adapter 'zzzz': choose from bitfit, full, lora, lora-xs, steering, tinylora"),
    ("plan --budget 0", "below one parameter"),
    ("plan --budget 1bit", "below one parameter in bf16"),
    ("plan --budget 861953", "above the model, which has 861,952"),
    ("plan --budget 1GiB", "above the model"),
    ("plan --budget many", "budget 'many' cannot be read: write 100 (parameters), 100k, 26B, 1KiB or 208bit"),
    ("plan --budget -5", "cannot be read"),
    ("plan --budget 1XB", "unknown unit 'XB': use k, M or G for numbers, B, kB, KiB"),
    ("plan --budget 3 --sharing structured", "each of the 7 module types"),
    ("plan --groups 3 --sharing structured", "use --groups 7 or more, or --sharing tiled"),
    ("plan --u 65", "u 65 is outside 1 … 64, the largest useful u"),
    ("plan --rank 2 --u 9 --groups 13", "u 9 is outside 1 … 8"),
    ("plan --u 0", "u 0 is outside 1 … 64"),
    ("plan --groups 29", "29 groups are outside 1 … 28"),
    ("plan --n-tie 29", "n_tie 29 is outside 1 … 28"),
    ("plan --groups 4 --n-tie 7", "give one of them"),
    ("plan --budget 100 --u 2", "give --budget, or --u, not both"),
    ("plan --budget 100 --adapter lora", "too small for adapter lora, which starts at 10,240 on this model"),
    ("plan --budget 100 --adapter lora --rank 2", "give --budget, or --rank, not both"),
    ("plan --budget 8000 --allocation gradient", "is lora-xs, which takes no --allocation: leave that out"),
    ("plan --budget 26B --storage-dtype entropy", "give the budget in parameters"),
    ("plan --adapter full --u 2", "adapter full takes no --u: it has one size"),
    ("plan --adapter lora --scaling split", "adapter lora takes no --scaling: it takes --rank, --targets"),
    ("plan --adapter vb-lora --vector-length 100", "does not divide both sides of model.layers.0.self_attn.q_proj"),
    ("plan --adapter bitfit --model llama-3.1-8b", "this model has no biases"),
    ("plan --blocks 0,x --adapter steering", "--blocks '0,x' cannot be read: write numbers by comma, such as 0,3"),
    ("plan --adapter steering --rollouts vllm", "changes hidden states, and vLLM takes LoRA adapters and weights only"),
    ("plan --targets qproj", "unknown module type 'qproj': did you mean q_proj"),
    ("plan --targets q_proj,,k_proj", "--targets 'q_proj,,k_proj' cannot be read"),
    ("plan --scaling spilt", "unknown scaling 'spilt': did you mean split?"),
    ("plan --allocation evne", "unknown allocation 'evne': did you mean even?"),
    ("plan --model ./nowhere", "./nowhere: no such folder"),
    ("plan --adapter lora --rank 129", "rank 129 is outside 1 … 128"),
    ("plan --budget 13 --rank 0", "rank 0 is outside 1 … 128"),
    ("plan --budget 13 --rank 129", "rank 129 is outside 1 … 128"),
    ("compare --model abacsu", "unknown model 'abacsu': did you mean abacus"),
    ("compare --task abacsu", "unknown task 'abacsu': did you mean abacus?"),
    ("compare --task abacus?demonstrations=wroked", "did you mean worked?"),
    ("compare --task abacus?style=own", "unknown option of task abacus 'style'"),
    ("compare --task abacus?style_bits=5", "style_bits 5 is out of range: choose from 0, 4, 8"),
    ("compare --task abacus?style_bits=few", "style_bits=few is not a number"),
    ("compare --task abacus?style_shift=-0.5", "style_shift -0.5 is out of range: 0 to "),
    ("compare --task abacus?style_shift=5", "style_shift 5 is out of range: 0 to "),
    ("compare --task abacus?demonstrations=own&style_bits=4", "style_bits belongs to demonstrations=worked"),
    ("compare --task abacus?style_bits=4&style_bits=8", "'style_bits=8' is given twice"),
    (
        "compare --learning-rates 0.01 --task abacus?demonstrations=none",
        "no demonstrations: sft cannot run; choose from",
    ),
    ("compare --methods sft+grpo --task abacus?demonstrations=none", "no demonstrations: sft+grpo cannot run"),
    ("compare --match sequence", "unknown matching 'sequence': did you mean sequences?"),
    ("compare --learning-rates 0.01 --match tokens", "--match tokens needs --tokens-per-step"),
    ("compare --learning-rates 0.01 --tokens-per-step 500", "--tokens-per-step belongs to --match tokens"),
    ("compare --methods sft,gpro", "unknown method 'gpro': did you mean grpo or "),
    ("compare --methods sft,sft", "names sft twice"),
    ("compare --methods base", "names no method to train"),
    ("compare --storage-dtype int5", "unknown storage dtype 'int5'"),
    ("compare --sharing tield", "unknown sharing 'tield': did you mean tiled?"),
    ("compare --adapter fulll", "unknown adapter 'fulll': did you mean full?"),
    ("compare --adapter full --budget 100", "too small for adapter full, which is 861,952 on this model"),
    ("compare --budget 0", "below one parameter"),
    ("compare --adapter uni-lora --budget 50", "no learning rate is tuned for rft, uni-lora of 50 parameters"),
    ("compare --scaling split", "no learning rate is tuned for rft, tinylora-split of 84 parameters"),
    ("compare --budget 100 --groups 4", "give --budget, or --groups, not both"),
    ("compare --adapter vera --n-tie 4", "adapter vera takes no --n-tie: it takes --rank, --targets"),
    ("compare --budget 3 --sharing structured", "each of the 7 module types"),
    ("compare --trainer tlr", "unknown trainer 'tlr': did you mean trl?"),
    ("compare --learning-rates fast", "'fast' is not a positive number"),
    ("compare --learning-rates 0", "'0' is not a positive number"),
    ("compare --learning-rates nan", "'nan' is not a positive number"),
    ("compare --learning-rates inf", "'inf' is not a positive number"),
    ("compare --learning-rates sft=", "'' is not a positive number"),
    ("compare --learning-rates gpro=0.01", "'gpro' is not among the methods sft, rft, grpo"),
]


MISUSED = [
    ("paln", "paln"),
    ("plan --bugdet 13", "--bugdet"),
    ("plan --u many", "--u"),
    ("compare --seeds 0", "--seeds"),
    ("compare --workers 0", "--workers"),
    ("compare --match tokens --tokens-per-step 0", "--tokens-per-step"),
    ("runs", "STUDY"),
]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    ended, _ = run_many([command for command, _ in WRONG + MISUSED], folder)
    return ended, folder


@pytest.mark.parametrize(("command", "says"), WRONG)
def test_wrong_input_ends_in_one_line_that_says_the_way_out(wrong, command, says):
    assert_one_line(wrong[0][command], 2)
    assert says in wrong[0][command].stderr


@pytest.mark.parametrize(("command", "says"), MISUSED)
def test_wrong_usage_ends_in_one_line_that_names_the_fault(wrong, command, says):
    assert_one_line(wrong[0][command], 2)
    assert says.lower() in wrong[0][command].stderr.lower()


def test_wrong_input_leaves_no_file(wrong):
    assert list(wrong[1].iterdir()) == []


@pytest.mark.parametrize("command", ["plan --u 65", "compare --methods sft,gpro"])
def test_console_script_ends_as_the_command_does(capacity, wrong, command):
    done = capacity(*command.split())
    assert_one_line(done, 2)
    assert done.stderr == wrong[0][command].stderr


def test_runs_of_a_missing_folder_end_in_one_line(capacity):
    done = capacity("runs", "nowhere")
    assert_one_line(done, 2)
    assert "nowhere: no such study folder" in done.stderr


LISTINGS = (
    "runs photos --json",
    "runs study --json",
    "runs study",
    "runs study --points study.csv",
    "runs study --points nowhere/study.csv",
    "runs mixed",
    "runs mixed --points refused.csv",
    "runs mixed --points mixed.csv --allow-mixed",
    "runs corrupt",
)


@pytest.fixture(scope="module")
def listings(tmp_path_factory):
    """What `capacity runs` says of a sound study, one of two environments, a corrupt one and no study."""
    folder = tmp_path_factory.mktemp("listings")
    (folder / "photos").mkdir()
    studies = {name: Study(folder / name) for name in ("study", "mixed", "corrupt")}
    for study in studies.values():
        with study.locked():
            fakes.add(study, fakes.spec("sft"), [1, 0, 1, 1])
            fakes.add(study, fakes.spec("base"), [1, 0, 0, 0])
            study.add_failure(fakes.spec("grpo"), "diverged at step 3", "")
    other = fakes.FINGERPRINT.model_copy(update={"sources": "t", "trainer": "loop"})
    fakes.add(studies["mixed"], fakes.spec("sft", 1), [1, 0, 1, 1], other)
    (studies["corrupt"].path_of(fakes.spec("sft")) / "result.json").write_text("{}")
    return run_many(LISTINGS, folder)[0], folder


def test_runs_of_a_folder_that_is_no_study_end_in_one_line(listings):
    done = listings[0]["runs photos --json"]
    assert_one_line(done, 1)
    assert "photos: not a study folder" in done.stderr


def test_runs_lists_runs_and_failures_as_json(listings):
    done = listings[0]["runs study --json"]
    assert (done.returncode, done.stderr) == (0, "")
    listing = json.loads(done.stdout)
    assert {(r["label"], r["accuracy"]) for r in listing["runs"]} == {
        ("sft 13 seed 0", 0.75),
        ("base T=1 seed 0", 0.25),
    }
    assert [f["message"] for f in listing["failures"]] == ["diverged at step 3"]


def test_runs_of_another_environment_are_stale_where_runs_can_be_made(listings):
    listing = json.loads(listings[0]["runs study --json"].stdout)
    expected = "stale" if find_spec("torch") else "complete"
    assert [r["state"] for r in listing["runs"]] == [expected] * 2


def test_runs_shows_runs_and_failures_to_people(listings):
    done = listings[0]["runs study"]
    assert (done.returncode, done.stderr) == (0, "")
    assert "sft 13 seed 0" in done.stdout
    assert any("75.0" in line.split() for line in done.stdout.splitlines())
    assert "failed: grpo 13 seed 0: diverged at step 3" in done.stdout
    assert "1 failed" in done.stdout


def test_runs_says_which_trainer_made_a_run(listings):
    listing = json.loads(listings[0]["runs study --json"].stdout)
    assert [r["trainer"] for r in listing["runs"]] == ["trl"] * 2
    lines = listings[0]["runs mixed"].stdout.splitlines()
    made = {
        " ".join(line.split()[1:5]): line.split()[-2] for line in lines if " seed " in line and "failed" not in line
    }
    assert made == {"sft 13 seed 0": "trl", "sft 13 seed 1": "loop", "base T=1 seed 0": "trl"}


def test_runs_writes_the_points_table(listings):
    assert listings[0]["runs study --points study.csv"].returncode == 0
    header, *rows = (listings[1] / "study.csv").read_text().splitlines()
    assert header.startswith("study,model,model_parameters,")
    assert len(rows) == 2


def test_points_that_cannot_be_written_end_in_one_line(listings):
    done = listings[0]["runs study --points nowhere/study.csv"]
    assert_one_line(done, 2)
    assert "nowhere" in done.stderr


def test_points_of_two_environments_are_refused_in_one_line(listings):
    done = listings[0]["runs mixed --points refused.csv"]
    assert_one_line(done, 1)
    assert "(sources, trainer trl → loop): use --allow-mixed" in done.stderr
    assert not (listings[1] / "refused.csv").exists()


def test_points_of_two_environments_are_written_if_allowed(listings):
    assert listings[0]["runs mixed --points mixed.csv --allow-mixed"].returncode == 0
    assert len((listings[1] / "mixed.csv").read_text().splitlines()) == 4


def test_corrupt_run_ends_in_one_line_that_names_the_file(listings):
    done = listings[0]["runs corrupt"]
    assert_one_line(done, 1)
    assert "result.json is corrupt" in done.stderr


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
    expected = [f"{method} 84 seed {seed}" for method in ("rft", "grpo", "sft") for seed in range(5)]
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


MISSING = (
    "runs nowhere", "runs study --points nowhere/study.csv", "sweep nowhere.toml", "report nowhere",
    "threshold nowhere.csv", "bits nowhere.csv", "bits --requantise nowhere", "describe nowhere", "baseline nowhere",
    "check nowhere", "check --run nowhere.toml", "export nowhere", "factors nowhere", "evaluate --adapter nowhere",
    "evaluate ./nowhere", "plan --model ./nowhere", "plan --model nowhere.gguf", "tasks jsonl:nowhere.jsonl",
    "models ./nowhere",
)  # fmt: skip


@pytest.fixture(scope="module")
def missing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("missing")
    study = Study(folder / "study")
    with study.locked():
        fakes.add(study, fakes.spec("base"), [1, 0, 0, 0])
    return run_many(MISSING, folder)[0]


@pytest.mark.parametrize("command", MISSING)
def test_a_path_that_does_not_exist_is_wrong_input_of_every_command(missing, command):
    assert_one_line(missing[command], 2)
    assert "nowhere" in missing[command].stderr or "baseline.json" in missing[command].stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_groups_the_options_and_ends_with_examples_that_are_read(name):
    from typer.main import get_command

    from capacity_cli.app import app
    from capacity_cli.help import EXAMPLES

    command = get_command(app).commands[name]
    assert EXAMPLES[name]
    for example in EXAMPLES[name]:
        assert len(f" Example: {example}") <= 80
        program, called, *arguments = example.split()
        assert (program, called) == ("capacity", name)
        command.make_context(name, arguments)  # an unknown option, or a value that cannot be read, raises here
    grouped = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    assert [p.name for p in grouped if p.rich_help_panel is None] == []


def test_short_help_version_and_completion_of_the_shell(capacity, tmp_path):
    from capacity import __version__

    assert capacity("-h").stdout == capacity("--help").stdout
    assert capacity("plan", "-h").stdout == capacity("plan", "--help").stdout
    assert capacity("--version").stdout == f"{__version__}\n"
    asked = {"_CAPACITY_COMPLETE": "complete_bash", "COMP_WORDS": "capacity thr", "COMP_CWORD": "1"}
    done = subprocess.run([CAPACITY], capture_output=True, text=True, env={**os.environ, **asked}, check=False)
    assert done.stdout.split() == ["threshold"]


def test_memory_and_budgets_are_read_with_their_units(capacity):
    budgets = ("1,000", "1k", "0.001M")
    plans = [json.loads(capacity("plan", "--budget", b, "--memory", "24GB", "--json").stdout) for b in budgets]
    assert plans[0] == plans[1] == plans[2]
    assert plans[0]["trained_parameters"] <= 1000
