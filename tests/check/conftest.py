"""The command line in a folder of its own, with studies that are made up and a baseline of one of them."""

import guarded
import in_process
import pytest


@pytest.fixture
def capacity(monkeypatch, tmp_path):
    """Runs `capacity` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: in_process.capacity(tmp_path, *map(str, arguments))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Writes a study; options as in `guarded.make`."""

    def write(name, **options):
        return guarded.write(guarded.make(**{"seeds": range(4), **options}), tmp_path / name, monkeypatch)

    return write


@pytest.fixture
def old(study, capacity):
    """A baseline, and the study that it was made of."""
    folder = study("old")
    assert capacity("baseline", folder).code == 0
    return folder


@pytest.fixture
def sweep(monkeypatch):
    """A sweep that makes what the test says, and how it was called."""
    calls: list[tuple[object, ...]] = []

    def install(make, planned=None):
        def make_fresh(path, out, *, workers, trainer, observe):
            calls.append((path, out, trainer, workers))
            return make(out)

        monkeypatch.setattr("capacity.library.check.make_fresh", make_fresh)
        monkeypatch.setattr("capacity.library.check.planned_specs", lambda _: planned)
        return calls

    return install
