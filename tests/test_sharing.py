import math

import numpy as np
import pytest
from fakes import unhurried
from hypothesis import given
from hypothesis import strategies as st

from capacity.adapters.projection import projections
from capacity.errors import SpecError
from capacity.plan.sharing import assign_groups, group_sizes, groups_from_n_tie, largest_useful_u

BLOCK = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def even_split(count: int, parts: int) -> list[int]:
    """Sizes of a contiguous balanced split, larger parts first (numpy's definition)."""
    return [len(part) for part in np.array_split(np.arange(count), parts)]


def even_labels(count: int, parts: int) -> list[int]:
    return [label for label, size in enumerate(even_split(count, parts)) for _ in range(size)]


@pytest.mark.parametrize(
    ("layers", "groups", "sizes"),
    [
        (4, 13, (3, 3) + (2,) * 11),
        (4, 28, (1,) * 28),
        (4, 25, (2,) * 3 + (1,) * 22),
        (28, 13, (16,) + (15,) * 12),
        (36, 100, (3,) * 52 + (2,) * 48),
    ],
)
def test_tiled_sizes_are_those_of_the_design(layers, groups, sizes):
    assert group_sizes(assign_groups(BLOCK * layers, groups, "tiled")) == sizes


@pytest.mark.parametrize("modules", [28, 196, 252])
def test_n_tie_gives_the_ceiling_of_modules_over_n_tie(modules):
    for n_tie in range(1, modules + 1):
        groups = groups_from_n_tie(modules, n_tie)
        assert (groups - 1) * n_tie < modules <= groups * n_tie


@pytest.mark.parametrize("n_tie", [-1, 0, 29])
def test_n_tie_out_of_range_is_refused_with_the_range(n_tie):
    with pytest.raises(SpecError, match=rf"n_tie {n_tie} is outside 1 … 28"):
        groups_from_n_tie(28, n_tie)


@pytest.mark.parametrize("layers", [4, 36])
def test_tiled_is_contiguous_and_balanced_for_every_n_tie(layers):
    types = BLOCK * layers
    for n_tie in range(1, len(types) + 1):
        groups = math.ceil(len(types) / n_tie)
        assignment = assign_groups(types, groups_from_n_tie(len(types), n_tie), "tiled")
        assert list(assignment) == even_labels(len(types), groups)


@pytest.mark.parametrize("layers", [4, 36])
def test_structured_is_contiguous_and_balanced_within_each_type_for_every_n_tie(layers):
    types = BLOCK * layers
    for n_tie in range(1, len(types) + 1):
        groups = math.ceil(len(types) / n_tie)
        if groups < len(BLOCK):
            continue
        assignment = assign_groups(types, groups, "structured")
        shares = even_split(groups, len(BLOCK))
        for index, name in enumerate(BLOCK):
            labels = [group for group, module in zip(assignment, types, strict=True) if module == name]
            first = sum(shares[:index])
            assert labels == [first + label for label in even_labels(layers, shares[index])]


@pytest.mark.parametrize("groups", range(1, 7))
@pytest.mark.parametrize("layers", [4, 36])
def test_structured_below_the_number_of_types_is_refused_with_that_number(layers, groups):
    with pytest.raises(SpecError, match="each of the 7 module types") as caught:
        assign_groups(BLOCK * layers, groups, "structured")
    assert "--groups 7 or more" in str(caught.value)
    assert "--sharing tiled" in str(caught.value)


@pytest.mark.parametrize("sharing", ["tiled", "structured"])
@pytest.mark.parametrize("groups", [-1, 0, 29])
def test_groups_out_of_range_are_refused_with_the_range(groups, sharing):
    with pytest.raises(SpecError, match=rf"{groups} groups are outside 1 … 28"):
        assign_groups(BLOCK * 4, groups, sharing)


@unhurried
@given(st.data(), st.lists(st.sampled_from("abcd"), min_size=1, max_size=40))
def test_structured_groups_hold_one_type_and_all_groups_are_used_whatever_the_types(data, types):
    groups = data.draw(st.integers(len(set(types)), len(types)))
    assignment = assign_groups(types, groups, "structured")
    assert len(assignment) == len(types)
    assert set(assignment) == set(range(groups))
    owners = {(group, name) for group, name in zip(assignment, types, strict=True)}
    assert len(owners) == groups


@unhurried
@given(st.data(), st.integers(1, 300))
def test_group_sizes_sum_to_the_modules_and_differ_by_at_most_one(data, modules):
    groups = data.draw(st.integers(1, modules))
    sizes = group_sizes(assign_groups(["m"] * modules, groups, "tiled"))
    assert len(sizes) == groups
    assert sum(sizes) == modules
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("groups", "rank", "useful"), [(28, 2, 4), (13, 2, 8), (1, 2, 112), (28, 3, 9), (28, 1, 1), (25, 2, 4)]
)
def test_largest_useful_u_is_rank_squared_times_the_smallest_group(groups, rank, useful):
    assert largest_useful_u(rank, assign_groups(BLOCK * 4, groups, "tiled")) == useful


@pytest.mark.parametrize("size", [1, 2, 3])
def test_entries_of_v_beyond_the_largest_useful_u_span_no_further_update(size):
    useful = largest_useful_u(2, (0,) * size)
    directions = np.hstack([projections(0, f"layers.{i}", useful + 1, 2).reshape(-1, 4) for i in range(size)])
    assert np.linalg.matrix_rank(directions[:useful]) == useful
    assert np.linalg.matrix_rank(directions) == useful
