"""The loop and TRL's trainers: the same spec gives the same update. TRL is imported only where it trains."""

from pathlib import Path

import pytest
import torch
from small import SMALLEST, small_spec

from capacity.adapters.attach import attach
from capacity.models.loading import load
from capacity.runs.fingerprint import Trainer, current
from capacity.runs.study import Study
from capacity.spec.methods import Method
from capacity.spec.result import Step
from capacity.spec.run import RunSpec
from capacity.studies.workers import run_all
from capacity.tasks.catalog import open_task
from capacity.training.batch import Cost, Recorder
from capacity.training.phases import phases
from capacity.training.trainers import train_by

STEPS = 10


def trained(spec: RunSpec, trainer: Trainer) -> tuple[torch.Tensor, list[Step]]:
    """The update (n,) after all steps in fp32 on the CPU, and the metrics of the steps."""
    torch.manual_seed(spec.seed)
    model, tokenizer = load(spec.model, "cpu")
    adapted, recorder = attach(model, spec.adapter, None), Recorder([], Cost())
    for arm, schedule in phases(adapted, tokenizer, open_task(spec.task), spec, recorder):
        train_by(trainer, [(arm, schedule)])
        arm.diagnose()
    assert adapted.vector().dtype == torch.float32
    return adapted.vector(), recorder.steps


@pytest.mark.parametrize("budget", ["100", "full"])
@pytest.mark.parametrize("method", ["sft", "grpo", "rft", "sft+grpo"])
def test_the_loop_and_trl_give_the_same_update(method: Method, budget: str) -> None:
    """After ten steps ‖θ − θ′‖ ≤ 1e-6 ‖θ‖, through a warm-up, a decay and gradients that are clipped."""
    rate = 1e-4 if budget == "full" else 0.01
    spec = small_spec(method, budget, model=SMALLEST, rate=rate, steps=STEPS, warmup_steps=2, max_grad_norm=0.1)
    theta, steps = trained(spec, "loop")
    of_trl, steps_of_trl = trained(spec, "trl")
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in steps_of_trl], rel=1e-5, abs=1e-6)
    assert len(steps) == STEPS
    assert float(theta.norm()) > 0
    assert float((theta - of_trl).norm()) <= 1e-6 * float(theta.norm())


@pytest.mark.usefixtures("workers_of_commands")
def test_workers_import_trl_only_where_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers take the modules of this process's path, where neither TRL nor datasets can be imported."""
    for name in ("trl", "datasets"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text(f"raise ImportError('{name} was imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))
    spec, failed = small_spec("sft", model=SMALLEST, items=8), {}
    for trainer in ("loop", "trl"):
        study = Study(tmp_path / trainer)
        with study.locked():
            failed[trainer] = run_all(study, [spec], current("cpu", "fp32", trainer), 1, lambda _: None)
    assert failed == {"loop": 0, "trl": 1}
    (run,) = Study(tmp_path / "loop").runs()
    assert run.fingerprint.trainer == "loop"
    (failure,) = Study(tmp_path / "trl").failures()
    assert "was imported" in failure.message
