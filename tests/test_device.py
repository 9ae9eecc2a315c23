"""The device of runs: chosen in one place, by the process that asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from capacity.errors import CapacityError
from capacity.studies import device as module
from capacity.studies.device import check_libraries, device, keep_one_gpu, own_device


@pytest.mark.parametrize(("visible", "kept"), [("2,3", "2"), ("1", "1"), (None, "0")])
def test_a_worker_keeps_the_first_of_the_gpus_that_it_may_see(
    visible: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    keep_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == kept


@pytest.mark.parametrize(("sees_gpus", "name"), [(True, "cuda"), (False, "cpu")])
def test_each_of_several_processes_takes_the_gpu_of_its_number(
    sees_gpus: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: sees_gpus)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (device(), own_device()) == (name, name)
    assert taken == ([3] if sees_gpus else [])


def test_without_torch_there_is_a_cpu_and_what_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in ("torch", "peft") else name)
    assert device() == "cpu"
    with pytest.raises(CapacityError, match=r"this command needs torch, peft: run pip install '\.\[train\]' in"):
        check_libraries()


def test_trl_is_needed_only_where_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "trl" else name)
    check_libraries()
    with pytest.raises(CapacityError, match=r"this command needs trl: run pip install '\.\[train\]' in"):
        check_libraries("trl")


def test_torch_is_asked_only_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; from capacity.studies.device import device; print(device(), 'torch' in sys.modules)"

    def answer() -> str:
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
        return found.stdout.strip()

    has_driver = any(Path("/dev").glob("nvidia*"))
    assert answer() == "cpu False" or has_driver
    monkeypatch.setattr(module, "_has_driver", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device() == "cuda"  # torch is there already, so it is asked
    monkeypatch.delitem(sys.modules, "torch")
    assert device() == "cpu"
