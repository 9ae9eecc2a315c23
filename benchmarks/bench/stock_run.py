"""One run as a script of stock TRL and PEFT: `python -m benchmarks.bench.stock_run SPEC.json` trains and evaluates.

It prints what it found as JSON. A user who compares methods this way writes such a script and starts it for each run.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.bench import stock
from benchmarks.bench.models import opened
from benchmarks.bench.workloads import graded
from capacity.tasks.catalog import open_task
from capacity.training.batches import encode_prompts

AT_ONCE = 256  # completions sampled together


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    run, model, tokenizer = opened(json.loads(Path(sys.argv[1]).read_text()))
    task = open_task(run.task)
    items = stock.schedule(run, task)
    with tempfile.TemporaryDirectory() as scratch:
        if run.method == "grpo":
            reward = stock.Reward(task, items)
            trainer: stock.Trainer = stock.grpo_trainer(run, model, tokenizer, reward, scratch)
        else:
            trainer = stock.sft_trainer(run, model, tokenizer, task, items, scratch)
        trainer.train()
        trainer.save_model(scratch)
    torch.manual_seed(run.evaluation.seed)
    tested = task.items(run.evaluation.split, run.evaluation.items)
    prompts = encode_prompts(tokenizer, tested)
    ids: list[list[int]] = []
    for start in range(0, len(prompts), AT_ONCE):
        part = prompts[start : start + AT_ONCE]
        ids += stock.generated(trainer.model.eval(), tokenizer, part, run.evaluation.max_new_tokens)
    correct = graded(task, tested, tokenizer.batch_decode(ids, skip_special_tokens=True))
    found = {
        "trained_parameters": stock.trained_parameters(trainer.model),
        "steps": trainer.state.global_step,
        "items": len(correct),
        "accuracy": sum(correct) / len(correct),
    }
    answers.write(json.dumps(found))
    answers.close()


if __name__ == "__main__":
    main()
