"""Loads the model of a run in the same way for every side."""

from collections.abc import Mapping
from typing import Any

import torch

from capacity.models.loading import load
from capacity.spec.run import RunSpec, load_spec
from capacity.studies.quiet import quiet
from capacity.tasks.catalog import open_task
from capacity.training.batches import encode_prompts, prompt_schedule


def opened(raw: Mapping[str, Any]) -> tuple[RunSpec, Any, Any]:
    """Returns the run of a spec's JSON, its bare model in fp32, and the tokenizer. This process gets one thread.

    All weights are touched, so that they are in memory before anything is measured.
    """
    quiet()
    torch.set_num_threads(1)
    run = load_spec(dict(raw), "benchmark")
    model, tokenizer = load(run.model, "cpu")
    for parameter in model.parameters():
        parameter.detach().sum()
    return run, model, tokenizer


def first_prompts(run: RunSpec, tokenizer: Any) -> list[list[int]]:
    """Returns the token ids of the prompts of a run's first step, each as often as the step samples it."""
    training = run.training
    assert training is not None
    items = prompt_schedule(open_task(run.task), run.seed, 1, training.prompts_per_step)
    return [ids for ids in encode_prompts(tokenizer, items) for _ in range(training.samples_per_prompt)]
