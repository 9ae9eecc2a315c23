"""Published figures that ship as data: to compare with, never to be pooled with what is measured here.

Sources: "Learning to Reason in 13 Parameters", arXiv 2602.04118, a reproduction of it, and PEFT's method comparison.
`published_data/README.md` says what they are, and which figures contradict one another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import pandas as pd

from capacity.errors import unknown
from capacity_analysis.data.table import Points, from_frame

NAMES = ("tinylora-table2", "tinylora-text", "tinylora-reproduction", "peft-metamathqa")
CITATION = "Learning to Reason in 13 Parameters, arXiv 2602.04118"
TASKS = ("gsm8k", "math500", "minerva_math", "olympiadbench", "aime24", "amc23", "average")
GAINS = (0.5, 0.8, 0.95)

REMARKS = {
    "tinylora-table2": (
        f"Published figures, not measured here: {CITATION}, table 2; the rows of the base and of the full update are "
        "quoted there from SimpleRL-Zoo.",
        "Means without seeds or counts: no interval can be given, and differences of a point may be noise.",
        "Only GRPO: it says nothing about SFT : GRPO ratios.",
        'Two sizes of one family support "a larger model needs a smaller update" only weakly.',
        "The paper's text gives the untrained 7B 76 % on GSM8K where this table has 88.2 (76.0 is its 3B): 13 "
        "parameters gain 15 points by the one and 3.6 by the other.",
    ),
    "tinylora-text": (
        f"Published figures, not measured here: {CITATION}, figures stated in the text about GSM8K.",
        "No seeds and no counts; protocols differ from table 2 and between sections: never pool them.",
        "120 parameters recover 95 % of the gain (section 6.1) or reach 95 % accuracy (section 6.2).",
        "Appendix A.1 has the 3B at 74 % with 100 parameters, below the 76.0 of the untrained 3B in table 2.",
        "94.7 % with 13 parameters stands under Qwen3-8B, the 8B Qwen2.5 of the abstract does not exist (its size is "
        "7B), and the size of the LLaMA of section 6.4 is not stated.",
    ),
    "tinylora-reproduction": (
        "Published figures, not measured here: PEFT_implementation/results of github.com/GuoKaku/TinyLora_Reproduce, "
        f"commit 01d14571, which reproduces {CITATION}. Qwen2.5-3B-Instruct, trained by GRPO, tested on GSM8K.",
        "One run and one seed each, and one rate: intervals are for fresh items, and nothing is known of other seeds.",
        "Two grades: hash takes the number after ####, flexible takes the last number where there is none.",
        "The files give accuracies. All are whole multiples of 1/1,319, the test set of GSM8K, hence the counts.",
        "Trained parameters follow from u and n_tie by the rule of its plots: 252 u / n_tie, and at least u.",
    ),
    "peft-metamathqa": (
        "Published figures, not measured here: method_comparison/MetaMathQA of huggingface/peft (Apache 2.0), results "
        "of 2026-08-21, commit 5d602fdb. Llama-3.2-3B, trained on MetaMathQA, tested on GSM8K.",
        "One run and one seed each: intervals are for fresh items, and nothing is known of other seeds.",
        "Rates were not tuned, and configurations differ in more than size: this is no curve of what SFT can do. IA3 "
        "goes from 31.1 to 39.8 % by another rate and weight decay.",
        "The files give accuracies. All are whole multiples of 1/1,319, the test set of GSM8K, hence the counts.",
        "No untrained model is among them, so there is no gain to take a share of: ask with --target.",
    ),
}


@dataclass(frozen=True)
class Crossing:
    """The first size of a published curve that reaches a share of the gain up to the full update.

    Attributes:
        model: as published.
        task: benchmark.
        gain: share of the gain, base to full update.
        target: the accuracy that it stands for.
        trained_parameters: the first size that reaches it; for "left" the smallest one tested, for "right" None.
        last_below: the largest tested size under it, which does not reach it; None if there is none.
        censored: "left": already the smallest size reaches it; "right": none below the full update does.
    """

    model: str
    task: str
    gain: float
    target: float
    trained_parameters: int | None
    last_below: int | None
    censored: Literal["none", "left", "right"]


def reference_points(name: str) -> Points:
    """A published table in the columns of the points table; accuracies as shares, with counts where they are known.

    Raises:
        SpecError: no such table.
    """
    if name not in NAMES:
        raise unknown("reference", name, NAMES)
    frame = {
        "tinylora-table2": _table2,
        "tinylora-text": _text,
        "tinylora-reproduction": _reproduction,
        "peft-metamathqa": _peft,
    }[name]()
    return from_frame(frame, f"reference:{name}")


def read_raw(name: str) -> pd.DataFrame:
    """A published table as it ships: percent, one row as printed.

    Raises:
        SpecError: no such table.
    """
    if name not in NAMES:
        raise unknown("reference", name, NAMES)
    path = files("capacity_analysis.data") / "published_data" / f"{name}.csv"
    with path.open("r", encoding="utf-8") as handle:
        return pd.read_csv(handle)


def _table2() -> pd.DataFrame:
    raw = read_raw("tinylora-table2")
    long = raw.melt(
        ["backbone", "backbone_parameters", "trained_parameters"], list(TASKS), var_name="task", value_name="percent"
    )
    base, full = long["trained_parameters"] == 0, long["trained_parameters"] == long["backbone_parameters"]
    return pd.DataFrame(
        {
            "study": "tinylora-table2",
            "model": long["backbone"],
            "model_parameters": long["backbone_parameters"],
            "family": long["backbone"].map(lambda name: "qwen2.5-math" if "Math" in name else "qwen2.5"),
            "task": long["task"],
            "protocol": "table2",
            "method": base.map({True: "base", False: "grpo"}),
            "adapter": full.map({True: "full", False: None}),
            "trained_parameters": long["trained_parameters"],
            "split": "test",
            "accuracy": long["percent"] / 100,
        }
    )


def _text() -> pd.DataFrame:
    raw = read_raw("tinylora-text")
    return pd.DataFrame(
        {
            "study": "tinylora-text",
            "model": raw["backbone"],
            "task": "gsm8k",
            "protocol": raw["protocol"],
            "method": raw["method"],
            "trained_parameters": raw["trained_parameters"],
            "split": "test",
            "accuracy": raw["accuracy"] / 100,
        }
    )


def _reproduction() -> pd.DataFrame:
    raw = read_raw("tinylora-reproduction")
    base = raw["trained_parameters"] == 0
    told = pd.DataFrame(
        {
            "study": "tinylora-reproduction",
            "model": "Qwen2.5-3B-Instruct",
            "family": "qwen2.5",
            "task": "gsm8k",
            "method": base.map({True: "base", False: "grpo"}),
            "adapter": [
                f"tinylora u={u} n_tie={n}" if u else None for u, n in zip(raw["u"], raw["n_tie"], strict=True)
            ],
            "trained_parameters": raw["trained_parameters"],
            "learning_rate": base.map({True: None, False: 5e-5}),
            "seed": base.map({True: None, False: 42}),
            "split": "test",
            "n_items": 1319,
        }
    )
    return pd.concat([told.assign(protocol=name, n_correct=raw[f"{name}_correct"]) for name in ("hash", "flexible")])


def _peft() -> pd.DataFrame:
    raw = read_raw("peft-metamathqa")
    return raw.assign(
        study="peft-metamathqa", model="meta-llama/Llama-3.2-3B", model_parameters=3_212_749_824, family="llama3",
        task="gsm8k", protocol="peft-metamathqa", method="sft", demonstrations="metamathqa", seed=0, split="test",
    )  # fmt: skip


def first_crossings(points: Points, gains: Sequence[float] = GAINS) -> tuple[Crossing, ...]:
    """First crossings of published curves, the full update being the ceiling; in the order of the table.

    Args:
        points: rows with base, sizes and full update (adapter "full") of each model and task; others are left out.
        gains: shares of the gain.
    """
    found = []
    for (model, task), rows in points.frame.groupby(["model", "task"], sort=False):
        base, full = rows[rows["method"] == "base"], rows[(rows["adapter"] == "full").fillna(False)]
        sizes = rows.drop(base.index).drop(full.index).sort_values("trained_parameters")
        if len(base) != 1 or len(full) != 1 or sizes.empty:
            continue
        floor, ceiling = float(base["accuracy"].iloc[0]), float(full["accuracy"].iloc[0])
        for gain in gains:
            target = floor + gain * (ceiling - floor)
            reached = sizes[sizes["accuracy"] >= target - 1e-12]
            first = None if reached.empty else int(reached["trained_parameters"].iloc[0])
            smallest = int(sizes["trained_parameters"].iloc[0])
            state: Literal["none", "left", "right"] = "none"
            if first is None:
                state = "right"
            elif first == smallest:
                state = "left"
            under = [int(n) for n in sizes["trained_parameters"] if first is None or n < first]
            below = under[-1] if under else None
            found.append(Crossing(str(model), str(task), gain, target, first, below, state))
    return tuple(found)


def supported_lines(points: Points, gain: float = 0.8) -> list[str]:
    """What follows about model size: on how many benchmarks the largest model of a family needs a smaller update.

    A crossing lies anywhere above the last size that misses the target. So one model needs less for certain only if
    its first crossing is at most the other's last size below.

    Args:
        points: a published table; families with one model are left out.
        gain: share of the gain.
    """
    lines = []
    crossings = [c for c in first_crossings(points, (gain,)) if c.task != "average"]
    for _, rows in points.frame[points.frame["family"].notna()].groupby("family", sort=False):
        models = list(rows.sort_values("model_parameters", kind="stable")["model"].unique())
        if len(models) < 2:
            continue
        small, large = ({c.task: c for c in crossings if c.model == m} for m in (models[0], models[-1]))
        shared = [task for task in small if task in large]
        less = [task for task in shared if _certainly_less(large[task], small[task])]
        more = [task for task in shared if _certainly_less(small[task], large[task])]
        lines.append(
            f"{models[-1]} needs a smaller update than {models[0]} for {100 * gain:.0f} % of its gain on "
            f"{_of(less, shared)} and a larger one on {_of(more, shared)}; elsewhere the tested sizes do not tell"
        )
    return lines


def _certainly_less(one: Crossing, other: Crossing) -> bool:
    return (
        one.trained_parameters is not None
        and other.last_below is not None
        and one.trained_parameters <= other.last_below
    )


def _of(some: Sequence[str], everything: Sequence[str]) -> str:
    """ "2 of 6 benchmarks (a, b)"."""
    named = f" ({', '.join(some)})" if some else ""
    return f"{len(some)} of {len(everything)} benchmarks{named}"


def crossing_words(crossing: Crossing) -> str:
    """ "≤ 13 (91.0)": the size, and the accuracy asked for in percent; "> 100,352 (89.0)" where no size reaches it."""
    if crossing.trained_parameters is None:
        size = f"> {crossing.last_below:,}"
    else:
        size = f"{'≤ ' if crossing.censored == 'left' else ''}{crossing.trained_parameters:,}"
    return f"{size} ({100 * crossing.target:.1f})"
