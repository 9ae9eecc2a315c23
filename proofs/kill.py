"""Kills `capacity sweep` with signal 9 at random moments and shows that nothing is lost or made twice.

    python proofs/kill.py STUDY.toml [--kills 20] [--most 0.8] [--seed 0] [-- OPTIONS of `capacity sweep`]

An uninterrupted sweep is made first. Then the same one is started, killed, started again, and so on. A sweep that ends
between two kills is compared with the first one, and another is begun. The last one is left to finish. Complete runs
must survive each kill untouched, and all studies must hold the same bytes.

The start of a sweep imports torch in each worker, which takes longer than short runs. So this process imports it once,
and most sweeps and their workers are forked from it. One in ten is the command as a user starts it.

A kill comes after an amount of work that is drawn between nothing and a share of what an uninterrupted sweep of the
same kind took. The work is the CPU time of the command and its workers, so that a machine with other work kills alike.
"""

import argparse
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from capacity.library import sweep as library_sweep  # noqa: F401  # forked sweeps need not import it again
from capacity.studies import workers
from capacity.studies.imports import import_libraries
from capacity.studies.make import environment
from capacity_cli import __main__ as command_line

DETERMINISTIC = ("spec.json", "fingerprint.json", "metrics.jsonl", "outcomes.jsonl", "update.safetensors")
COMMANDS = 10  # one in so many sweeps is the command itself
_CONTINUES = re.compile(r"continues after step (\d+) from its checkpoint")
_FORK = multiprocessing.get_context("fork")


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(p for p in (folder / "runs").rglob("*") if p.name in DETERMINISTIC)
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def complete(folder: Path) -> dict[str, int]:
    """The complete runs with the time they were written."""
    return {p.name: p.stat().st_mtime_ns for p in (folder / "runs").glob("*")}


def work(process: psutil.Process) -> float:
    """The CPU time of a command and of its workers that live, in seconds; 0 if the command has just ended."""
    found = 0.0
    try:
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            found += times.user + times.system
    except psutil.NoSuchProcess:
        return 0.0
    return found


def sweep(words: Sequence[str], said: Path, forked: bool) -> None:
    """Becomes a sweep, in a process that was forked for it.

    Args:
        words: the command line after `capacity`.
        said: the file of its stderr.
        forked: its workers are forked too. If False, the command begins anew in this process.
    """
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if not forked:
        os.execv(sys.executable, [sys.executable, "-m", "capacity_cli", *words])
    workers.get_context = lambda _: _FORK  # type: ignore[assignment, attr-defined]
    sys.argv = ["capacity", *words]
    command_line.main()


@dataclass
class Proof:
    """A study that is made again and again.

    Attributes:
        words: the command line that makes the study, without its folder.
        said: the file of what the command says.
        expected: what an uninterrupted study holds.
        kept: the complete runs of the present study, with the time they were written.
        continued: after how many steps runs went on from checkpoints.
        worked: the CPU time of the last sweep, in seconds.
        studies: how many were compared with the uninterrupted one.
    """

    words: list[str]
    said: Path
    expected: dict[str, bytes] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    continued: list[int] = field(default_factory=list)
    worked: float = 0.0
    studies: int = 0

    def started(self, folder: Path, most: float, *, forked: bool) -> bool:
        """Makes a study, or kills the command after so much work. Returns whether it ended by itself."""
        process = _FORK.Process(target=sweep, args=([*self.words, "--out", str(folder)], self.said, forked))
        process.start()
        assert process.pid is not None
        measured, self.worked = psutil.Process(process.pid), 0.0
        while process.exitcode is None and self.worked < most:
            time.sleep(0.2)  # to look at the processes takes milliseconds
            self.worked = max(self.worked, work(measured))
        ended = process.exitcode is not None
        if not ended:
            orphans = measured.children(recursive=True) if measured.is_running() else []
            process.kill()
            process.join()
            assert not psutil.wait_procs(orphans, timeout=60)[1], "a worker outlived its command"
        text = self.said.read_text() if self.said.exists() else ""
        assert process.exitcode == (0 if ended else -9), text
        self.continued += [int(step) for step in _CONTINUES.findall(text)]
        now = complete(folder)
        assert {name: now.get(name) for name in self.kept} == self.kept, "a complete run was lost or made again"
        self.kept = now
        return ended

    def whole(self, folder: Path, *, forked: bool) -> float:
        """Makes a study without an interruption, and returns the CPU time that it took, in seconds."""
        assert self.started(folder, float("inf"), forked=forked)
        self.kept = {}
        return self.worked

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
    parser.add_argument("--most", type=float, default=0.8, help="work before a kill, as a share of a whole sweep's")
    parser.add_argument("--seed", type=int, default=0)
    # argparse takes what stands after "--" for options of this program where it follows other options.
    own, options = sys.argv[1:], []
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    rng = random.Random(given.seed)
    words = ["sweep", str(given.study), "--no-report", *options]
    import_libraries()
    environment()  # is computed once in a process
    with tempfile.TemporaryDirectory() as scratch:
        proof = Proof(words, Path(scratch) / "said")
        most = {
            forked: given.most * proof.whole(Path(scratch) / f"whole-{forked}", forked=forked)
            for forked in (False, True)
        }
        proof.expected = contents(Path(scratch) / "whole-False")
        assert contents(Path(scratch) / "whole-True") == proof.expected, "forked sweeps give other bytes"
        kills = starts = 0
        while kills < given.kills:
            starts += 1
            forked, folder = starts % COMMANDS > 0, Path(scratch) / str(proof.studies)
            if proof.started(folder, rng.uniform(0, most[forked]), forked=forked):
                proof.compare(folder)
                continue
            kills += 1
            how = "forked" if forked else "command"
            print(f"kill {kills} ({how}) after {proof.worked:.1f} s: {len(proof.kept)} runs complete", flush=True)
        folder = Path(scratch) / str(proof.studies)
        assert proof.started(folder, float("inf"), forked=True)
        proof.compare(folder)
        runs = len(complete(folder))
    steps = ", ".join(map(str, proof.continued)) or "none"
    print(f"{kills} kills over {proof.studies} studies of {runs} runs: 0 runs lost, 0 made twice, the same bytes")
    print(f"{len(proof.continued)} times a run continued from its checkpoint, after these steps: {steps}")


if __name__ == "__main__":
    main()
