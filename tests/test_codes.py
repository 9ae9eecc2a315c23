"""Races of codes: which codes there are, and that the best one wins."""

from typing import Any

import numpy as np
import pytest
import torch
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

import capacity
from capacity.adapters.files import artifact
from capacity.adapters.files.codec import payload_bytes
from capacity.adapters.files.levels import Levels
from capacity.errors import DataError, SpecError
from capacity.studies.codes import Code, CodeBook, race


@pytest.mark.parametrize(("parameters", "choice_bits", "level_bits"), [(1, 3, 2), (2, 1, 1), (1, 0, 3), (1, 4, 0)])
def test_a_book_has_every_code_once(parameters: int, choice_bits: int, level_bits: int) -> None:
    book = CodeBook(parameters, choice_bits, level_bits, 0.5)
    codes = list(book.codes())
    assert len(set(codes)) == len(codes) == 2**book.bits
    assert book.bits == parameters * (choice_bits + level_bits)
    assert {abs(v) for code in codes for v in code.values} <= {abs(level) for level in book.levels.values}
    assert max(book.levels.values) == 0.5


def test_levels_are_even_and_symmetric() -> None:
    np.testing.assert_allclose(CodeBook(1, 0, 2, 0.3).levels.values, [-0.3, -0.1, 0.1, 0.3])


class Answers:
    """Stands for an exam: code number c answers item i correctly if `table[c, i]` is 1."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.asked = table, 0

    def __len__(self) -> int:
        return self.table.shape[1]

    def hits(self, adapted: Any, start: int, stop: int) -> np.ndarray:
        self.asked += stop - start
        return self.table[adapted.number, start:stop]


class Holder:
    """Stands for a model: it knows the number of the code that was put on it."""

    candidates = None

    def choose(self, candidates: tuple[int, ...]) -> None:
        self.number = candidates[0]

    def set_vector(self, vector: Any) -> None: ...


def test_the_best_code_wins_and_most_items_are_never_asked() -> None:
    rng = np.random.default_rng(0)
    truths = np.full(64, 0.3)
    truths[17] = 0.8
    exam = Answers(rng.random((64, 512)) < truths[:, None])
    codes = [Code((number,), (0.1,)) for number in range(64)]
    winner = race(codes, Holder(), exam, first=16)  # type: ignore[arg-type]
    assert winner.code == codes[17]
    assert winner.correct == int(exam.table[17].sum())
    assert exam.asked < 64 * 512 / 4


def test_of_equal_codes_the_first_wins() -> None:
    exam = Answers(np.ones((8, 64), dtype=bool))
    codes = [Code((number,), (0.1,)) for number in range(8)]
    assert race(codes, Holder(), exam, first=8).code == codes[0]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("code") / "code.safetensors"
    return capacity.certify("abacus-0.2m", choice_bits=2, level_bits=1, items=64, scale=0.02, out=out)


def test_a_certificate_states_what_was_seen(certified: Any) -> None:
    found = certified.to_json()
    assert found["bits"] == 3
    assert found["items"] == 64
    assert found["lower"] < found["correct"] / 64
    assert found["base_upper"] > found["base_correct"] / 64
    assert certified.line.startswith("No gain is certified: the best code of 3 bits may go from at most ")


def test_the_winner_is_an_artifact_that_is_rebuilt(certified: Any) -> None:
    read = artifact.read_file(certified.out)
    assert read.recipe.adapter.choice.bits == 2
    again = capacity.evaluate(adapter=certified.out)
    assert again.to_json()["accuracy"] == certified.to_json()["test"]


def test_the_artifact_of_a_code_takes_its_bits_in_whole_bytes(certified: Any) -> None:
    """Two bits of choice and one bit of level; each part fills a byte of its own."""
    read = artifact.read_file(certified.out)
    assert payload_bytes(read.payload) == certified.to_json()["update_bytes"] == 2
    assert read.recipe.levels == Levels(bits=1, scale=0.02)
    assert certified.lines[-1] == f"The code takes 2 bytes in {certified.out}."


@unhurried
@given(st.integers(0, 12), st.integers(1, 2), st.data())
def test_stored_levels_come_back(bits: int, count: int, data: st.DataObject) -> None:
    levels = Levels(bits=bits, scale=0.05)
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count))
    vector = torch.tensor(levels.values)[numbers]
    stored = levels.encode(vector)
    assert payload_bytes(stored) == -(-count * bits // 8)
    assert torch.equal(levels.decode(stored, count), vector)


def test_numbers_between_levels_and_damaged_levels_are_refused() -> None:
    levels = Levels(bits=2, scale=0.3)
    with pytest.raises(DataError, match="none of the 4 levels"):
        levels.encode(torch.tensor([0.2]))
    with pytest.raises(DataError, match="the update cannot be read: 1 bytes are expected"):
        levels.decode({"theta": torch.zeros(2, dtype=torch.uint8)}, 1)
    with pytest.raises(DataError, match="the stored levels cannot be read"):
        levels.decode({"other": torch.zeros(1, dtype=torch.uint8)}, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choice_bits": 16, "level_bits": 5}, "codes of 21 bits are too many"),
        ({"parameters": 3}, "--parameters 3"),
        ({"choice_bits": 17}, "--choice-bits 17"),
        ({"scale": 0.0}, "--scale 0"),
        ({"level": 1.0}, "--level 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        capacity.certify("abacus-0.2m", **options)


def test_a_missing_folder_is_refused_before_the_race(tmp_path: Any) -> None:
    with pytest.raises(DataError, match="no folder"):
        capacity.certify("abacus-0.2m", out=tmp_path / "no" / "code.safetensors")


def test_an_artifact_is_not_written_over(certified: Any) -> None:
    with pytest.raises(DataError, match="exists already: choose another name, or remove it"):
        capacity.certify("abacus-0.2m", out=certified.out)


def test_the_options_of_a_model_hold_for_its_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(name: str, _: str) -> None:
        loaded.append(name)
        raise DataError("enough")

    monkeypatch.setattr("capacity.training.base.Base.loaded", load)
    with pytest.raises(DataError, match="enough"):
        capacity.certify("abacus-0.2m?dtype=bf16")
    with pytest.raises(DataError, match="enough"):
        capacity.expressible("abacus-0.2m?dtype=bf16", 2)
    assert loaded == ["abacus-0.2m?dtype=bf16"] * 2
