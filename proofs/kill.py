"""Kills `capacity sweep` with signal 9 at random moments and shows that nothing is lost or made twice.

    python proofs/kill.py STUDY.toml [--kills 20] [--least 4] [--most 20] [--seed 0] [-- OPTIONS of `capacity sweep`]

An uninterrupted sweep is made first. Then the same one is started, killed, started again, and so on. A sweep that ends
between two kills is compared with the first one, and another is begun. The last one is left to finish. Complete runs
must survive each kill untouched, and all studies must hold the same bytes.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

DETERMINISTIC = ("spec.json", "fingerprint.json", "metrics.jsonl", "outcomes.jsonl", "update.safetensors")
_CONTINUES = re.compile(r"continues after step (\d+) from its checkpoint")


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(p for p in (folder / "runs").rglob("*") if p.name in DETERMINISTIC)
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def complete(folder: Path) -> dict[str, int]:
    """The complete runs with the time they were written."""
    return {p.name: p.stat().st_mtime_ns for p in (folder / "runs").glob("*")}


@dataclass
class Proof:
    """A study that is made again and again.

    Attributes:
        command: makes the study, without its folder.
        expected: what an uninterrupted study holds.
        continued: after how many steps runs went on from checkpoints.
        studies: how many were compared with the uninterrupted one.
    """

    command: list[str]
    expected: dict[str, bytes]
    kept: dict[str, int] = field(default_factory=dict)
    continued: list[int] = field(default_factory=list)
    studies: int = 0

    def started(self, folder: Path, seconds: float | None) -> bool:
        """Makes a study, or kills the command after some seconds. Returns whether it ended by itself."""
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen([*self.command, "--out", str(folder)], stdout=subprocess.DEVNULL, stderr=said)
            try:
                code, ended = process.wait(seconds), True
            except subprocess.TimeoutExpired:
                process.kill()
                code, ended = process.wait(), False
                time.sleep(1.5)  # orphaned workers end within a second
            said.seek(0)
            text = said.read()
        assert code == (0 if ended else -9), text
        self.continued += [int(step) for step in _CONTINUES.findall(text)]
        now = complete(folder)
        assert {name: now.get(name) for name in self.kept} == self.kept, "a complete run was lost or made again"
        self.kept = now
        return ended

    def compare(self, folder: Path) -> None:
        """Compares a finished study with the uninterrupted one."""
        assert not list((folder / "failed").iterdir()), "a kill was recorded as the failure of a run"
        assert not (folder / "checkpoints").exists(), "a checkpoint of a finished run is left"
        assert contents(folder) == self.expected, "the studies differ"
        self.studies, self.kept = self.studies + 1, {}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, help="study file")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--least", type=float, default=4.0, help="seconds before a kill, at least")
    parser.add_argument("--most", type=float, default=20.0, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    # argparse takes what stands after "--" for options of this program where it follows other options.
    own, options = sys.argv[1:], []
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    rng = random.Random(given.seed)
    command = [sys.executable, "-m", "capacity_cli", "sweep", str(given.study), "--no-report", *options]
    with tempfile.TemporaryDirectory() as scratch:
        proof = Proof(command, {})
        proof.started(Path(scratch) / "whole", None)
        proof.expected, proof.kept = contents(Path(scratch) / "whole"), {}
        kills = 0
        while kills < given.kills:
            folder, delay = Path(scratch) / str(proof.studies), rng.uniform(given.least, given.most)
            if proof.started(folder, delay):
                proof.compare(folder)
                continue
            kills += 1
            print(f"kill {kills} after {delay:.0f} s: {len(proof.kept)} runs complete", flush=True)
        folder = Path(scratch) / str(proof.studies)
        assert proof.started(folder, None)
        proof.compare(folder)
        runs = len(complete(folder))
    steps = ", ".join(map(str, proof.continued)) or "none"
    print(f"{kills} kills over {proof.studies} studies of {runs} runs: 0 runs lost, 0 made twice, the same bytes")
    print(f"{len(proof.continued)} times a run continued from its checkpoint, after these steps: {steps}")


if __name__ == "__main__":
    main()
