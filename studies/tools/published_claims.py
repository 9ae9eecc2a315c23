"""Published claims beside what their counts allow, in Markdown: `python studies/tools/published_claims.py`.

The figures are the tables that ship as `reference:…`. Each accuracy counts as 1,319 independent answers of one run: the
test items of GSM8K. Differences have 1.96 standard errors of two binomial shares, shares have Wilson's interval.
"""

import math

from scipy.stats import binomtest

from capacity_analysis.data.published import reference_points
from capacity_analysis.words import minus

ITEMS = 1319
_Z = 1.96


def claims() -> str:
    """The table, a row a claim."""
    rows = [_paper(), _reproduction(), _peft()]
    return "\n".join(("| claim | figures, % on GSM8K | what the counts allow |", "|---|---|---|", *rows)) + "\n"


def difference(first: float, second: float) -> str:
    """The second share minus the first in points, with its interval."""
    error = _Z * math.sqrt((first * (1 - first) + second * (1 - second)) / ITEMS)
    change = second - first
    return minus(f"{100 * change:+.1f} ({100 * (change - error):+.1f} to {100 * (change + error):+.1f})")


def share(correct: int) -> str:
    """A share of the items in percent, with its interval."""
    ends = binomtest(correct, ITEMS).proportion_ci(method="wilson")
    return f"{100 * correct / ITEMS:.1f} ({100 * ends.low:.1f} to {100 * ends.high:.1f})"


def _paper() -> str:
    rows = reference_points("tinylora-table2").frame.query("model == 'Qwen2.5-7B-Instruct' and task == 'gsm8k'")
    base, trained = (float(rows.loc[rows["trained_parameters"] == size, "accuracy"].iloc[0]) for size in (0, 13))
    return (
        f"| 13 parameters by GRPO reach {100 * trained:.1f} from {100 * base:.1f} (paper, table 2, "
        f"Qwen2.5-7B-Instruct) | {difference(base, trained)} | a gain survives; the paper's text has 76 for the same "
        "untrained model |"
    )


def _reproduction() -> str:
    frame = reference_points("tinylora-reproduction").frame
    lenient, strict = (frame[frame["protocol"] == name] for name in ("flexible", "hash"))
    is_base = lenient["method"] == "base"
    base, trained = float(lenient.loc[is_base, "accuracy"].iloc[0]), lenient.loc[~is_base, "accuracy"]
    by_format = float(strict.loc[strict["method"] == "base", "accuracy"].iloc[0])
    return (
        "| small updates by GRPO improve the 3B model (a [reproduction](https://github.com/GuoKaku/TinyLora_Reproduce),"
        f" commit 01d14571, {len(trained)} updates, lenient grading) | base {100 * base:.1f}; trained "
        f"{100 * trained.min():.1f} to {100 * trained.max():.1f}; the best {difference(base, float(trained.max()))} | "
        f"no gain is shown. The untrained model has {100 * by_format:.1f} under strict grading: format alone is worth "
        f"{100 * (base - by_format):.0f} points |"
    )


def _peft() -> str:
    frame = reference_points("peft-metamathqa").frame
    correct = frame[frame["adapter"].isin(["tinylora weight-tying", "tinylora"])].set_index("trained_parameters")
    small, large = (share(int(correct.loc[size, "n_correct"])) for size in (64, 3584))
    return (
        f"| SFT fails with few parameters (PEFT's comparison, Llama-3.2-3B) | 64 parameters {small}, 3,584 parameters "
        f"{large} | not shown: one seed, one rate that nobody tuned, no untrained model beside them |"
    )


if __name__ == "__main__":
    print(claims(), end="")
