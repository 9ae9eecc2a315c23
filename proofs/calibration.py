"""Coverage of thresholds and ratios on the simulated truths of calibration_grid.toml.

    python proofs/calibration.py [--simulations N] [--seed N] [--case WORDS] [--workers N] [--details]
    python proofs/calibration.py --before CHECKOUT [--simulations N] ...

Each case: how often the default interval holds the truth (threshold of sft, of grpo, their ratio), with Monte-Carlo
standard error; the median width in decades; how often each estimator was the answer; false claims, a lower end of the
ratio at or above 10 at true ratio 1. Where a truth lies outside of the tested sizes, coverage is one-sided: the
interval must be open. A second table shows the tests of reasons, see calibration_demands.py.

With --before, the earlier estimators of a checkout of commit b5bd0a2 answer the same simulated studies.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from calibration_demands import QUANTITIES, exceeded, judged, times_as_wide, widths_without_a_curve
from calibration_truths import ARMS, GRID, Case, Studies
from numpy.typing import NDArray

from capacity_analysis.statistics.hill_profile import limits_around
from capacity_analysis.thresholds.differences import Differences
from capacity_analysis.thresholds.estimators import believes_hill, estimate_curve, hill_ratio, monotone_ratio
from capacity_analysis.types import Array

ESTIMATORS = ("hill", "monotone")
HEADINGS = ("case", "sft", "grpo", "ratio", "false claims %")
REASON_HEADINGS = ("case", "exceeds", "reason", "tested by", "sft", "grpo", "ratio")
BEFORE_HEADINGS = ("case", *(f"{name} {when}" for name in QUANTITIES for when in ("before", "after")))
Found = dict[str, NDArray[Any]]
LEGEND = (
    "Coverage of the default interval in % ± Monte-Carlo error (median width in decades, as a multiple of the width "
    "that holds 95 % of the estimates; % of studies answered by the Hill curve, the others by the monotone estimator)."
)


def holds(low: Array, high: Array, truth: float) -> NDArray[np.bool_]:
    """Whether an interval holds the truth; an infinite truth is held by an interval that is open on its side."""
    if np.isnan(truth):  # neither arm reaches the target: nothing may be claimed
        return np.isneginf(low) & np.isposinf(high)
    return np.asarray((low <= truth) & (truth <= high))


def spread_of(estimates: Array) -> float:
    """The width that holds the middle 95 % of estimates, which no interval of this level can undercut; NaN if open."""
    if not np.isfinite(estimates).all():
        return np.nan
    low, high = np.quantile(estimates, [0.025, 0.975])
    return float(high - low)


def intervals_of(data: Differences, target: float) -> Found:
    """Estimates and ends of sft, grpo and their ratio, by estimator; "used" tells where the Hill curve answers."""
    limits = limits_around(np.full(len(data.z), target), None, None)
    arms = sft, grpo = estimate_curve(data.take(0), limits), estimate_curve(data.take(1), limits)
    out: Found = {}
    for arm, found in zip(ARMS, arms, strict=True):
        assert found.hill is not None
        out[f"{arm} used"] = believes_hill(found)
        out[f"{arm} hill"] = np.stack([found.hill.size, found.hill.low, found.hill.high])
        out[f"{arm} monotone"] = np.stack([found.monotone.size, found.monotone.low, found.monotone.high])
    out["ratio used"] = believes_hill(sft, grpo)
    for name, ratio in (
        ("hill", hill_ratio(data, limits, sft, grpo)),
        ("monotone", monotone_ratio(sft, grpo)),
    ):
        out[f"ratio {name}"] = np.stack([ratio.estimate, ratio.low, ratio.high])
    return out


def intervals(case: Case, studies: Studies) -> Found:
    """Those of all studies of a case; "z" is the differences from the target."""
    parts = case.differences(studies)
    found = [intervals_of(data, case.target) | {"z": data.z.T} for data in parts]
    return {name: np.concatenate([part[name] for part in found], axis=-1) for name in found[0]}


def earlier_intervals(case: Case, studies: Studies, checkout: Path) -> Found:
    """The intervals of the earlier estimators of another checkout, for the same studies.

    At that commit items counted only where fresh items were asked for.
    """
    given: dict[str, Any] = {
        "log_sizes": case.log_sizes,
        "share": case.share,
        "target": case.target,
        "base": studies.base,
        "answers": studies.answers,
        **studies.accuracy,
    }
    if studies.items is not None and case.spec["draws"] != "common":
        given |= {"items": studies.items} | {f"{arm} twice": studies.twice[arm] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "studies.npz"), Path(folder, "intervals.npz")
        np.savez(there, **given)
        script = Path(__file__).with_name("calibration_before.py")
        path = os.pathsep.join([str(checkout / "analysis"), str(checkout)])
        subprocess.run([sys.executable, str(script), there, back], check=True, env={**os.environ, "PYTHONPATH": path})
        with np.load(back) as found:
            return dict(found)


def coverage_of(case: Case, found: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Coverage, widths and false claims of one case."""
    n = len(found["ratio used"])
    out: dict[str, Any] = {"name": case.name, "n": n}
    for name in QUANTITIES:
        truth = case.ratio if name == "ratio" else case.truth[name]
        used = found[f"{name} used"]
        answer = np.where(used, found[f"{name} hill"], found[f"{name} monotone"])
        out[f"{name} ideal"] = spread_of(answer[0])
        for estimator, (_, low, high) in (*((e, found[f"{name} {e}"]) for e in ESTIMATORS), ("default", answer)):
            width = np.where(np.isinf(low) | np.isinf(high), np.inf, high - np.where(np.isinf(low), 0, low))
            out[f"{name} {estimator}"] = (float(np.mean(holds(low, high, truth))), float(np.median(width)))
        out[f"{name} believed"] = float(np.mean(used))
    _, low, high = answer
    out["excludes 1"] = float(np.mean((low > 0) | (high < 0)))
    out["claims 10"] = float(np.mean(low >= 1))
    out["truth"] = (case.truth["sft"], case.truth["grpo"], round(case.ratio, 4))
    return out


def simulated(raw: dict[str, Any], defaults: dict[str, Any], n: int, seed: list[int]) -> dict[str, Any]:
    """The result of one case: its lines in the grid, the defaults, the number of studies, and the seed."""
    began = time.process_time()
    case = Case(raw, defaults)
    found = intervals(case, case.studies(np.random.default_rng(seed), n))
    out = coverage_of(case, found)
    for name, width in widths_without_a_curve(case.log_sizes, found["z"].T).items():
        out[f"{name} no curve"] = width
    return {**out, "seconds": round(time.process_time() - began, 1)}


def with_counterpart(
    raw: dict[str, Any], defaults: dict[str, Any], n: int, seed: list[int]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The result of one case, and that of half as many studies without the cause that its reason names."""
    counterpart = simulated(raw | raw["without"], defaults, (n + 1) // 2, [*seed, 1]) if "without" in raw else None
    return simulated(raw, defaults, n, seed), counterpart


def before_and_after(
    raw: dict[str, Any], defaults: dict[str, Any], n: int, seed: list[int], checkout: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of the earlier and of the present estimators for the same studies."""
    case = Case(raw, defaults)
    studies = case.studies(np.random.default_rng(seed), n)
    earlier = coverage_of(case, earlier_intervals(case, studies, checkout))
    return earlier, coverage_of(case, intervals(case, studies))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int)
    parser.add_argument("--seed", type=int, help="of the simulated studies, for a confirmation with others")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--from", dest="first", default="", help="no case before the first whose name contains this")
    parser.add_argument("--workers", type=int, default=1, help="processes, each of which simulates a case at a time")
    parser.add_argument("--details", action="store_true", help="both estimators and the time, as JSON after each row")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="a checkout of commit b5bd0a2 to compare with")
    arguments = parser.parse_args()
    grid = tomllib.loads(GRID.read_text())
    n = arguments.simulations or grid["simulations"]
    seed = grid["seed"] if arguments.seed is None else arguments.seed
    names = [raw["name"] for raw in grid["cases"]]
    first = next((place for place, name in enumerate(names) if arguments.first in name), len(names))
    wanted = [raw for raw in grid["cases"][first:] if arguments.case in raw["name"]]
    seeds = [[seed, names.index(raw["name"])] for raw in wanted]
    given = [grid["defaults"]] * len(wanted), [n] * len(wanted), seeds
    print(f"{n} simulations a case; 95 % intervals. {LEGEND}\n")
    with ProcessPoolExecutor(arguments.workers) as pool:
        if arguments.before is not None:
            heading(BEFORE_HEADINGS)
            for earlier, later in pool.map(
                before_and_after, wanted, *given, [arguments.before.resolve()] * len(wanted)
            ):
                line([earlier["name"], *(cell(f, name) for name in QUANTITIES for f in (earlier, later))])
            return
        heading(HEADINGS)
        missed, tests = [], []
        for (found, counterpart), raw in zip(pool.map(with_counterpart, wanted, *given), wanted, strict=True):
            line(row(found))
            missed += judged(found, raw, counterpart)
            if "because" in raw:
                tests.append(reason(found, raw, counterpart))
            if arguments.details:
                print(json.dumps([found, counterpart], default=str), flush=True)
    print()
    heading(REASON_HEADINGS)
    for test in tests:
        line(test)
    print("\n" + ("\n".join(missed) if missed else "All cases meet the demands."))
    sys.exit(1 if missed else 0)


def heading(words: tuple[str, ...]) -> None:
    print("| " + " | ".join(words) + " |\n" + "|---" * len(words) + "|", flush=True)


def line(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def row(found: Mapping[str, Any]) -> list[str]:
    """One line of the table of cases."""
    cells = [cell(found, name, believed=True) for name in QUANTITIES]
    return [found["name"], *cells, f"{100 * found['claims 10']:.1f}" if found["truth"][2] == 0 else ""]


def cell(found: Mapping[str, Any], name: str, *, believed: bool = False) -> str:
    """Coverage of one interval with its width."""
    coverage, width = found[f"{name} default"]
    error = 100 * np.sqrt(coverage * (1 - coverage) / found["n"])
    wide, times = "open" if np.isinf(width) else f"{width:.2f}", times_as_wide(found, name)
    told = wide + ("" if np.isnan(times) else f", {times:.2f}×")
    told += f"; {100 * found[f'{name} believed']:.0f}" if believed else ""
    return f"{100 * coverage:.1f} ± {error:.1f} ({told})"


def reason(found: Mapping[str, Any], raw: Mapping[str, Any], counterpart: Mapping[str, Any] | None) -> list[str]:
    """One line of the table of reasons: the case without the cause, or the widths that the tested sizes allow."""
    if counterpart is not None:
        tested, shown = raw["otherwise"], [cell(counterpart, name) for name in QUANTITIES]
    else:
        widths = [found[f"{name} no curve"] for name in QUANTITIES]
        tested, shown = "no curve", ["open" if np.isinf(width) else f"{width:.2f}" for width in widths]
    return [found["name"], ", ".join(exceeded(found)) or "nothing", raw["because"], tested, *shown]


if __name__ == "__main__":
    main()
