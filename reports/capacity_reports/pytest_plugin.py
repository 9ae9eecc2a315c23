"""A pytest plugin that makes the check of a study an assertion.

    def test_capacity(assert_not_worse):
        assert_not_worse("capacity-studies/ci", "baseline.json", margin=0.02)

pytest loads this module in every session, so it imports nothing but pytest until the assertion is used.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from capacity_analysis.check.result import Check


@pytest.fixture(name="assert_not_worse")
def _assert_not_worse_fixture() -> "Callable[..., Check]":
    """The function `capacity_reports.pytest_plugin.assert_not_worse`."""
    return assert_not_worse


def assert_not_worse(
    study: str | Path,
    baseline: str | Path,
    *,
    margin: float,
    alpha: float = 0.05,
    inconclusive: str = "fail",
) -> "Check":
    """Fails the test if the study is worse than its baseline, or if nothing could be shown.

    Args:
        study: study folder.
        baseline: file of `capacity baseline`.
        margin: largest tolerated drop of the mean accuracy over sizes, as a share of 1.
        alpha: one-sided error of each claim.
        inconclusive: "fail", or "skip" to skip the test where neither could be shown.

    Returns:
        The check, for further assertions.

    Raises:
        CapacityError: study and baseline cannot be compared.
    """
    __tracebackhide__ = True
    from capacity.errors import CapacityError, SpecError
    from capacity.runs.study import Study
    from capacity_analysis.check.baseline import read_baseline
    from capacity_analysis.check.guard import guard

    if inconclusive not in ("fail", "skip"):
        raise SpecError(f'inconclusive {inconclusive!r}: choose "fail" or "skip"')
    try:
        check = guard(Study(Path(study)), read_baseline(Path(baseline)), margin=margin, alpha=alpha)
    except CapacityError as error:
        raise type(error)(str(error)) from None  # so that pytest shows the line of the test, and no more
    if check.outcome == "worse" or (check.outcome == "inconclusive" and inconclusive == "fail"):
        pytest.fail(check.verdict, pytrace=False)
    if check.outcome == "inconclusive":
        pytest.skip(check.verdict)
    return check
