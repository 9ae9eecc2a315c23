"""How the runs of a study are dealt to jobs."""

import pytest
from small import SMALLEST, small_spec

from capacity.errors import SpecError
from capacity.plan.together import fitting, jobs, shares_passes
from capacity.spec.parts import RolloutSpec
from capacity.spec.run import RunSpec

GPU = 80 * 10**9


def base(temperature: float) -> RunSpec:
    spec = small_spec("base", model=SMALLEST)
    return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"temperature": temperature})})


TRAINED = [small_spec("grpo", model=SMALLEST, seed=seed) for seed in range(5)]


def test_one_run_a_job_on_a_cpu_and_the_base_at_all_temperatures_in_one() -> None:
    bases = [base(t) for t in (0.0, 0.5, 1.0)]
    assert jobs([*bases, *TRAINED], None, None) == [tuple(bases), *((spec,) for spec in TRAINED)]


def test_runs_are_dealt_to_as_few_jobs_as_asked_for() -> None:
    assert [len(job) for job in jobs(TRAINED, 2, None)] == [2, 2, 1]
    assert [spec for job in jobs(TRAINED, 2, None) for spec in job] == TRAINED
    assert [len(job) for job in jobs(TRAINED, None, GPU)] == [5]


def test_updates_of_weights_and_rollouts_of_an_engine_stand_alone() -> None:
    full = small_spec("sft", "full", model=SMALLEST)
    engine = TRAINED[0].model_copy(update={"rollouts": RolloutSpec()})
    quantised = TRAINED[0].model_copy(update={"model": "smollm2-135m?quantised=nf4"})
    assert not any(map(shares_passes, (full, engine, quantised, base(1.0))))
    found = jobs([TRAINED[0], full, TRAINED[1], engine, TRAINED[2], TRAINED[3]], 4, None)
    assert [len(job) for job in found] == [1, 1, 1, 1, 2]


def test_other_models_are_other_jobs() -> None:
    other = small_spec("grpo", model="abacus-0.9m")
    assert [len(job) for job in jobs([*TRAINED[:2], other], 8, None)] == [2, 1]


def test_more_runs_than_fit_are_refused_with_what_fits() -> None:
    large = small_spec("grpo", model="qwen2.5-0.5b")
    fits = fitting(large, GPU)
    assert 1 < fits < 1000
    assert fitting(large, 2 * GPU) > fits
    jobs([large] * 2, fits, GPU)
    with pytest.raises(SpecError, match=f"--together {fits + 1} does not fit: at most {fits} runs like grpo"):
        jobs([large] * 2, fits + 1, GPU)
