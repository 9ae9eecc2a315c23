"""Options that are one of a few words, with the nearest offered when they are not."""

from collections.abc import Sequence
from typing import cast, get_args

from capacity.errors import SpecError, unknown
from capacity.library.passes import Control, check_control
from capacity.plan.storage import STORAGE_DTYPES
from capacity.spec.parts import Draws, Match


def storage_dtype_choice(text: str) -> str:
    """A storage dtype.

    Raises:
        SpecError: unknown.
    """
    if text not in STORAGE_DTYPES:
        raise unknown("storage dtype", text, STORAGE_DTYPES)
    return text


def match_choice(text: str) -> Match:
    """What the arms of a pair have in common.

    Raises:
        SpecError: unknown.
    """
    if text not in get_args(Match):
        raise unknown("matching", text, get_args(Match))
    return cast(Match, text)


def control_choice(text: str | None) -> Control | None:
    """Which control an adapter is compared with; None without one.

    Raises:
        SpecError: unknown.
    """
    check_control(text, drift=False)
    return cast(Control | None, text)


def draws_choice(text: str) -> Draws:
    """What sampled answers of an evaluation follow from.

    Raises:
        SpecError: unknown.
    """
    if text not in get_args(Draws):
        raise unknown("kind of draws", text, get_args(Draws))
    return cast(Draws, text)


def columns_choice(pairs: Sequence[str]) -> dict[str, str]:
    """What a table calls its columns: {"item": "question_id"} of "item=question_id".

    Raises:
        SpecError: not such pairs.
    """
    found = {}
    for pair in pairs:
        column, equals, name = pair.partition("=")
        if not (column and equals and name):
            raise SpecError(f"--column {pair}: write item=NAME")
        found[column] = name
    return found


def facts_choice(pairs: Sequence[str]) -> dict[str, dict[str, str]]:
    """What is said of arms: {"": {"method": "sft"}} of "method=sft", {"a": {"seed": "1"}} of "a:seed=1".

    Raises:
        SpecError: not such pairs.
    """
    found: dict[str, dict[str, str]] = {}
    for pair in pairs:
        said, equals, value = pair.partition("=")
        arm, _, field = said.rpartition(":")
        if not (field and equals and value):
            raise SpecError(f"--set {pair}: write field=value, or NAME:field=value")
        found.setdefault(arm, {})[field] = value
    return found
