"""The training loop: a batch of samples or demonstrations, its loss, its gradient, one step of Adam.

Read it from top to bottom: `train` is all that a run does between its start and its update. The arms know where batches
come from and which loss they get; see `capacity.training.arm`.
"""

from collections.abc import Sequence

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from capacity.spec.parts import TrainingSpec
from capacity.tasks.task import Item
from capacity.training.arm import Arm
from capacity.training.divide import divide


def train(arm: Arm, schedule: Sequence[Item]) -> None:
    """Trains an arm on `schedule`, the prompts of all steps in order.

    Args:
        arm: the arm to train. It samples, grades, computes the loss, and records metrics and costs.
        schedule: the steps × `prompts_per_step` items.

    Raises:
        TrainingError: if a loss is not finite, or processes were started in a way that is not supported.
    """
    training, parameters = arm.training, list(arm.adapted.trained.values())
    divide(arm)
    adam = optimiser(training, parameters)
    rate = LambdaLR(adam, lambda step: rate_share(training, step))
    for step in range(training.steps):
        prompts = schedule[step * arm.prompts_per_step : (step + 1) * arm.prompts_per_step]
        batch = arm.batch([item for item in prompts for _ in range(arm.sequences_per_prompt)])
        loss = arm.loss(batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
        adam.step()
        rate.step()
        adam.zero_grad()


def optimiser(training: TrainingSpec, parameters: Sequence[torch.nn.Parameter]) -> AdamW:
    """Returns Adam without weight decay, at the full learning rate."""
    betas = (training.adam_beta1, training.adam_beta2)
    return AdamW(parameters, lr=training.learning_rate, betas=betas, eps=training.adam_epsilon, weight_decay=0.0)


def rate_share(training: TrainingSpec, step: int) -> float:
    """Returns the share of the learning rate at a step: it rises for `warmup_steps`, then falls to zero, linearly."""
    if step < training.warmup_steps:
        return step / training.warmup_steps
    return max(0.0, (training.steps - step) / max(1, training.steps - training.warmup_steps))
