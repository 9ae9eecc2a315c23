"""Two gloo processes make the update that one makes, and what cannot be divided is refused in one line."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small import SMALLEST, small_spec
from untrained import LuckyTask, arm_of, spec_of

from capacity.errors import SpecError, TrainingError
from capacity.runs.fingerprint import Trainer, current
from capacity.runs.study import Run, Study
from capacity.studies.torchrun import make, specs_of
from capacity.training.arm import Arm
from capacity.training.batches import prompt_schedule
from capacity.training.processes import Processes
from capacity.training.run import execute
from capacity.training.trainers import train_by

TASK = LuckyTask()
CASES: list[tuple[str, Trainer]] = [("grpo", "loop"), ("sft", "loop"), ("rft", "loop"), ("grpo", "trl"), ("sft", "trl")]
RUN = small_spec("sft", model=SMALLEST, items=8)
FAILS, AFTER = (small_spec("grpo", seed=seed, model=SMALLEST, items=8) for seed in (1, 2))


def trained(method: Any, trainer: Trainer = "loop") -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """The update after three steps, and the metrics."""
    spec = spec_of(method, steps=3, prompts_per_step=3)
    arm = arm_of(spec, TASK)
    train_by(trainer, [(arm, prompt_schedule(TASK, 0, 3, arm.prompts_per_step))])
    return arm.adapted.vector(), arm.steps


def fail_in_training(seed: int) -> None:
    """Makes the run of a seed fail in this process at its second step."""
    whole = Arm.loss

    def loss(arm: Arm, batch: Any) -> torch.Tensor:
        if arm.spec.seed == seed and arm.steps:
            raise TrainingError("only here")
        return whole(arm, batch)

    Arm.loss = loss  # type: ignore[method-assign]


def one_of_two(rank: int, port: int, folder: str) -> None:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(where, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {(method, trainer): trained(method, trainer) for method, trainer in CASES}
    torch.save(found, f"{folder}/{rank}.pt")
    failed = make([RUN], Study(Path(folder) / "study"), current("cpu", "fp32"))
    assert failed == 0
    if rank == 1:  # an error that the other process does not see
        fail_in_training(seed=1)
    failed = make([FAILS, AFTER], Study(Path(folder) / "half"), current("cpu", "fp32"))
    assert failed == 1
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def made_by_two() -> Iterator[tuple[list[dict[str, Any]], list[Run], Study]]:
    """What each of two processes found, by method, and the studies that they made together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(one_of_two, (port, folder), nprocs=2, start_method="fork")  # type: ignore[no-untyped-call]
        found = [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(2)]
        yield found, Study(Path(folder) / "study").runs(), Study(Path(folder) / "half")


@pytest.mark.parametrize(("method", "trainer"), CASES)
def test_two_processes_make_the_update_of_one(made_by_two: Any, method: str, trainer: Trainer) -> None:
    (update, metrics), (other, other_metrics) = (found[method, trainer] for found in made_by_two[0])
    assert torch.equal(update, other)
    assert metrics == other_metrics
    alone, alone_metrics = trained(method, trainer)
    assert float(alone.abs().max()) > 1e-3
    torch.testing.assert_close(update, alone, atol=1e-5, rtol=1e-4)
    assert len(metrics) == len(alone_metrics) == 3
    for row, alone_row in zip(metrics, alone_metrics, strict=True):
        for name, value in alone_row.model_dump().items():
            assert getattr(row, name) == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_two_processes_write_a_run_once(made_by_two: Any) -> None:
    (run,) = made_by_two[1]
    assert run.spec == RUN
    assert run.result.processes == 2
    alone = execute(RUN, "cpu")
    assert run.result.trained_parameters == alone.result.trained_parameters
    for row, expected in zip(run.steps, alone.steps, strict=True):
        assert row.loss == pytest.approx(expected.loss, rel=1e-4)


def test_an_error_of_one_process_ends_the_run_in_both_and_mixes_no_runs(made_by_two: Any) -> None:
    half = made_by_two[2]
    (failure,) = half.failures()
    assert (failure.run, failure.message) == (FAILS.short_id, "only here")
    (run,) = half.runs()
    alone = execute(AFTER, "cpu")
    assert [step.reward for step in run.steps] == [step.reward for step in alone.steps]
    assert run.result.accuracy == alone.result.accuracy


def test_rows_are_divided_in_order_and_evenly() -> None:
    for rows in range(10):
        for count in range(1, 5):
            ends = [Processes(rank, count).own(rows) for rank in range(count)]
            assert [i for first, last in ends for i in range(first, last)] == list(range(rows))
            assert max(b - a for a, b in ends) - min(b - a for a, b in ends) <= 1


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WORLD_SIZE", "2", "one of 2 processes that know nothing of each other"),
        ("ACCELERATE_USE_FSDP", "true", "FSDP divides the weights"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed divides the weights"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(TrainingError, match=message):
        trained("sft")


def test_a_study_whose_rates_are_tuned_is_refused() -> None:
    path = Path(__file__).parents[1] / "studies" / "paper-table-2.toml"
    with pytest.raises(SpecError, match=r'its rates are "tuned": tune them with capacity sweep'):
        specs_of(path)
