"""The shipped protocols say how each task is trained on and evaluated by default."""

from dataclasses import dataclass, replace
from typing import Literal

from capacity.spec.parts import Draws, EvaluationSpec, GrpoSpec, RftSpec, TrainingSpec
from capacity.tasks.task import Bounded, Task


@dataclass(frozen=True)
class Protocol:
    """A protocol holds the sizes and temperatures of training and evaluation for one task.

    Attributes:
        steps: the number of training steps.
        warmup_steps: the number of steps over which the learning rate rises.
        prompts_per_step: the number of different prompts per step.
        samples_per_prompt: the number of sequences per prompt.
        test_items, validation_items: the numbers of items that are evaluated.
        evaluation_temperature: the temperature of evaluations.
        temperatures: the temperatures at which the untrained model is evaluated.
        draws: what sampled answers follow from; see `EvaluationSpec`. Greedy answers are not drawn.
    """

    steps: int
    warmup_steps: int
    prompts_per_step: int
    samples_per_prompt: int
    test_items: int
    validation_items: int
    evaluation_temperature: float
    temperatures: tuple[float, ...]
    draws: Draws = "seed"

    def training(self, task: Task, learning_rate: float) -> TrainingSpec:
        """Returns the training part of a run spec."""
        return TrainingSpec(
            steps=self.steps,
            prompts_per_step=self.prompts_per_step,
            samples_per_prompt=self.samples_per_prompt,
            max_new_tokens=task.max_new_tokens,
            learning_rate=learning_rate,
            warmup_steps=self.warmup_steps,
        )

    def evaluation(self, task: Task, *, validation: bool = False, temperature: float | None = None) -> EvaluationSpec:
        """Returns the evaluation part of a run spec.

        A split that is known to have fewer items than the protocol asks for is taken whole.

        Args:
            task: the task.
            validation: True for the validation split, False for the test split.
            temperature: another temperature than the protocol's, for controls; that of the protocol if None.
        """
        split: Literal["validation", "test"] = "validation" if validation else "test"
        wanted = self.validation_items if validation else self.test_items
        available = task.available(split) if isinstance(task, Bounded) else None
        at = self.evaluation_temperature if temperature is None else temperature
        return EvaluationSpec(
            split=split,
            items=min(wanted, available or wanted),
            temperature=at,
            max_new_tokens=task.max_new_tokens,
            draws="common" if at == 0 else self.draws,
        )


# One GPU's worth of a word problem task: 64 sequences a step, greedy answers.
_WORDS = Protocol(
    steps=100,
    warmup_steps=5,
    prompts_per_step=16,
    samples_per_prompt=4,
    test_items=1319,
    validation_items=256,
    evaluation_temperature=0.0,
    temperatures=(0.0, 0.5, 1.0),
)
_MATHEMATICS = replace(_WORDS, samples_per_prompt=8, test_items=500)
_OWN = replace(_WORDS, test_items=512)

# By name of the task. Abacus is evaluated as it is trained, sampled at T = 1: a greedy answer would hide what a mix of
# styles learns. The evaluation sets have no train split; their protocol says how they are evaluated.
PROTOCOLS: dict[str, Protocol] = {
    "abacus": Protocol(
        steps=80,
        warmup_steps=8,
        prompts_per_step=12,
        samples_per_prompt=8,
        test_items=1024,
        validation_items=512,
        evaluation_temperature=1.0,
        temperatures=(0.0, 0.25, 0.5, 0.75, 1.0),
    ),
    "gsm8k": _WORDS,
    "math": _MATHEMATICS,
    "math500": _MATHEMATICS,
    "minerva_math": replace(_MATHEMATICS, test_items=272),
    "gaokao2023en": replace(_MATHEMATICS, test_items=383),
    "olympiadbench": replace(_MATHEMATICS, test_items=675),
    "college_math": replace(_MATHEMATICS, test_items=2818),
    "aime24": replace(_MATHEMATICS, test_items=30),
    "amc23": replace(_MATHEMATICS, test_items=40),
    "reasoning-gym": replace(_OWN, test_items=256, validation_items=128),
    "jsonl": _OWN,
}
GRPO = GrpoSpec(base_every=10)
RFT = RftSpec()
