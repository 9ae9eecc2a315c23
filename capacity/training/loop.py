"""The training loop: a batch of samples or demonstrations, its loss, its gradient, one step of Adam.

Read it from top to bottom: `train` is all that a run does between its start and its update. The arms know where batches
come from and which loss they get; see `capacity.training.arm`. Usually one run trains by itself, and `Alone` makes its
passes. Several runs on one base may share their passes; see `capacity.training.together`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from capacity.errors import CapacityError
from capacity.spec.parts import TrainingSpec
from capacity.tasks.task import Item
from capacity.training.arm import Arm
from capacity.training.batch import Batch, Cost
from capacity.training.checkpoint import Position, TrainingState
from capacity.training.divide import divide

AfterStep = Callable[[], None]

_TRAINED = "trained"  # names what is trained in a state, beside the names of what Adam remembers of it


def train(trainees: Sequence["Trainee"], passes: "Passes", after_step: AfterStep = lambda: None) -> None:
    """Trains runs until each has made all its steps or has failed.

    Args:
        trainees: the runs. What ends one of them too early is kept in its `error`.
        passes: samples and computes losses, for all runs of a step at once.
        after_step: a function that is called after each step of the runs.
    """
    while growing := [trainee for trainee in trainees if trainee.grows]:
        batches = passes.batches(growing)
        losses = passes.losses(growing, batches)
        torch.autograd.backward(losses)
        for trainee in growing:
            trainee.update()
        after_step()


class Trainee:
    """A run in training: its present arm, its optimiser, and the step that comes next.

    Attributes:
        gradient_steps: the number of steps of the last arm whose gradient was not exactly zero.

    Args:
        phases: the arms of the run, one after the other, each with the prompts of its steps in order.
    """

    arm: Arm
    schedule: Sequence[Item]

    def __init__(self, phases: Iterable[tuple[Arm, Sequence[Item]]]) -> None:
        self.phases = iter(phases)
        self.grows = True
        self.error: CapacityError | None = None
        self.phase, self.step = -1, 0
        self._enter()

    def items(self) -> list[Item]:
        """Returns the prompts of the next step, each as often as it has sequences."""
        size = self.arm.prompts_per_step
        prompts = self.schedule[self.step * size : (self.step + 1) * size]
        return [item for item in prompts for _ in range(self.arm.sequences_per_prompt)]

    def update(self) -> None:
        """Clips the gradient and makes one step of Adam. After its last step, an arm makes room for the next one."""
        if not self.grows:
            return
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.arm.training.max_grad_norm)
        self.gradient_steps += bool(norm > 0)
        self.adam.step()
        self.rate.step()
        self.adam.zero_grad()
        self.step += 1
        self._end_phase()

    def state(self) -> TrainingState:
        """Returns all that the run needs to go on from here."""
        tensors = {}
        for name, parameter in self.arm.adapted.trained.items():
            remembered = self.adam.state.get(parameter, {})
            for key, value in {_TRAINED: parameter, **remembered}.items():
                tensors[f"{key}/{name}"] = value.detach().cpu().clone()
        position = Position(
            phase=self.phase,
            step=self.step,
            gradient_steps=self.gradient_steps,
            first_step=self.arm.first_step,
            streams={name: stream.bit_generator.state for name, stream in self.arm.streams().items()},
            steps=tuple(self.arm.recorder.steps),
            cost=asdict(self.arm.cost),
        )
        return TrainingState(position, tensors)

    @torch.no_grad()
    def restore(self, state: TrainingState) -> None:
        """Goes on from a state of this run. The run itself is at its start."""
        position = state.position
        while self.grows and self.phase < position.phase:
            self._enter()
        if not self.grows:
            return
        self.step, self.gradient_steps, recorder = position.step, position.gradient_steps, self.arm.recorder
        self.arm.first_step = position.first_step
        recorder.steps[:], recorder.cost = position.steps, Cost(**position.cost)
        for name, stream in self.arm.streams().items():
            stream.bit_generator.state = position.streams[name]
        remembered: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.tensors.items():
            kind, _, name = key.partition("/")
            if kind == _TRAINED:
                self.arm.adapted.trained[name].copy_(tensor)
            else:
                remembered.setdefault(list(self.arm.adapted.trained).index(name), {})[kind] = tensor
        rate = self.arm.training.learning_rate * rate_share(self.arm.training, self.step)
        (group,) = self.adam.state_dict()["param_groups"]
        self.adam.load_state_dict({"state": remembered, "param_groups": [{**group, "lr": rate}]})
        self.rate.load_state_dict({**self.rate.state_dict(), "last_epoch": self.step, "_last_lr": [rate]})
        self._end_phase()

    def _end_phase(self) -> None:
        """Diagnoses an arm that has made all its steps, and goes on to the next one."""
        if self.step < self.arm.training.steps:
            return
        try:
            self.arm.diagnose()
        except CapacityError as error:
            self.fail(error)
        else:
            self._enter()

    def fail(self, error: CapacityError) -> None:
        """Ends the training of this run. Other runs go on."""
        self.error, self.grows = error, False

    def _enter(self) -> None:
        """Goes on to the next arm, or ends. An arm that cannot begin ends this run alone."""
        try:
            entered = next(self.phases, None)
            if entered is not None:
                divide(entered[0])
        except CapacityError as error:
            self.fail(error)
            return
        if entered is None:
            self.grows = False
            return
        self.arm, self.schedule = entered
        self.phase, self.step, training = self.phase + 1, 0, self.arm.training
        self.gradient_steps = 0
        self.parameters = list(self.arm.adapted.trained.values())
        self.adam = optimiser(training, self.parameters)
        self.rate = LambdaLR(self.adam, lambda step: rate_share(training, step))


class Passes(Protocol):
    """Samples and computes the losses of a step for some runs."""

    def batches(self, trainees: Sequence[Trainee]) -> list[Batch]:
        """Returns the sequences of each run's next step."""

    def losses(self, trainees: Sequence[Trainee], batches: Sequence[Batch]) -> list[Tensor]:
        """Returns the loss of each run's step, and records its metrics."""


class Alone:
    """Makes the passes of one run."""

    def batches(self, trainees: Sequence[Trainee]) -> list[Batch]:
        """Returns the sequences of the next step."""
        return [trainee.arm.batch(trainee.items()) for trainee in trainees]

    def losses(self, trainees: Sequence[Trainee], batches: Sequence[Batch]) -> list[Tensor]:
        """Returns the loss of the step, and records its metrics."""
        return [trainee.arm.loss(batch) for trainee, batch in zip(trainees, batches, strict=True)]


def optimiser(training: TrainingSpec, parameters: Sequence[torch.nn.Parameter]) -> AdamW:
    """Returns Adam without weight decay, at the full learning rate."""
    betas = (training.adam_beta1, training.adam_beta2)
    return AdamW(parameters, lr=training.learning_rate, betas=betas, eps=training.adam_epsilon, weight_decay=0.0)


def rate_share(training: TrainingSpec, step: int) -> float:
    """Returns the share of the learning rate at a step: it rises for `warmup_steps`, then falls to zero, linearly."""
    if step < training.warmup_steps:
        return step / training.warmup_steps
    return max(0.0, (training.steps - step) / max(1, training.steps - training.warmup_steps))
