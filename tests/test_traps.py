"""What has broken adapters elsewhere, each with a non-zero θ: state dicts, checkpoints, copies, switches, DDP, …"""

import copy
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import IDS, MASK, logits, tiny
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from capacity.adapters.attach import attach
from capacity.adapters.files.peft_folder import load_peft_lora, save_peft_lora
from capacity.adapters.model import AdaptedModel
from capacity.errors import DataError
from capacity.spec.adapters import Adapter, LoraXs, TinyLora

ADAPTERS: dict[str, Adapter] = {
    "tinylora": TinyLora(groups=5, u=2, projection_seed=1),
    "lora-xs": LoraXs(rank=2),
}
ARCHITECTURES = ("llama", "gpt2")  # plain linears, and Conv1D, which stores its weight transposed


@pytest.fixture(params=ADAPTERS)
def adapter(request: Any) -> Adapter:
    return ADAPTERS[request.param]


@pytest.fixture(params=ARCHITECTURES)
def base(request: Any) -> Any:
    return tiny(request.param)


def with_theta(base: Any, adapter: Adapter) -> AdaptedModel:
    adapted = attach(copy.deepcopy(base), adapter, None)
    generator = torch.Generator().manual_seed(3)
    adapted.set_vector(0.5 * torch.randn(adapted.trained_parameters, generator=generator))
    assert not torch.allclose(logits(adapted.model), logits(base), atol=1e-2)
    return adapted


def theta_of(adapted: AdaptedModel) -> str:
    """The name of the one trained parameter: the first module owns it."""
    return f"base_model.model.{adapted.shapes[0].name}.lora_B.default.theta"


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Eight fixed token sequences."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (torch.arange(10) * (index + 3)) % 59 + 1
        return {"input_ids": ids, "labels": ids}


def loss_of(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss


def test_no_tensor_of_the_state_dict_is_shared(base: Any, adapter: Adapter, tmp_path: Path) -> None:
    adapted = with_theta(base, adapter)
    state = get_peft_model_state_dict(adapted.model)
    assert set(state) == {
        *(f"base_model.model.{s.name}.lora_{x}.weight" for s in adapted.shapes for x in "AB"),
        f"base_model.model.{adapted.shapes[0].name}.lora_B.theta",
    }
    save_file(state, tmp_path / "state.safetensors")  # refuses tensors that share memory
    assert all(torch.equal(load_file(tmp_path / "state.safetensors")[key], state[key]) for key in state)


def test_state_dict_round_trips_strictly(base: Any, adapter: Adapter) -> None:
    adapted, other = with_theta(base, adapter), attach(copy.deepcopy(base), adapter, None)
    other.model.load_state_dict(adapted.model.state_dict(), strict=True)
    assert torch.equal(other.vector(), adapted.vector())
    assert torch.equal(logits(other.model), logits(adapted.model))


def test_folder_saved_by_peft_loads_as_a_plain_lora_not_as_zero(base: Any, adapter: Adapter, tmp_path: Path) -> None:
    adapted = with_theta(base, adapter)
    adapted.model.save_pretrained(str(tmp_path))
    theirs = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path))
    torch.testing.assert_close(logits(theirs), logits(adapted.model), atol=2e-5, rtol=1e-5)


def test_folder_saved_by_peft_brings_theta_back(base: Any, adapter: Adapter, tmp_path: Path) -> None:
    adapted, fresh = with_theta(base, adapter), attach(copy.deepcopy(base), adapter, None)
    adapted.model.save_pretrained(str(tmp_path))
    fresh.model.load_adapter(str(tmp_path), "default", is_trainable=True)
    assert torch.equal(fresh.vector(), adapted.vector())
    assert torch.equal(logits(fresh.model), logits(adapted.model))
    assert list(fresh.trained) == [theta_of(fresh)]


def test_a_foreign_lora_loaded_over_theta_is_refused_not_ignored(base: Any, adapter: Adapter, tmp_path: Path) -> None:
    save_peft_lora(with_theta(base, adapter), tmp_path, "fp32", "base")
    fresh = attach(copy.deepcopy(base), adapter, None)
    with pytest.raises(DataError, match="not what θ makes, so it is another adapter's"):
        fresh.model.load_adapter(str(tmp_path), "default")


def test_an_adapter_with_keys_the_model_has_no_place_for_is_refused(
    base: Any, adapter: Adapter, tmp_path: Path
) -> None:
    save_peft_lora(with_theta(base, adapter), tmp_path, "fp32", "base")
    path = tmp_path / "adapter_model.safetensors"
    renamed = {key.replace(".0.", ".7."): tensor for key, tensor in load_file(path).items()}
    save_file(renamed, path)
    with pytest.raises(DataError, match="has no place for"):
        load_peft_lora(copy.deepcopy(base), tmp_path)


@pytest.mark.parametrize("name", ["missing", "truncated"])
def test_broken_peft_folders_are_refused(base: Any, tmp_path: Path, name: str) -> None:
    save_peft_lora(with_theta(base, ADAPTERS["lora-xs"]), tmp_path, "fp32", "base")
    path = tmp_path / "adapter_model.safetensors"
    if name == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"has no adapter_model\.safetensors|cannot be read"):
        load_peft_lora(copy.deepcopy(base), tmp_path)


def trainer(adapted: AdaptedModel, folder: Path, steps: int) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, learning_rate=0.05, save_steps=2,
        lr_scheduler_type="constant", use_cpu=True, report_to="none", disable_tqdm=True, logging_strategy="no",
        dataloader_pin_memory=False, seed=0,
    )  # fmt: skip
    return Trainer(model=adapted.model, args=arguments, train_dataset=Rows())


def test_checkpoint_and_resume_equal_an_uninterrupted_training(base: Any, adapter: Adapter, tmp_path: Path) -> None:
    whole = with_theta(base, adapter)
    start = whole.vector()
    trainer(whole, tmp_path / "whole", 4).train()
    first = with_theta(base, adapter)
    trainer(first, tmp_path / "parts", 2).train()
    resumed = attach(copy.deepcopy(base), adapter, None)
    trainer(resumed, tmp_path / "parts", 4).train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert not torch.allclose(whole.vector(), start, atol=1e-2)
    assert torch.equal(resumed.vector(), whole.vector())


def test_deep_copies_are_independent(base: Any, adapter: Adapter) -> None:
    adapted = with_theta(base, adapter)
    copied = copy.deepcopy(adapted)
    assert torch.equal(logits(copied.model), logits(adapted.model))
    copied.set_vector(torch.zeros(copied.trained_parameters))
    assert torch.equal(logits(copied.model), logits(base))
    assert not torch.equal(logits(adapted.model), logits(base))
    loss_of(copied.model).backward()
    assert next(iter(adapted.trained.values())).grad is None
    assert next(iter(copied.trained.values())).grad is not None


def test_off_is_the_base_and_on_is_the_update(base: Any, adapter: Adapter) -> None:
    adapted = with_theta(base, adapter)
    on = logits(adapted.model)
    with adapted.switched_off() as off:
        assert torch.equal(logits(off), logits(base))
    assert torch.equal(logits(adapted.model), on)
    assert list(adapted.trained) == [theta_of(adapted)]


def test_a_second_adapter_stands_beside_it(base: Any, adapter: Adapter, tmp_path: Path) -> None:
    adapted = with_theta(base, adapter)
    on = logits(adapted.model)
    save_peft_lora(adapted, tmp_path, "fp32", "base")
    adapted.model.load_adapter(str(tmp_path), "exported")
    adapted.model.set_adapter("exported")
    torch.testing.assert_close(logits(adapted.model), on, atol=2e-5, rtol=1e-5)
    types = sorted({s.type for s in adapted.shapes})
    adapted.model.add_adapter("new", LoraConfig(r=2, target_modules=types, task_type="CAUSAL_LM"))
    adapted.model.set_adapter("new")
    assert torch.equal(logits(adapted.model), logits(base))  # a new LoRA starts at zero
    loss_of(adapted.model).backward()
    theta = adapted.model.get_parameter(theta_of(adapted))
    assert theta.grad is None
    assert theta_of(adapted) not in adapted.trained
    adapted.model.set_adapter("default")
    assert torch.equal(logits(adapted.model), on)
    loss_of(adapted.model).backward()
    assert list(adapted.trained) == [theta_of(adapted)]
    assert theta.grad is not None
    assert bool(theta.grad.any())


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(base: Any, adapter: Adapter, reentrant: bool) -> None:
    def gradient(checkpointing: bool) -> torch.Tensor:
        adapted = with_theta(base, adapter)
        adapted.model.train()
        if checkpointing:
            adapted.model.enable_input_require_grads()
            adapted.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            assert adapted.bare.is_gradient_checkpointing
        loss = adapted.model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        (theta,) = adapted.trained.values()
        assert theta.grad is not None
        return theta.grad

    for module in base.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # two forward passes of one training step must agree
    plain = gradient(False)
    assert bool(plain.any())
    assert torch.equal(gradient(True), plain)


ELSEWHERE = """
import os, pickle, sys, torch
import torch.distributed as dist
from pathlib import Path
from architectures import IDS, MASK, logits, tiny
from test_traps import ADAPTERS, with_theta
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", rank=rank, world_size=2)
for kind, adapter in ADAPTERS.items():
    adapted = with_theta(tiny("llama"), adapter)
    model = torch.nn.parallel.DistributedDataParallel(adapted.model)
    optimiser = torch.optim.Adam(adapted.trained.values(), lr=0.05)
    for _ in range(3):
        optimiser.zero_grad()
        row = slice(rank, rank + 1)
        model(input_ids=IDS[row], attention_mask=MASK[row], labels=IDS[row]).loss.backward()
        optimiser.step()
    torch.save(adapted.vector(), folder / f"{kind}-{rank}.pt")
dist.destroy_process_group()
for path in sorted(folder.glob("*.pickle"))[rank::2]:
    adapted = pickle.loads(path.read_bytes())
    adapted.set_vector(adapted.vector() * 1.0)
    torch.save((logits(adapted.model), list(adapted.trained)), path.with_suffix(".pt"))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two other processes made: trained vectors of each adapter, and logits of models pickled here."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for architecture in ARCHITECTURES:
        for kind, adapter in ADAPTERS.items():
            data = pickle.dumps(with_theta(tiny(architecture), adapter))
            (folder / f"{architecture}-{kind}.pickle").write_bytes(data)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    processes = [
        subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(rank), str(folder), port], env=environment)
        for rank in range(2)
    ]
    assert [p.wait(timeout=180) for p in processes] == [0, 0]
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_pickled_to_another_process_it_computes_the_same(elsewhere: Path, architecture: str, kind: str) -> None:
    adapted = with_theta(tiny(architecture), ADAPTERS[kind])
    there, trained = torch.load(elsewhere / f"{architecture}-{kind}.pt")
    assert torch.equal(there, logits(adapted.model))
    assert trained == list(adapted.trained)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_two_processes_train_as_one_on_both_halves(elsewhere: Path, kind: str) -> None:
    first, second = (torch.load(elsewhere / f"{kind}-{rank}.pt") for rank in range(2))
    assert torch.equal(first, second)
    alone = with_theta(tiny("llama"), ADAPTERS[kind])
    start = alone.vector()
    optimiser = torch.optim.Adam(alone.trained.values(), lr=0.05)
    for _ in range(3):
        optimiser.zero_grad()
        halves = [
            alone.model(input_ids=IDS[i : i + 1], attention_mask=MASK[i : i + 1], labels=IDS[i : i + 1]).loss
            for i in range(2)
        ]
        (sum(halves) / 2).backward()
        optimiser.step()
    torch.testing.assert_close(first, alone.vector(), atol=1e-5, rtol=1e-4)
    assert float((alone.vector() - start).abs().max()) > 0.05


def test_conv1d_differences_are_transposed_as_its_weight_is(adapter: Adapter) -> None:
    adapted = with_theta(tiny("gpt2"), adapter)
    for shape, a, b in adapted.pairs():
        layer = adapted.layer(shape)
        assert layer.get_base_layer().weight.shape == (shape.k, shape.d)
        torch.testing.assert_close(layer.get_delta_weight("default"), (b @ a).T)
