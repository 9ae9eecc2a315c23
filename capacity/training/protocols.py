"""The protocols that are shipped: how each task is trained on and evaluated unless said otherwise."""

from dataclasses import dataclass

from capacity.config import EvaluationSpec, GrpoSpec, TrainingSpec
from capacity.tasks.task import Task


@dataclass(frozen=True)
class Protocol:
    """Sizes of training and evaluation of one task."""

    steps: int
    warmup_steps: int
    prompts_per_step: int
    samples_per_prompt: int
    test_items: int
    validation_items: int
    evaluation_temperature: float
    temperatures: tuple[float, ...]

    def training(self, task: Task, learning_rate: float) -> TrainingSpec:
        """The training part of a run's spec."""
        return TrainingSpec(
            steps=self.steps,
            prompts_per_step=self.prompts_per_step,
            samples_per_prompt=self.samples_per_prompt,
            max_new_tokens=task.max_new_tokens,
            learning_rate=learning_rate,
            warmup_steps=self.warmup_steps,
        )

    def evaluation(self, task: Task, *, validation: bool = False, temperature: float | None = None) -> EvaluationSpec:
        """The evaluation part of a run's spec; `temperature` other than the protocol's only for controls."""
        return EvaluationSpec(
            split="validation" if validation else "test",
            items=self.validation_items if validation else self.test_items,
            temperature=self.evaluation_temperature if temperature is None else temperature,
            max_new_tokens=task.max_new_tokens,
        )


# Abacus is evaluated as it is trained, sampled at T = 1: a greedy answer would hide what a mix of styles learns.
PROTOCOLS: dict[str, Protocol] = {
    "abacus": Protocol(
        steps=160,
        warmup_steps=16,
        prompts_per_step=6,
        samples_per_prompt=8,
        test_items=1024,
        validation_items=512,
        evaluation_temperature=1.0,
        temperatures=(0.0, 0.25, 0.5, 0.75, 1.0),
    )
}
GRPO = GrpoSpec()
