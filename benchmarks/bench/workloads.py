"""The training runs that are measured, and the texts that both sides get. No torch here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capacity.plan.models import model_shape
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.specs import trained_spec
from capacity.spec.methods import Method
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import parse_task
from capacity.tasks.task import Item, Task

SUMS = "jsonl:studies/data/additions-20.jsonl?template=bare&chat=model&compare=number&grading=lenient&max_new_tokens=24"
RATE = 1e-3  # low enough for the lengths of both sides' own samples to stay alike


@dataclass(frozen=True)
class Workload:
    """A workload is a short training run of which each step is one turn.

    Attributes:
        model, task, method, budget: what is trained, on what, how, and with how many parameters at most.
        prompts, samples: the prompts of a step, and the sequences of each.
        turns: the number of steps that count.
        warm_up: the number of steps before them.
    """

    model: str
    task: str
    method: Method
    budget: int
    prompts: int
    samples: int
    turns: int
    warm_up: int

    @property
    def spec(self) -> RunSpec:
        """Returns the spec of the run."""
        size = size_of(self.model, SizeChoice(budget=self.budget), "fp32")
        run = trained_spec(self.model, parse_task(self.task), self.method, size, 0, "fp32", rates={self.method: RATE})
        assert run.training is not None
        changed = {
            "steps": self.warm_up + self.turns,
            "prompts_per_step": self.prompts,
            "samples_per_prompt": self.samples,
            "warmup_steps": 0,
        }
        return run.model_copy(update={"training": run.training.model_copy(update=changed)})

    @property
    def label(self) -> str:
        """Returns a description for the table."""
        run = self.spec
        assert run.training is not None
        parameters = size_of(self.model, SizeChoice(budget=self.budget), "fp32").trained_parameters
        longest = run.training.max_new_tokens
        return f"{self.model}, {parameters} parameters, {self.prompts} × {self.samples} × ≤ {longest} tokens"


SMALL_GRPO = Workload("abacus-0.9m", "abacus", "grpo", 100, 12, 8, turns=12, warm_up=2)
SMALL_SFT = Workload("abacus-0.9m", "abacus", "sft", 100, 12, 8, turns=12, warm_up=2)
REAL_GRPO = Workload("smollm2-135m", SUMS, "grpo", 13, 8, 8, turns=2, warm_up=1)


def modules(spec: RunSpec) -> int:
    """Returns the number of adapted modules of a run's model."""
    return len(model_shape(spec.model)[1].linears)


def digest(texts: Sequence[Any]) -> str:
    """Returns a short hash of what a step got: the same prompts in the same order have the same hash."""
    return hashlib.sha256(repr(list(texts)).encode()).hexdigest()[:12]


def written(item: Item) -> Any:
    """Returns an item's prompt as TRL's data sets hold it: text, or messages in chat form."""
    if not item.messages:
        return item.prompt
    return [{"role": role, "content": content} for role, content in item.messages]


def by_step(items: Sequence[Item], per_step: int) -> list[Sequence[Item]]:
    """Returns the items of each step."""
    return [items[start : start + per_step] for start in range(0, len(items), per_step)]


def graded(task: Task, items: Sequence[Item], completions: Sequence[Any]) -> list[float]:
    """Returns the rewards of completions, which are texts or lists of messages."""
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [float(task.grade(item, text)) for item, text in zip(items, texts, strict=True)]
