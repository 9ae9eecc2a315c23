"""What an adapter can express: the search, the shares, and the command on a study."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import capacity as command
from small import SMALLEST, TASK, small_spec

import capacity
from capacity.errors import DataError, SpecError
from capacity.plan.sizes import SizeChoice, size_of
from capacity.plan.specs import trained_spec
from capacity.sampling.evaluate import evaluation_uniforms
from capacity.sampling.exam import Exam
from capacity.spec.adapters import TinyLora
from capacity.studies import express
from capacity.studies.executors.local import local_executor
from capacity.studies.express import Search, _searched
from capacity.studies.make import Wanted, make_study
from capacity.tasks.catalog import open_task
from capacity.training.base import Base
from capacity_analysis.compare.expressible import shares_of


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_search_finds_a_minimum(n: int) -> None:
    target = torch.linspace(0.2, 0.4, n)
    tried: list[int] = []

    def missed(vector: torch.Tensor, done: int) -> float:
        tried.append(done)
        assert vector.shape == (n,)
        return float((vector - target).square().sum())

    found = _searched(missed, torch.zeros(n), 0.1, Search(evaluations=300), seed=0)
    assert missed(found[0], 0) < 1e-2
    assert missed(found[1], 0) < 1e-2
    assert 300 <= len(tried) - 2 < 320


def test_the_search_depends_on_its_seed_alone() -> None:
    def once(seed: int) -> torch.Tensor:
        return _searched(lambda v, _: float(v.abs().sum()), torch.ones(3), 0.1, Search(evaluations=20), seed)[0]

    assert torch.equal(once(0), once(0))
    assert not torch.equal(once(0), once(1))


class Pointer:
    """Stands for a model with an update."""

    def set_vector(self, vector: torch.Tensor) -> None:
        self.vector = vector


def test_what_is_found_is_never_worse_than_a_start(monkeypatch: Any) -> None:
    """Training items mislead this search, so that the trained update is still best on the validation items."""
    trained = torch.tensor([1.0, 2.0])

    class Misleading:
        def __init__(self, _task: Any, _tokenizer: Any, split: str, *_: Any, **__: Any) -> None:
            self.split = split

        def hits(self, adapted: Any) -> np.ndarray[Any, Any]:
            far = bool((adapted.vector - trained).norm() > 1e-6)
            return np.array([far == (self.split == "train")])

    monkeypatch.setattr(express, "Exam", Misleading)
    starts, search = {"zero": torch.zeros(2), "trained": trained}, Search(evaluations=8)
    best = express.search_best(Pointer(), None, None, small_spec("sft").evaluation, starts, search, 0)  # type: ignore[arg-type]
    assert (best.start, best.validation) == ("trained", 1.0)
    assert torch.equal(best.vector, trained)


def test_the_four_shares_add_up_to_one() -> None:
    rng = np.random.default_rng(0)
    base, trained, best = (np.tile(rng.random(500) < p, (3, 1)).astype(float) for p in (0.4, 0.5, 0.7))
    found = shares_of(base, trained, best)
    parts = (found.base, found.learned, found.missed, found.not_expressible)
    assert sum(part.value for part in parts) == pytest.approx(1)
    assert found.missed.value == pytest.approx(best.mean() - trained.mean())
    assert found.learned.low is not None
    assert found.learned.low < trained.mean() - base.mean() < found.learned.high


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of four parameters by sft, their control of zeros, and one of all weights by grpo."""
    folder = tmp_path_factory.mktemp("express") / "study"
    four = [small_spec("sft", "4", seed, model=SMALLEST, items=64) for seed in (0, 1)]
    zero = small_spec("zero", "4", model=SMALLEST, items=64)  # it has no artifact, and nothing to search from
    specs = [*four, zero, small_spec("grpo", "full", model=SMALLEST, items=64)]
    make_study(
        folder, lambda _study, make: (make(specs, "test"), Wanted(tuple(specs), ()))[1], executor=local_executor(1)
    )
    return folder


def test_a_study_is_searched_once(study: Path, monkeypatch: Any) -> None:
    found = capacity.express(study, evaluations=8, items=64)
    (cell,) = found.cells
    assert (cell.method, cell.parameters, cell.seeds) == ("sft", 4, 2)
    row = found.to_json()["cells"][0]
    parts = [row[part]["estimate"] for part in ("base", "learned", "missed", "not_expressible")]
    assert sum(parts) == pytest.approx(1)
    import capacity.studies.express as module

    monkeypatch.setattr(module, "search_best", None)  # a second search would fail
    assert capacity.express(study, evaluations=8, items=64).to_json() == found.to_json()


def test_other_settings_search_again(study: Path, monkeypatch: Any) -> None:
    import capacity.studies.express as module

    monkeypatch.setattr(module, "search_best", None)
    with pytest.raises(TypeError):
        capacity.express(study, evaluations=9, items=64)


def test_what_cannot_be_searched_is_refused(study: Path) -> None:
    with pytest.raises(DataError, match="no complete tinylora run of at most 3 parameters"):
        capacity.express(study, largest=3)
    with pytest.raises(DataError, match="no complete tinylora run"):
        capacity.express(study, methods=["grpo"])
    with pytest.raises(SpecError, match="unknown method 'grop'"):
        capacity.express(study, methods=["grop"])
    with pytest.raises(SpecError, match="1 or more"):
        capacity.express(study, evaluations=0)


def test_the_adapter_of_the_fixture_is_the_planned_one() -> None:
    assert isinstance(small_spec("sft", "4", model=SMALLEST).adapter, TinyLora)


# A model without a study


@pytest.fixture(scope="module")
def searched() -> Any:
    size = capacity.SizeChoice(budget=2, projection="chosen", projection_bits=2)
    return capacity.expressible(SMALLEST, size, seeds=2, evaluations=8, items=64)


def test_the_shares_of_an_adapter_that_nobody_trained_add_up(searched: Any) -> None:
    said = searched.to_json()
    assert sum(said[part]["estimate"] for part in ("base", "gained", "not_expressible")) == pytest.approx(1)
    assert (said["trained_parameters"], said["adapter"], said["seeds"]) == (2, "2 + 4 bits", 2)
    assert searched.line.startswith("A search finds updates of 2 parameters that change the accuracy of abacus-0.2m by")


def test_the_projection_is_chosen_as_a_run_of_the_seed_chooses_it(monkeypatch: Any) -> None:
    import capacity.studies.express_model as module

    seen: list[Any] = []
    layout_of = module.layout_of

    def kept(*args: Any) -> Any:
        seen.append(layout_of(*args))
        return seen[-1]

    monkeypatch.setattr(module, "layout_of", kept)
    choice = capacity.SizeChoice(budget=2, projection="chosen", projection_bits=2)
    capacity.expressible(SMALLEST, choice, seeds=1, evaluations=1, items=8)
    size = size_of(SMALLEST, choice, "bf16")
    trained = trained_spec(SMALLEST, TASK, "grpo", size, 0, "bf16", rates={"grpo": 0.01})
    base = Base.loaded(SMALLEST, "cpu")
    expected, _, _ = layout_of(base, open_task(trained.task), trained)
    assert [layout for layout, *_ in seen] == [expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1000}, "a search for 980 parameters finds little: give at most 112"),
        ({"seeds": 0}, "--seeds are 1 or more"),
        (
            {"size": capacity.SizeChoice(budget=2, projection="chosen", projection_by="own")},
            "--projection-by own needs a method that trains",
        ),
    ],
)
def test_what_cannot_be_searched_on_a_model_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        capacity.expressible(SMALLEST, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give a study folder, or a model with --model"),
        (("study", "--model", "abacus"), "give a study folder, or a model with --model"),
        (("study", "--budget", "13", "--seeds", "3"), "--seeds, --budget goes with --model"),
        (("--model", "abacus", "--largest", "5"), "--largest goes with a study folder"),
    ],
)
def test_options_of_the_other_question_are_refused(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    assert message in command(tmp_path, "express", *options).refused(2)


def test_an_exam_draws_with_other_numbers_than_an_evaluation_and_another_split() -> None:
    """Or an update that was chosen for one draw would be judged by that draw."""
    base, task = Base.loaded(SMALLEST, "cpu"), open_task(TASK)
    protocol = trained_spec(SMALLEST, TASK, "sft", size_of(SMALLEST, SizeChoice(budget=4), "bf16"), 0, "bf16",
                            rates={"sft": 0.01}).evaluation  # fmt: skip
    how = {"temperature": 1.0, "max_new_tokens": protocol.max_new_tokens, "seed": 3}
    drawn = [Exam(task, base.tokenizer, split, 32, **how)._uniforms for split in ("train", "validation")]  # type: ignore[arg-type]
    drawn.append(evaluation_uniforms(protocol, 32, 3))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(float(torch.corrcoef(torch.stack([drawn[one].flatten(), drawn[other].flatten()]))[0, 1])) < 0.15
    again = Exam(task, base.tokenizer, "train", 32, **how)
    assert torch.equal(again._uniforms, drawn[0])
