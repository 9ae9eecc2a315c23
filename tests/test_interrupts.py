"""Ctrl-C at chosen moments of a command: each ends in one line on stderr and exit code 130."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from small import small_spec

import capacity
from capacity.errors import DataError, Interrupted, by_interruption
from capacity.runs.fingerprint import current
from capacity.runs.study import Study
from capacity.studies import make, torchrun, workers
from capacity.studies.workers import Event, run_all

SMOKE = Path(__file__).parent.parent / "studies" / "smoke.toml"
ONE_LINE = "capacity: interrupted\n"
# Presses Ctrl-C when a module is looked for. Compiled modules make errors of the exception that this can raise.
AT_IMPORT = """
import signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from capacity_cli.__main__ import main
main()
"""
# Presses Ctrl-C when a function is called, whoever calls it.
AT_CALL = """
import signal, sys
def press(frame, event, _):
    if event == "call" and frame.f_code.co_name == {function!r}:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)
from capacity_cli.__main__ import main
sys.setprofile(press)
main()
"""
# A command of our own between the same two ends.
OWN = """
import atexit, os, signal, sys, time
import capacity_cli.app
def press():
    signal.raise_signal(signal.SIGINT)
def command(standalone_mode):
{body}
capacity_cli.app.app = command
from capacity_cli.__main__ import main
main()
"""


def interruptible() -> None:
    """A test run that was started in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def python(code: str, *arguments: str, ignored: bool = False) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else interruptible,
    )


def own(*lines: str, ignored: bool = False) -> "subprocess.CompletedProcess[str]":
    return python(OWN.format(body="\n".join(f"    {line}" for line in lines)), ignored=ignored)


def assert_interrupted(done: "subprocess.CompletedProcess[str]", printed: str = "") -> None:
    assert (done.returncode, done.stdout, done.stderr) == (130, printed, ONE_LINE)


@pytest.mark.parametrize(
    "module", ["capacity_cli.app", "typer", "capacity_cli.threshold", "pandas", "numpy._core.multiarray", "scipy"]
)
def test_while_modules_are_imported(module: str) -> None:
    assert_interrupted(python(AT_IMPORT.format(module=module), "threshold", "reference:tinylora-table2"))


def test_inside_of_a_library_that_makes_another_error_of_it() -> None:
    """Pydantic, which calls the serializer of specs, raises an error of its own whatever that raises."""
    assert_interrupted(python(AT_CALL.format(function="_without_absent_rollouts"), "sweep", str(SMOKE), "--dry-run"))


def test_an_error_that_follows_is_not_the_reason() -> None:
    assert_interrupted(
        own("try:", "    press()", "except KeyboardInterrupt:", "    raise RuntimeError('library') from None")
    )
    assert_interrupted(own("try:", "    press()", "except KeyboardInterrupt:", "    pass", "raise OSError(5, 'x')"))


def test_in_a_finaliser_where_python_drops_exceptions() -> None:
    done = own("class A:", "    def __del__(self): press()", "A()", "time.sleep(30)", "print('not interrupted')")
    assert_interrupted(done)


def test_again_while_the_first_one_is_handled() -> None:
    done = own(
        "try:", "    press()", "finally:", "    press()", "    time.sleep(0.1)", "    press()",
        "    print('cleaned')",
    )  # fmt: skip
    assert_interrupted(done, "cleaned\n")


def test_again_where_cleaning_takes_long() -> None:
    done = own("try:", "    press()", "finally:", "    time.sleep(1.1)", "    press()", "    print('cleaned')")
    assert_interrupted(done)


def assert_terminated(done: "subprocess.CompletedProcess[str]") -> None:
    assert (done.returncode, done.stdout, done.stderr) == (143, "", ONE_LINE)


def test_sigterm_ends_a_command_as_ctrl_c_does() -> None:
    assert_terminated(own("os.kill(os.getpid(), signal.SIGTERM)", "time.sleep(30)"))
    at_import = AT_IMPORT.replace("SIGINT", "SIGTERM").format(module="pandas")
    assert_terminated(python(at_import, "threshold", "reference:tinylora-table2"))
    dropped = ("class A:", "    def __del__(self): signal.raise_signal(signal.SIGTERM)", "A()", "time.sleep(30)")
    assert_terminated(own(*dropped))


@pytest.mark.parametrize("first", ["press()", "pass"])
def test_after_the_command(first: str) -> None:
    """What Python does at its end may take long. Ctrl-C ends it at once, and only one line is printed."""
    assert_interrupted(own("atexit.register(time.sleep, 30)", "atexit.register(press)", first))


def test_an_interruption_that_passed_through_the_text_of_a_dataclass() -> None:
    """Python would end by the signal itself, not with an exit code."""
    assert_interrupted(own("exec('press()')"))


def test_what_is_started_with_ctrl_c_ignored_ignores_it() -> None:
    done = own("press()", "print('went on')", ignored=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_the_console_script_and_the_module_are_the_same_command() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"capacity": "capacity_cli.__main__:main"}
    command = [sys.executable, "-m", "capacity_cli", "version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == capacity.__version__


@pytest.mark.parametrize("way", ["cause", "context"])
def test_the_reason_of_an_error_is_found(way: str) -> None:
    error, reason = DataError("no such file"), KeyboardInterrupt()
    assert not by_interruption(error)
    setattr(error, f"__{way}__", reason)
    outer = RuntimeError("wrapped")
    outer.__cause__ = error
    assert by_interruption(outer)


def test_a_study_says_what_is_kept_whatever_error_a_library_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_all(*_: Any, **__: Any) -> int:
        raise RuntimeError("cannot be serialised") from KeyboardInterrupt()

    monkeypatch.setattr(workers, "run_all", run_all)
    study = Study(tmp_path / "study")
    with study.locked(), pytest.raises(Interrupted, match="0 of 1 missing runs were completed and are kept in"):
        make.make_missing(study, [small_spec("sft")], current("cpu", "fp32"), "")


def test_several_processes_on_one_run_say_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make_all(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(torchrun, "make", make_all)
    for rank, lines in (
        ("0", ["capacity: interrupted: complete runs are kept; the same command continues"]),
        ("1", []),
    ):
        monkeypatch.setenv("RANK", rank)
        assert torchrun.main([str(SMOKE), "--out", str(tmp_path / "study")]) == 130
        assert capsys.readouterr().err.splitlines() == lines


@pytest.fixture
def handled() -> Any:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests run in the background
    yield
    signal.signal(signal.SIGINT, before)


def children() -> set[str]:
    found = set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
    return {child for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()}


@pytest.mark.usefixtures("handled", "workers_of_commands")
def test_while_a_worker_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = workers._start, []

    def pressed(*arguments: Any) -> Any:
        started.append(start(*arguments))
        os.kill(os.getpid(), signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(workers, "_start", pressed)
    study = Study(tmp_path / "study")
    with study.locked(), pytest.raises(KeyboardInterrupt):
        run_all(study, [small_spec("sft"), small_spec("grpo")], current("cpu", "fp32"), 2, lambda _: None)
    assert [worker.process.is_alive() for worker in started] == [False]
    assert children() == set()


@pytest.mark.usefixtures("handled", "workers_of_commands")
def test_workers_never_hear_of_it(tmp_path: Path) -> None:
    """Nor before Python has reached their first line: they inherit that the signal is blocked."""
    blocked = []

    def look(event: Event) -> None:
        if event.kind == "start":
            lines = [Path(f"/proc/{child}/status").read_text().splitlines() for child in children()]
            masks = [int(line.split()[1], 16) for found in lines for line in found if line.startswith("SigBlk:")]
            blocked.extend(mask >> (signal.SIGINT - 1) & 1 for mask in masks)
            raise KeyboardInterrupt

    study = Study(tmp_path / "study")
    with study.locked(), pytest.raises(KeyboardInterrupt):
        run_all(study, [small_spec("sft"), small_spec("grpo")], current("cpu", "fp32"), 2, look)
    assert blocked == [1, 1]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
