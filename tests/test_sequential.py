import itertools
import json
import multiprocessing

import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.errors import DataError
from capacity_analysis.check.alarms import AlarmBudget, Entry, History

BUDGET = AlarmBudget(alpha=0.05, rate=0.005)


def entry(spent=0.0, evidence="e", verdict="non-inferior", earned=BUDGET.rate):
    return Entry(baseline="b", evidence=evidence, verdict=verdict, earned=earned, spent=spent)


def levels(identical, budget=BUDGET):
    """The levels of checks; True is one whose outcomes were identical."""
    past, found = [], []
    for number, same in enumerate(identical):
        level = budget.next_level(past, str(number)).level
        found.append(0.0 if same else level)
        past.append(entry(found[-1], str(number), earned=budget.rate))
    return found


def test_level_does_not_fall_with_the_number_of_checks():
    found = levels([False] * 100)
    assert [found[n - 1] for n in (1, 10, 100)] == pytest.approx([0.005] * 3, abs=1e-12)


def test_identical_checks_save_for_the_first_that_is_not():
    for before, level in ((0, 0.005), (1, 0.01), (9, 0.05), (99, 0.05), (999, 0.05)):
        assert levels([True] * before + [False])[-1] == pytest.approx(level, abs=1e-12)


@unhurried
@given(st.lists(st.booleans(), max_size=120), st.floats(0.001, 0.05))
def test_never_more_is_spent_than_was_promised(identical, rate):
    found = np.array(levels(identical, AlarmBudget(0.05, rate)))
    assert (np.cumsum(found) <= rate * np.arange(1, len(found) + 1) + 1e-12).all()
    assert (found <= 0.05).all()


def test_alarms_stay_within_the_promise_even_if_every_check_shares_its_luck():
    """One uniform p for all checks of a project: the worst dependence there is."""
    generator = np.random.default_rng(0)
    spent = np.array(levels(generator.random(200) < 0.5))
    alarms = (generator.random((20_000, 1)) <= spent).sum(1)
    error = alarms.std() / np.sqrt(len(alarms))
    assert alarms.mean() <= 200 * BUDGET.rate + 3 * error


def test_a_level_that_was_spent_under_another_promise_is_a_debt():
    past = [entry(0.05, "old", earned=0.05)]
    assert BUDGET.saved(past) == pytest.approx(0)
    assert BUDGET.next_level([*past, entry(0.02, "x", earned=0.005)], "y").level == 0.0


def test_the_same_evidence_keeps_its_level_and_is_not_a_new_chance():
    past = [entry(0.005, "a"), entry(0.0, "b", "identical"), entry(0.01, "c"), entry(0.0, "debt")]
    again = BUDGET.next_level(past, "c")
    assert (again.level, again.check, again.repeated) == (0.01, 5, True)
    assert not BUDGET.next_level(past, "b").repeated
    assert not BUDGET.next_level(past, "d").repeated
    assert BUDGET.next_level(past, "debt").level == 0.0


def test_history_gives_back_what_was_added(tmp_path):
    history = History(tmp_path / "history.jsonl")
    entries = [entry(0.005, "a"), entry(0.0, "b", "identical"), entry(0.01, "c", "worse")]
    for n, one in enumerate(entries):
        with history.held() as past:
            assert past == entries[:n]
            history.append(one)
    assert len(history.path.read_text().splitlines()) == 3


def test_history_only_grows(tmp_path):
    history = History(tmp_path / "history.jsonl")
    texts = []
    for n in range(4):
        history.append(entry(evidence=str(n)))
        texts.append(history.path.read_text())
    assert all(b.startswith(a) and len(b) > len(a) for a, b in itertools.pairwise(texts))


def add_many(path):
    for _ in range(20):
        history = History(path)
        with history.held() as past:
            history.append(entry(evidence=str(len(past))))


def test_checks_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "history.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_many, args=(path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = [json.loads(line)["evidence"] for line in path.read_text().splitlines()]
    assert found == [str(n) for n in range(60)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 is not a check"),
        (200_000 * "[", "line 2 is not a check"),
        ("[]", "line 2 is not a check"),
        ('{"version":1}', "line 2 is not a check"),
        (entry().model_dump_json()[:-9], "line 2 is not a check"),
        (entry().model_dump_json().replace('"version":1', '"version":2'), "line 2 has version 2"),
        (entry().model_dump_json().replace('"spent":0.0', '"spent":-1'), "line 2 is not a check"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, words):
    path = tmp_path / "history.jsonl"
    path.write_text(entry().model_dump_json() + "\n" + line + "\n" + entry().model_dump_json() + "\n")
    with pytest.raises(DataError) as caught, History(path).held():
        pass
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_lost_last_newline_joins_no_lines(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.append(entry(evidence="a"))
    history.path.write_text(history.path.read_text().rstrip())
    history.append(entry(evidence="b"))
    history.path.write_text(history.path.read_text() + "\n")
    with history.held() as past:
        assert [one.evidence for one in past] == ["a", "b"]


def test_a_history_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder: cannot be written"):
        History(tmp_path / "folder").append(entry())
