"""Decides which groups of a TinyLoRA get the entries, by the gradient of the run's own loss at θ = 0."""

from dataclasses import asdict

import torch

from capacity.adapters.linears import adapted_modules
from capacity.errors import TrainingError
from capacity.plan.apportion import deal
from capacity.plan.sharing import assign_groups, group_sizes
from capacity.spec.adapters import LoraXs, TinyLora
from capacity.spec.result import Allocation
from capacity.spec.run import RunSpec
from capacity.tasks.task import Task
from capacity.training.base import Base
from capacity.training.batch import Cost, Recorder
from capacity.training.phases import phases


def gradient_allocation(base: Base, task: Task, spec: RunSpec) -> Allocation:
    """Deals the planned entries over the groups of a TinyLoRA by their gradients at θ = 0.

    A LoRA-XS adapter on the same factors has a free R in place of Σ vᵢ Pᵢ. It gives the gradient G_m = ∂loss/∂R of
    every module m, averaged over the first batches of training. For P with entries N(0, 1/r), the expected squared
    gradient of an entry of a group's v is Σ_m ‖G_m‖²_F / r. Its square root is the score of the group. Training then
    sees the same batches again.

    Args:
        base: the model, which stays as it is.
        task: the task of the run.
        spec: a run whose adapter is a TinyLora with allocation "gradient".

    Raises:
        TrainingError: if there is no gradient at all.
    """
    adapter = spec.adapter
    assert isinstance(adapter, TinyLora)
    shapes = adapted_modules(base.model, adapter.targets)
    probe = base.adapted(LoraXs(rank=adapter.rank, scaling=adapter.scaling, targets=adapter.targets))
    arm, schedule = next(phases(probe, base.tokenizer, task, spec, Recorder([], Cost())))
    per_step = arm.prompts_per_step
    batches = min(adapter.allocation_batches, arm.training.steps)
    for batch in range(batches):
        prompts = schedule[batch * per_step : (batch + 1) * per_step]
        items = [item for item in prompts for _ in range(arm.sequences_per_prompt)]
        torch.autograd.backward(arm.loss(arm.batch(items)))
    (theta,) = probe.trained.values()
    if theta.grad is None or not bool(theta.grad.any()):
        raise TrainingError(f"no gradient in {batches} batches to allocate by: use --allocation even, or another task")
    squares = (theta.grad.double() / batches).view(len(shapes), -1).square().sum(1).cpu()
    group = assign_groups([s.type for s in shapes], adapter.groups, adapter.sharing)
    sums = torch.zeros(adapter.groups, dtype=torch.float64).index_add(0, torch.tensor(group), squares)
    scores = tuple((sums / adapter.rank).sqrt().tolist())
    largest = [adapter.rank**2 * size for size in group_sizes(group)]
    entries = deal(scores, adapter.groups * adapter.u, largest)
    return Allocation(scores=scores, entries=entries, cost=asdict(arm.cost))
