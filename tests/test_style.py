"""The two knobs of the demonstrations: entropy and shift are what they say, and neither moves the other."""

import math
from collections import Counter

import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.errors import SpecError
from capacity.models.tokenizer import build_tokenizer
from capacity.spec.parts import TaskSpec
from capacity.tasks import abacus_language as language
from capacity.tasks.abacus import AbacusTask
from capacity.tasks.catalog import open_task, parse_task

TASK = AbacusTask()
SLOTS = (language.OPENINGS, language.JOINTS, language.CLOSINGS)
BASE = language.SYNONYM_ODDS
ENTROPY = language.entropy(BASE)  # bits of three words
SHIFTS = (0.0, 1.0, 2.5, 4.0, language.LARGEST_SHIFT)
shifts = st.floats(0, language.LARGEST_SHIFT)


@unhurried
@given(shifts)
def test_another_hand_is_as_far_as_asked_and_has_the_entropy_of_the_base(shift: float) -> None:
    odds = language.hand(shift)
    assert odds.shape == (8,)
    assert odds.min() > 0
    assert odds.sum() == pytest.approx(1, abs=1e-12)
    assert language.entropy(odds) == pytest.approx(ENTROPY, abs=1e-9)
    assert language.style_shift(odds) == pytest.approx(shift, abs=1e-6)


def test_no_shift_is_the_base_and_the_largest_its_opposite() -> None:
    assert language.hand(0).tolist() == BASE.tolist()
    assert language.hand(language.LARGEST_SHIFT).tolist() == BASE[::-1].tolist()
    assert pytest.approx(3 * np.sum(BASE[::-1] * np.log2(BASE[::-1] / BASE)), abs=1e-12) == language.LARGEST_SHIFT


def test_nothing_of_the_same_entropy_is_further_from_the_base() -> None:
    """Odds of any kind, sharpened or flattened until they have the base's entropy."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        logs = rng.normal(size=8)
        low, high = 1e-3, 1e3
        for _ in range(80):
            middle = math.sqrt(low * high)
            odds = np.exp(middle * (logs - logs.max()))
            odds /= odds.sum()
            entropy = -3 * sum(p * math.log2(p) for p in odds if p > 0)
            low, high = (middle, high) if entropy > ENTROPY else (low, middle)
        assert 3 * sum(p * math.log2(p / q) for p, q in zip(odds, BASE, strict=True) if p > 0) < language.LARGEST_SHIFT


@pytest.mark.parametrize("shift", [-1e-9, -1.0, language.LARGEST_SHIFT + 1e-9, 5.0, float("nan"), float("inf")])
def test_shift_out_of_range_is_refused_in_one_line(shift: float) -> None:
    with pytest.raises(SpecError, match=r"^style_shift .* is out of range: 0 to 4\.857 bits$"):
        language.hand(shift)


def parts_of(texts: list[str]) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
    """How often each triple of words, and each pair of fillers, occurs in stepwise answers."""
    tokenizer = build_tokenizer()
    words: Counter[tuple[str, ...]] = Counter()
    fillers: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))
        words[tuple(t for t in tokens if any(t in slot for slot in SLOTS))] += 1
        fillers[tuple(t for t in tokens if t == language.PLAIN or t in language.FILLERS)] += 1
    return words, fillers


@pytest.mark.parametrize("bits", language.STYLE_BITS)
@pytest.mark.parametrize("shift", [0.0, 2.0, 4.0])
def test_samples_have_the_entropy_and_the_shift_that_were_asked_for(bits: int, shift: float) -> None:
    """Empirical −log₂ of the exact probabilities against the exact entropies, within five standard errors."""
    item, n = TASK.items("train", 1)[0], 4000
    texts = AbacusTask(style_bits=bits, style_shift=shift).demonstrations(item, n, np.random.default_rng(1))
    words, fillers = parts_of(texts)
    odds = language.hand(shift)
    assert {len(w) for w in words} == {3}
    own = [sum(math.log2(odds[slot.index(w)]) for slot, w in zip(SLOTS, ws, strict=True)) for ws in words]
    base = [sum(math.log2(BASE[slot.index(w)]) for slot, w in zip(SLOTS, ws, strict=True)) for ws in words]
    count = np.array(list(words.values()))

    def mean_and_error(values: list[float]) -> tuple[float, float]:
        x = np.repeat(values, count)
        return float(x.mean()), float(x.std(ddof=1)) / math.sqrt(n)

    entropy, error = mean_and_error([-a for a in own])
    assert entropy == pytest.approx(ENTROPY, abs=5 * error)
    divergence, error = mean_and_error([a - b for a, b in zip(own, base, strict=True)])
    assert divergence == pytest.approx(shift, abs=5 * error + 1e-9)
    # All fillers of a form are equally likely, so their entropy is the log of how many there are.
    assert len(fillers) <= 2**bits
    assert set(map(len, fillers)) == {2}
    collisions = sum(c * (c - 1) for c in fillers.values()) / (n * (n - 1))
    q = 2.0**-bits
    assert collisions == pytest.approx(q, abs=5 * math.sqrt(2 * q * (1 - q)) / n + 1e-12)


def test_base_writes_every_form_of_fillers_equally_often() -> None:
    rng, n = np.random.default_rng(0), 6000
    plain = Counter(sum(f == language.PLAIN for f in language.draw_fillers(None, rng)) for _ in range(n))
    for form in (0, 1, 2):
        assert plain[form] == pytest.approx(n / 3, abs=5 * math.sqrt(n * 2 / 9))
    assert pytest.approx(math.log2(3)) == language.FORM_BITS


def test_forms_have_equal_length_whatever_the_knobs() -> None:
    tokenizer, rng = build_tokenizer(), np.random.default_rng(0)
    for item in TASK.items("train", 20):
        lengths = {
            len(tokenizer.encode(text, add_special_tokens=False))
            for bits in language.STYLE_BITS
            for shift in SHIFTS
            for text in AbacusTask(style_bits=bits, style_shift=shift).demonstrations(item, 4, rng)
        }
        assert len(lengths) == 1


def test_shift_moves_no_filler_and_bits_move_no_word() -> None:
    """From the same generator: the words depend on the shift only, the fillers on the bits only."""
    item = TASK.items("train", 1)[0]

    def drawn(bits: int, shift: float) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        task, rng = AbacusTask(style_bits=bits, style_shift=shift), np.random.default_rng(3)
        made = [parts_of([text]) for text in task.demonstrations(item, 50, rng)]
        return [(next(iter(words)), next(iter(fillers))) for words, fillers in made]

    for shift in (0.0, 4.0):
        words = [[w for w, _ in drawn(bits, shift)] for bits in language.STYLE_BITS]
        assert words[0] == words[1] == words[2]
    for bits in language.STYLE_BITS:
        assert [f for _, f in drawn(bits, 0.0)] == [f for _, f in drawn(bits, 4.0)]


@given(st.sampled_from([0, 4, 8]), shifts)
@unhurried
def test_label_of_a_task_is_read_back_as_that_task(bits: int, shift: float) -> None:
    spec = TaskSpec(name="abacus", demonstrations="worked", options={"style_bits": float(bits), "style_shift": shift})
    assert parse_task(spec.label) == spec


@pytest.mark.parametrize("style", ["own", "answers", "none"])
def test_label_of_a_style_without_knobs_is_read_back(style: str) -> None:
    spec = TaskSpec(name="abacus", demonstrations=style)
    assert spec.label == f"abacus?demonstrations={style}"
    assert parse_task(spec.label) == spec
    assert open_task(spec) == AbacusTask(style)


def test_options_that_are_not_named_get_their_defaults() -> None:
    full = "abacus?demonstrations=worked&style_bits=4&style_shift=4"
    for text in ("abacus", "abacus?demonstrations=worked", "abacus?style_bits=4", full, "abacus?style_shift=4.0"):
        assert parse_task(text).label == full
        assert open_task(parse_task(text)) == TASK
    assert open_task(parse_task("abacus?style_bits=8&style_shift=0")) == AbacusTask("worked", 8, 0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abakus", "did you mean abacus"),
        ("abacus?demonstrations=wroked", "did you mean worked"),
        ("abacus?hardness=3", "unknown option of task abacus 'hardness'"),
        ("abacus?style_bit=4", "did you mean style_bits"),
        ("abacus?style_bits=5", "style_bits 5 is out of range: choose from 0, 4, 8"),
        ("abacus?style_bits=nan", "style_bits nan is out of range"),
        ("abacus?style_bits=many", "style_bits=many is not a number"),
        ("abacus?style_shift=9", "style_shift 9 is out of range: 0 to 4.857 bits"),
        ("abacus?style_shift=-1", "style_shift -1 is out of range"),
        ("abacus?style_shift=nan", "style_shift nan is out of range"),
        ("abacus?style_bits=4&style_bits=8", "'style_bits=8' is given twice"),
        ("abacus?worked", "'worked' is not of the form name=value"),
        ("abacus?demonstrations=own&style_bits=4", "style_bits belongs to demonstrations=worked, not to own"),
    ],
)
def test_task_that_cannot_be_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_task(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("options", [{"style_bits": 5.0}, {"style_shift": 9.0}, {"style_bits": "many"}, {"size": 1.0}])
def test_stored_task_that_cannot_be_is_refused_too(options: dict[str, float | str]) -> None:
    with pytest.raises(SpecError):
        open_task(TaskSpec(name="abacus", demonstrations="worked", options=options))
