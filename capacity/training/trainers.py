"""Trains an arm by the loop of this package or by TRL's trainers. Both give the same update, up to rounding."""

from collections.abc import Sequence

from capacity.runs.fingerprint import Trainer
from capacity.tasks.task import Item
from capacity.training import loop
from capacity.training.arm import Arm


def train_by(trainer: Trainer, arm: Arm, schedule: Sequence[Item]) -> None:
    """Trains an arm on `schedule`, the prompts of all steps in order.

    TRL is imported only if its trainers are chosen, because its import takes time in every worker.

    Args:
        trainer: what makes the steps.
        arm: the arm to train.
        schedule: the steps × `prompts_per_step` items.

    Raises:
        TrainingError: as `capacity.training.loop.train`.
    """
    if trainer == "loop":
        loop.train(arm, schedule)
        return
    from capacity.training import trl_trainer

    trl_trainer.train(arm, schedule)
