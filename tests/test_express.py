"""What an adapter can express: the search, the shares, and the command on a study."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import SMALLEST, small_spec

import capacity
from capacity.errors import DataError, SpecError
from capacity.spec.adapters import TinyLora
from capacity.studies.express import Search, _searched
from capacity.studies.make import Wanted, make_study
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
    """Two runs of four parameters by sft, and one of all weights by grpo."""
    folder = tmp_path_factory.mktemp("express") / "study"
    four = [small_spec("sft", "4", seed, model=SMALLEST, items=64) for seed in (0, 1)]
    specs = [*four, small_spec("grpo", "full", model=SMALLEST, items=64)]
    make_study(folder, lambda _study, make: (make(specs, "test"), Wanted(tuple(specs), ()))[1], workers=1)
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
