"""Completes the layout of a TinyLoRA by the gradient at θ = 0: entries for each group, and a P for each entry."""

from dataclasses import asdict

import torch

from capacity.adapters.candidates import best_candidates
from capacity.adapters.layout import Layout
from capacity.adapters.linears import adapted_modules
from capacity.errors import TrainingError
from capacity.plan.apportion import deal
from capacity.plan.sharing import assign_groups, group_sizes
from capacity.spec.adapters import LoraXs, ProjectionChoice, TinyLora
from capacity.spec.parts import GrpoSpec, RftSpec
from capacity.spec.result import Allocation, Choice
from capacity.spec.run import RunSpec
from capacity.tasks.task import Task
from capacity.training.base import Base
from capacity.training.base_gradients import FirstGradient
from capacity.training.batch import Cost, Recorder
from capacity.training.phases import phases


def layout_of(base: Base, task: Task, spec: RunSpec) -> tuple[Layout, Allocation | None, Choice | None]:
    """Returns the layout of the update of a run, with the records of how it was decided.

    Nothing is measured unless the adapter is a TinyLoRA that deals its entries or chooses its P by gradients. An
    adapter of zeros is the same by every layout, so nothing is measured for it.

    Args:
        base: the model, which stays as it is.
        task: the task of the run.
        spec: the spec of the run.

    Raises:
        TrainingError: if there is no gradient at all.
    """
    adapter = spec.adapter
    if not isinstance(adapter, TinyLora):
        return Layout(), None, None
    if spec.training is None:
        random = None if adapter.choice is None else (0,) * (adapter.groups * adapter.u)
        return Layout(candidates=random), None, None
    allocation = _allocation(base, task, spec, adapter) if adapter.allocation == "gradient" else None
    entries = None if allocation is None else allocation.entries
    choice = None if adapter.choice is None else _choice(base, task, spec, adapter, adapter.choice, entries)
    return Layout(entries, None if choice is None else choice.candidates), allocation, choice


def _allocation(base: Base, task: Task, spec: RunSpec, adapter: TinyLora) -> Allocation:
    """Deals the planned entries over the groups.

    For P with entries N(0, 1/r), the expected squared gradient of an entry of a group's v is Σ_m ‖G_m‖²_F / r. Its
    square root is the score of the group.
    """
    found = first_gradient(base, task, spec, adapter.allocation_batches, "--allocation even")
    squares = found.of_module.square().sum((1, 2))
    group = _groups(base, adapter)
    sums = torch.zeros(adapter.groups, dtype=torch.float64).index_add(0, torch.tensor(group), squares)
    scores = tuple((sums / adapter.rank).sqrt().tolist())
    largest = [adapter.rank**2 * size for size in group_sizes(group)]
    return Allocation(scores=scores, entries=deal(scores, adapter.groups * adapter.u, largest), cost=found.cost)


def _choice(
    base: Base, task: Task, spec: RunSpec, adapter: TinyLora, choice: ProjectionChoice, entries: tuple[int, ...] | None
) -> Choice:
    """Chooses the P of each entry among its candidates. Without bits there is nothing to measure."""
    dealt = entries or (adapter.u,) * adapter.groups
    if choice.bits == 0:
        return Choice(candidates=(0,) * sum(dealt), energies=(), expected=(), cost={})
    found = first_gradient(base, task, _chooser(spec, choice), choice.batches, "--projection random")
    names = [shape.name for shape in adapted_modules(base.model, adapter.targets)]
    gradients, group = found.of_module.numpy(), _groups(base, adapter)
    best = best_candidates(gradients, names, group, dealt, adapter.projection_seed, choice.bits)
    return Choice(candidates=best.numbers, energies=best.energies, expected=best.expected, cost=found.cost)


def _chooser(spec: RunSpec, choice: ProjectionChoice) -> RunSpec:
    """Returns the run whose gradient chooses. All runs of a seed have the same one, unless each chooses for itself."""
    if choice.by == "own":
        return spec
    assert spec.training is not None
    matched = spec.training.model_copy(update={"match": "prompts", "tokens_per_step": None})
    parts = {"grpo": GrpoSpec() if choice.by == "grpo" else None, "rft": RftSpec() if choice.by == "rft" else None}
    changed = {"method": choice.by, "task": spec.task.unseen(), "training": matched, "warm_start": None, **parts}
    return spec.model_copy(update=changed)


def first_gradient(base: Base, task: Task, spec: RunSpec, batches: int, instead: str) -> FirstGradient:
    """Returns the gradient of a free R in every module at θ = 0. Training then sees the same batches again.

    A LoRA-XS adapter on the same factors has a free R in place of Σ vᵢ Pᵢ. Runs on one base that see the same batches
    share the measurement.

    Args:
        base: the model, which stays as it is.
        task: the task of the run.
        spec: a run whose adapter is a TinyLora. Its method gives the loss.
        batches: how many batches are measured, at most those of the run.
        instead: the option to use if there is no gradient, for the error.

    Raises:
        TrainingError: if there is no gradient at all.
    """
    adapter = spec.adapter
    assert isinstance(adapter, TinyLora)
    free = LoraXs(rank=adapter.rank, scaling=adapter.scaling, targets=adapter.targets)
    probe = spec.model_copy(update={"adapter": free})
    return base.gradients.of(probe, batches, lambda: _measured(base, task, probe, batches, instead))


def _measured(base: Base, task: Task, probe: RunSpec, batches: int, instead: str) -> FirstGradient:
    """Measures the gradient of a LoRA-XS adapter at θ = 0, averaged over the first batches of its run."""
    assert isinstance(probe.adapter, LoraXs)
    adapted = base.adapted(probe.adapter)
    arm, schedule = next(phases(adapted, base.tokenizer, task, probe, Recorder([], Cost())))
    per_step = arm.prompts_per_step
    batches = min(batches, arm.training.steps)
    for batch in range(batches):
        prompts = schedule[batch * per_step : (batch + 1) * per_step]
        items = [item for item in prompts for _ in range(arm.sequences_per_prompt)]
        torch.autograd.backward(arm.loss(arm.batch(items)))
    (theta,) = adapted.trained.values()
    if theta.grad is None or not bool(theta.grad.any()):
        raise TrainingError(f"no gradient in {batches} batches to decide by: use {instead}, or another task")
    rank = probe.adapter.rank
    return FirstGradient((theta.grad.double() / batches).view(-1, rank, rank).cpu(), asdict(arm.cost))


def _groups(base: Base, adapter: TinyLora) -> tuple[int, ...]:
    """Returns the group index of every adapted module."""
    types = [shape.type for shape in adapted_modules(base.model, adapter.targets)]
    return assign_groups(types, adapter.groups, adapter.sharing)
