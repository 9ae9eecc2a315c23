"""What a run's folder does not tell of its data and its tuning: tasks and shipped learning rates are asked."""

from functools import cache

from capacity.errors import CapacityError
from capacity.plan.rates import rates_tried
from capacity.spec.parts import TaskSpec
from capacity.spec.run import RunSpec
from capacity.tasks.catalog import count_items
from capacity_analysis.data.absent import Absent


def train_items(spec: RunSpec) -> int | Absent:
    """How many items the train split of a run's task has."""
    return _train_items(spec.task.model_dump_json())


@cache
def _train_items(task: str) -> int | Absent:
    spec = TaskSpec.model_validate_json(task)
    try:
        return count_items(spec, "train")
    except CapacityError:
        return Absent(f"the train split of task {spec.name} is not at hand, so the first pass has no known end")


def configurations(spec: RunSpec, trained_parameters: int) -> int | Absent:
    """Among how many learning rates that of a run was chosen, if it is the one that ships for its method and size."""
    tried = rates_tried(spec, trained_parameters)
    if tried is None:
        return Absent("how many learning rates were tried is not recorded: give --configurations")
    return tried
