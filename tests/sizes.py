"""Sizes of updates for tests, in one call."""

from typing import Any

from capacity.plan.budget import Budget
from capacity.plan.sizes import Size, SizeChoice, size_of


def within(model: str, budget: str, **options: Any) -> Size:
    """The largest update within a budget, stored in bf16."""
    return size_of(model, SizeChoice(budget=Budget.parse(budget), **options), "bf16")


def chosen(model: str, adapter: str, **options: Any) -> Size:
    """The update that is chosen part by part."""
    return size_of(model, SizeChoice(adapter=adapter, **options), "fp32")
