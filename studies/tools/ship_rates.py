"""Writes the shipped learning rates from the tuning of a study: `python studies/tools/ship_rates.py STUDY…`.

`capacity sweep` leaves `tuning.json` in a study folder; its arms replace those of the same model, task, method and size
in capacity/plan/rates.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

from capacity.plan.rates import shipped
from capacity.runs.files import read_json, write_atomically
from capacity.tasks.catalog import parse_task

RATES = Path(__file__).parents[2] / "capacity" / "plan" / "rates.json"
_KEY = ("model", "task", "demonstrations", "method", "adapter", "trained_parameters")


def row_of(arm: dict[str, Any]) -> dict[str, Any]:
    """A row of the table from an arm of `tuning.json`."""
    name, _, style = arm["task"].partition("?demonstrations=")
    style = "none" if style == "none" else parse_task(arm["task"]).demonstrations
    key = {**{k: arm[k] for k in _KEY if k in arm}, "task": name, "demonstrations": style}
    trials = [{"rate": t["rate"], "accuracy": t["accuracy"] and round(t["accuracy"], 4)} for t in arm["trials"]]
    return {**key, "learning_rate": arm["learning_rate"], "at_edge": arm["at_edge"], "trials": trials}


def main() -> None:
    """Reads the studies named on the command line."""
    rows = {tuple(row[k] for k in _KEY): row for row in shipped() if "trained_parameters" in row}
    for folder in sys.argv[1:]:
        for arm in read_json(Path(folder) / "tuning.json"):
            if arm["learning_rate"] is not None and arm["match"] == "prompts":
                row = row_of(arm)
                rows[tuple(row[k] for k in _KEY)] = row
    listed = [rows[key] for key in sorted(rows)]
    lines = ",\n".join("  " + json.dumps(row) for row in listed)
    write_atomically(RATES, f'{{"command": "make tune", "split": "validation", "rates": [\n{lines}\n]}}\n')
    print(f"{len(listed)} rates in {RATES.name}")


if __name__ == "__main__":
    main()
