"""Wrong input of any command ends in one line that says the way out, and leaves no file."""

import fakes
import pytest
from console import assert_one_line, run_many

from capacity.runs.study import Study

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
    ("compare --scaling split", "no learning rate is tuned for rft, tinylora-split-chosen of 84 parameters"),
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
