"""Trains a run by the loop of this package or by TRL's trainers. Both give the same update, up to rounding."""

from collections.abc import Iterable, Sequence

from capacity.runs.fingerprint import Trainer
from capacity.tasks.task import Item
from capacity.training.arm import Arm
from capacity.training.checkpoints import Keep, unkept
from capacity.training.loop import Alone, Trainee, train


def train_by(trainer: Trainer, phases: Iterable[tuple[Arm, Sequence[Item]]], keep: Keep = unkept) -> int | None:
    """Trains the arms of a run, one after the other, and diagnoses each.

    TRL is imported only if its trainers are chosen, because its import takes time in every worker.

    Args:
        trainer: what makes the steps.
        phases: the arms, each with the prompts of all its steps in order.
        keep: keeps checkpoints of the training by the loop. TRL's trainers make none.

    Returns:
        The number of steps of the last arm whose gradient was not exactly zero; None with TRL's trainers.

    Raises:
        TrainingError: if the run cannot give an honest result, or processes were started in a way that is not
            supported.
    """
    if trainer == "loop":
        trainee = Trainee(phases)
        with keep([trainee]) as after_step:
            train([trainee], Alone(), after_step)
        if trainee.error is not None:
            raise trainee.error
        return trainee.gradient_steps
    from capacity.training import trl_trainer

    for arm, schedule in phases:
        trl_trainer.train(arm, schedule)
        arm.diagnose()
    return None
