"""`capacity check` over real training: one planted fault, one harmless change. More: `make planted-faults`."""

import pytest
from small import SMALLEST, small_spec

from capacity.adapters.kinds.frozen import TiedUp
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.training import losses
from capacity.training.base import Bases
from capacity.training.run import execute
from capacity_analysis.check.judge import check_study
from capacity_analysis.check.snapshot import snapshot

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Makes a study of the smallest model, each time in an empty folder, as the sources are at that moment."""
    bases = Bases("cpu")

    def make(budget, rate):
        study = Study(tmp_path_factory.mktemp("study"))
        sizes = {"items": 128, "steps": 12, "prompts_per_step": 8}
        specs = [small_spec("sft", budget, seed, rate, model=SMALLEST, **sizes) for seed in SEEDS]
        with study.locked():
            study.write_plan(specs)
            for spec in specs:
                record = execute(spec, "cpu", bases=bases)
                study.add(spec, current("cpu", "fp32"), record.result, record.steps, record.outcomes, record.artifact)
        return snapshot(study)

    return make


def test_a_loss_of_the_wrong_sign_is_worse(train, monkeypatch):
    baseline = train("full", 1e-3)
    right = losses.sft_loss
    monkeypatch.setattr(losses, "sft_loss", lambda logprobs, mask: -right(logprobs, mask))
    check = check_study(train("full", 1e-3), baseline, margin=0.02)
    assert check.outcome == "worse"


def test_the_same_training_is_identical_and_products_in_another_order_are_no_worse(train, monkeypatch):
    baseline = train("13", 1e-2)

    def forward(self, h):
        core = self.v if self.p is None else self.v @ self.p.reshape(len(self.p), -1)
        return (h @ core.view(self.b.shape[1], -1).T) @ self.b.T

    assert check_study(train("13", 1e-2), baseline, margin=0.02).outcome == "identical"
    monkeypatch.setattr(TiedUp, "forward", forward)
    assert check_study(train("13", 1e-2), baseline, margin=0.02).outcome in ("identical", "non-inferior")
