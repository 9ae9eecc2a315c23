"""Kills `capacity compare` with signal 9 at random moments and shows that nothing is lost or made twice.

    python proofs/kill.py [--kills 3] [--seed 0] [-- OPTIONS of `capacity compare`]

An uninterrupted comparison is made first. Then the same one is started, killed, started again, … and at last left
to finish. Complete runs must survive each kill untouched, and both studies must hold the same bytes.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DETERMINISTIC = ("spec.json", "fingerprint.json", "metrics.jsonl", "outcomes.jsonl", "update.safetensors")


def compare(folder: Path, options: list[str]) -> list[str]:
    return [str(Path(sys.executable).with_name("capacity")), "compare", "--out", str(folder), *options]


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(p for p in (folder / "runs").rglob("*") if p.name in DETERMINISTIC)
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def complete(folder: Path) -> dict[str, int]:
    """The complete runs with the time they were written."""
    return {p.name: p.stat().st_mtime_ns for p in (folder / "runs").glob("*")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="options of `capacity compare`, after --")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, broken = Path(scratch) / "whole", Path(scratch) / "broken"
        began = time.monotonic()
        subprocess.run(compare(whole, arguments.options), check=True)
        duration = time.monotonic() - began
        kept: dict[str, int] = {}
        for kill in range(arguments.kills):
            process = subprocess.Popen(compare(broken, arguments.options), stderr=subprocess.DEVNULL)
            delay = rng.uniform(0.2, 0.5) * duration / arguments.kills * 2
            try:
                process.wait(delay)
                print("it finished before it could be killed")
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            time.sleep(2)  # orphaned workers end within a second
            now = complete(broken)
            assert {n: now.get(n) for n in kept} == kept, "a complete run was lost or made again"
            kept = now
            print(f"kill {kill + 1} after {delay:.0f} s: {len(kept)} runs complete", flush=True)
        subprocess.run(compare(broken, arguments.options), check=True)
        now = complete(broken)
        assert {n: now.get(n) for n in kept} == kept, "a complete run was lost or made again"
        assert not list((broken / "failed").iterdir()), "a kill was recorded as the failure of a run"
        assert contents(broken) == contents(whole), "the studies differ"
        print(f"{len(contents(whole))} files of {len(now)} runs are the same bytes as without kills")


if __name__ == "__main__":
    main()
