"""The data of a page that a person explores: charts, runs with their training curves, and completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from capacity_reports.explorer.charts import chart_data
from capacity_reports.explorer.completions import completions
from capacity_reports.explorer.runs import curves, runs
from capacity_reports.sections.accuracy_chart import Chart
from capacity_reports.sources import Lookups
from capacity_reports.views import Analysis


def explored(analysis: Analysis, charts: Sequence[Chart], lookups: Lookups) -> Mapping[str, Any]:
    """Everything that the scripts of the page read, as plain JSON types; null where a value is absent."""
    return {
        "charts": [chart_data(chart) for chart in charts],
        "runs": runs(analysis.source, analysis.aside),
        "curves": curves(analysis.source),
        "completions": completions(analysis.source, lookups),
    }
