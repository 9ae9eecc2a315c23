"""Does `capacity check` notice? Faults planted in a copy of the sources, real training, the committed baseline.

    python proofs/planted_faults.py [--only NAME ...] [--study studies/ci-abacus.toml] [--baseline baseline.json]
                                    [--folder FOLDER] [--workers N]

First the sources as they are, then each fault and each harmless change, one at a time. All checks run in one folder, so
the healthy runs of the first and all later ones are still on disk when the next starts. Prints the table of docs/ci.md;
ends with 1 if a fault passed, or a change that must pass did not.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("capacity", "analysis", "reports", "cli")
MAIN = "import sys; from capacity_cli.app import main; sys.exit(main())"
Expected = Literal["worse", "refused", "green", "either"]


@dataclass(frozen=True)
class Edit:
    """`old`, which must be there, becomes `new` everywhere in `path` of the core."""

    path: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        if self.old not in text:
            raise SystemExit(f"{self.path}: {self.old!r} is not there any more: adapt the planted change")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Change:
    """A change of the sources, and what its check must say: "either" is measured, not demanded.

    `words`: of the line that a change is refused with.
    """

    name: str
    what: str
    expected: Expected
    edits: tuple[Edit, ...] = ()
    words: str = ""


_RATE = "lr=training.learning_rate,"
_SURROGATE = "-((surrogate * mask).sum(-1)"
CHANGES = (
    Change("unchanged", "the sources as they are", "green"),
    Change(
        "rate-high",
        "learning rate 10 times too high",
        "worse",
        (Edit("training/loop.py", _RATE, _RATE.replace("training.", "10 * training.")),),
    ),
    Change(
        "rate-low",
        "learning rate 10 times too low",
        "worse",
        (Edit("training/loop.py", _RATE, _RATE.replace("training.learning_rate", "training.learning_rate / 10")),),
    ),
    Change(
        "sharing",
        "sharing ignored: every module gets a vector of its own",
        "refused",
        (
            Edit(
                "adapters/kinds/tinylora.py",
                "group = useful_groups(types, adapter.groups, adapter.sharing, u=adapter.u, rank=rank)",
                "group = tuple(range(len(shapes)))",
            ),
            Edit("adapters/kinds/tinylora.py", "(adapter.u,) * adapter.groups", "(adapter.u,) * len(shapes)"),
        ),
        words="makes an update of another size",
    ),
    Change(
        "rewards",
        "rewards shuffled over the batch",
        "worse",
        (Edit("training/grpo.py", "        return graded\n", "        return graded[torch.randperm(len(graded))]\n"),),
    ),
    Change(
        "sampler",
        "adapter not reaching the sampler: GRPO trains on samples of the untrained model",
        "worse",
        (
            Edit(
                "sampling/own_model.py",
                "with self.adapted.switched_off() if base else nullcontext():",
                "with self.adapted.switched_off():",
            ),
        ),
    ),
    Change(
        "sign",
        "sign of the loss",
        "worse",
        (
            Edit("training/losses.py", f"return {_SURROGATE}", f"return {_SURROGATE[1:]}"),
            Edit("training/losses.py", "return -(logprobs * mask).sum()", "return (logprobs * mask).sum()"),
        ),
    ),
    Change(
        "renamed",
        "an internal function renamed",
        "green",
        (Edit("training/loop.py", "rate_share", "share_of_the_rate"),),
    ),
    Change(
        "message",
        "another message",
        "green",
        (Edit("training/arm.py", "no step had a gradient", "every gradient was zero"),),
    ),
    Change(
        "float-order",
        "the same sums in another order: (h Rᵀ) Bᵀ, log-softmax by logsumexp, slices of 192 items",
        "green",
        (
            Edit(
                "sampling/likelihood.py",
                "scaled.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)",
                "scaled.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(-1)",
            ),
            Edit("plan/memory.py", "SAMPLED_AT_ONCE = 256", "SAMPLED_AT_ONCE = 192"),
            Edit(
                "adapters/kinds/frozen.py",
                "return F.linear(h, self.weight)\n\n    def _save",
                "core = self.v if self.p is None else self.v @ self.p.reshape(-1, self.b.shape[1] ** 2)\n"
                "        return F.linear(F.linear(h, core.view(self.b.shape[1], -1)), self.b)\n\n    def _save",
            ),
        ),
    ),
    Change(
        "fresh-draws",
        "other random draws of samples and demonstrations",
        "either",
        (
            Edit(
                "training/batches.py",
                "DEMONSTRATION_STREAM, ROLLOUT_STREAM, PERMUTATION_STREAM, HELDOUT_STREAM = 1, 2, 3, 4, 5",
                "DEMONSTRATION_STREAM, ROLLOUT_STREAM, PERMUTATION_STREAM, HELDOUT_STREAM = 1, 12, 13, 4, 5",
            ),
        ),
    ),
)


@dataclass(frozen=True)
class CheckedChange:
    """How the check of a change ended.

    Attributes:
        outcome: of the check, or the one line that it was refused with.
        curves: the mean change of each curve, in words.
    """

    change: Change
    exit_code: int
    outcome: str
    curves: str
    seconds: float

    @property
    def as_expected(self) -> bool:
        # A check that ended otherwise, on a source that does not even run, found nothing.
        return {
            "worse": self.outcome == "worse" and self.exit_code == 1,
            "refused": self.exit_code == 2 and bool(self.change.words) and self.change.words in self.outcome,
            "green": self.exit_code == 0,
            "either": True,
        }[self.change.expected]

    def row(self) -> str:
        cells = (self.change.what, self.outcome, self.curves, str(self.exit_code), self.change.expected)
        return "| " + " | ".join(cells) + " |"


def plant(change: Change, sources: Path) -> None:
    """A copy of the sources with the change in it."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in change.edits:
        path = sources / "capacity" / edit.path
        path.write_text(edit.applied(path.read_text()))


def check(change: Change, study: Path, baseline: Path, folder: Path, workers: int | None) -> CheckedChange:
    """Makes the study from nothing with the changed sources, in `folder` beside all earlier runs, and checks it."""
    with tempfile.TemporaryDirectory() as copy:
        sources = Path(copy)
        plant(change, sources)
        path = os.pathsep.join(str(sources / name) for name in ("", "analysis", "reports", "cli"))
        command = [
            sys.executable,
            "-P",
            "-c",
            MAIN,
            "check",
            "--run",
            str(study),
            "--baseline",
            str(baseline),
            "--json",
        ]
        command += ["--workers", str(workers)] if workers else []
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        took = time.monotonic() - began
    (folder / f"{change.name}.json").write_text(done.stdout)
    if not done.stdout:
        lines = done.stderr.strip().splitlines() or ["nothing was printed"]
        return CheckedChange(change, done.returncode, lines[-1].removeprefix("capacity: "), "", took)
    found = json.loads(done.stdout)
    return CheckedChange(change, done.returncode, found["outcome"], "; ".join(map(_curve, found["curves"])), took)


def _curve(curve: dict[str, Any]) -> str:
    """The mean change of a curve in points, with the interval of the check: "grpo −12.3 (−15.0 to −9.6)"."""
    if curve["outcome"] == "identical" or curve["change"] is None:
        return f"{curve['name']} {curve['outcome']}"
    e, low, high = (f"{100 * curve['change'][name]:+.1f}".replace("-", "−") for name in ("estimate", "low", "high"))
    return f"{curve['name']} {e} ({low} to {high})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[change.name for change in CHANGES], metavar="NAME")
    parser.add_argument("--study", type=Path, default=ROOT / "studies" / "ci-abacus.toml")
    parser.add_argument("--baseline", type=Path, default=ROOT / "baseline.json")
    parser.add_argument("--folder", type=Path, help="keep the studies here; a temporary folder if not given")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        print("| change | check | mean change over sizes, points (90 % interval) | exit code | must be |")
        print("|---|---|---|---|---|", flush=True)
        for change in CHANGES:
            if options.only is None or change.name in options.only:
                results.append(
                    check(change, options.study.resolve(), options.baseline.resolve(), folder, options.workers)
                )
                print(results[-1].row(), flush=True)
    print(f"\n{sum(result.seconds for result in results) / 60:.0f} minutes.")
    surprises = [result.change.name for result in results if not result.as_expected]
    if surprises:
        print(f"not as expected: {', '.join(surprises)}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
