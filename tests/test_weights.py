import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from threadpoolctl import threadpool_info, threadpool_limits

from capacity.adapters.svd import checkpoint
from capacity.adapters.svd.cache import cached_svd
from capacity.adapters.svd.checkpoint import INDEX, SINGLE, WeightFolder, folder_factors
from capacity.adapters.svd.content_hash import content_hash
from capacity.adapters.svd.factors import truncated_svd
from capacity.errors import CapacityError, DataError
from capacity.plan.model_shapes import ModuleShape

MODULES = [
    ModuleShape("model.layers.0.self_attn.q_proj", 24, 24),
    ModuleShape("model.layers.0.mlp.up_proj", 40, 24),
    ModuleShape("model.layers.0.mlp.down_proj", 24, 40),
]


@pytest.fixture(autouse=True)
def _close_values() -> Iterator[None]:
    """Small random weights often have close singular values; that warning is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are closer than a ratio.*")
        yield


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    made = {f"{m.name}.weight": torch.randn(m.d, m.k, generator=g).to(dtype) for m in MODULES}
    return {"model.embed_tokens.weight": torch.randn(50, 24, generator=g).to(dtype), **made}


def single(folder: Path, stored: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({n: t.contiguous() for n, t in stored.items()}, folder / SINGLE)
    return folder


def sharded(folder: Path, stored: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    names = {}
    for i, (name, tensor) in enumerate(stored.items(), start=1):
        names[name] = f"model-{i:05d}-of-{len(stored):05d}.safetensors"
        save_file({name: tensor.contiguous()}, folder / names[name])
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    return folder


def assert_factors(found: dict[str, Any], stored: dict[str, torch.Tensor]) -> None:
    assert list(found) == [m.name for m in MODULES]
    for name, factors in found.items():
        w = stored[f"{name}.weight"]
        np.testing.assert_array_equal(factors.u, truncated_svd(w, 2, content_hash(w)).u)


@pytest.mark.parametrize("save", [single, sharded])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factors_are_those_of_the_loaded_weights(tmp_path, save: Any, dtype: torch.dtype) -> None:
    stored = tensors(dtype)
    folder = save(tmp_path / "m", stored)
    seen: list[tuple[int, int, str]] = []
    found = folder_factors(folder, MODULES, 2, tmp_path / "cache", lambda *event: seen.append(event))
    assert_factors(found, stored)
    assert seen == [(i, 3, m.name) for i, m in enumerate(MODULES, start=1)]


def test_digests_are_the_content_hashes_of_all_tensors(tmp_path) -> None:
    stored = tensors(torch.bfloat16)
    folder = WeightFolder(sharded(tmp_path / "m", stored))
    assert folder.digests(None) == {name: content_hash(t) for name, t in stored.items()}
    assert {n: t.shape for n, t in folder.tensors.items()} == {n: tuple(t.shape) for n, t in stored.items()}


@pytest.mark.parametrize("save", [single, sharded])
def test_a_second_start_reads_no_weight(tmp_path, monkeypatch: pytest.MonkeyPatch, save: Any) -> None:
    folder, cache = save(tmp_path / "m", tensors()), tmp_path / "cache"
    first, digests = folder_factors(folder, MODULES, 2, cache), WeightFolder(folder).digests(cache)
    moved = folder.rename(tmp_path / "elsewhere")

    def touched(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(checkpoint, "content_hash", touched)
    monkeypatch.setattr(checkpoint, "safe_open", touched)
    second = folder_factors(moved, MODULES, 2, cache)
    assert WeightFolder(moved).digests(cache) == digests
    for name, factors in first.items():
        np.testing.assert_array_equal(second[name].vt, factors.vt)


def test_changed_files_are_hashed_anew(tmp_path) -> None:
    folder, cache = single(tmp_path / "m", tensors()), tmp_path / "cache"
    before = WeightFolder(folder).digests(cache)
    changed = tensors()
    changed[f"{MODULES[0].name}.weight"] += 1  # the header and the size stay as they are
    single(folder, changed)
    after = WeightFolder(folder).digests(cache)
    assert [n for n in after if after[n] != before[n]] == [f"{MODULES[0].name}.weight"]


def test_damaged_hashes_are_computed_anew(tmp_path) -> None:
    folder, cache = single(tmp_path / "m", tensors()), tmp_path / "cache"
    before = WeightFolder(folder).digests(cache)
    (path,) = (cache / "digests").iterdir()
    path.write_text(path.read_text().replace(before["model.embed_tokens.weight"], "0" * 64))
    assert WeightFolder(folder).digests(cache) == before


def test_hashes_that_cannot_be_kept_are_a_warning(tmp_path) -> None:
    folder, cache = single(tmp_path / "m", tensors()), tmp_path / "cache"
    cache.mkdir()
    (cache / "digests").write_text("")
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        assert len(WeightFolder(folder).digests(cache)) == 4


def test_the_cache_is_that_of_loaded_models(tmp_path) -> None:
    stored = tensors()
    for m in MODULES:
        cached_svd(stored[f"{m.name}.weight"], 2, m.name, tmp_path / "cache")
    folder = WeightFolder(single(tmp_path / "m", stored))
    assert [new for *_, new in folder.stream_factors(MODULES, 2, tmp_path / "cache")] == [False] * 3


@pytest.mark.parametrize("threads", [1, 2])
def test_what_was_done_before_an_interruption_stays_cached(tmp_path, threads: int) -> None:
    folder, cache = single(tmp_path / "m", tensors()), tmp_path / "cache"

    def stop(done: int, total: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder_factors(folder, MODULES, 2, cache, stop, threads=threads)
    again = list(WeightFolder(folder).stream_factors(MODULES, 2, cache))
    assert [new for *_, new in again][:2] == [False, False]


MANY = [ModuleShape(f"model.layers.{i}.mlp.up_proj", 300 + 10 * (i % 3), 200) for i in range(12)]


def many(folder: Path) -> WeightFolder:
    """A checkpoint of `MANY`."""
    g = torch.Generator().manual_seed(1)
    return WeightFolder(single(folder, {f"{m.name}.weight": torch.randn(m.d, m.k, generator=g) for m in MANY}))


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_the_number_of_threads_changes_no_bit_and_no_order(tmp_path) -> None:
    folder = many(tmp_path / "m")
    with threadpool_limits(limits=2, user_api="blas"):
        one, two, five = (list(folder.stream_factors(MANY, 3, None, threads=n)) for n in (1, 2, 5))
    for other in (two, five):
        assert [name for name, *_ in other] == [m.name for m in MANY]
        for (_, expected, _), (_, found, _) in zip(one, other, strict=True):
            for field, value in vars(expected).items():
                np.testing.assert_array_equal(value, getattr(found, field))


def test_blas_has_one_thread_meanwhile_and_its_own_number_afterwards(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen, torch_threads = many(tmp_path / "m"), set[int](), torch.get_num_threads()

    def observed(*arguments: Any) -> Any:
        seen.update(blas_threads())
        seen.add(torch.get_num_threads())
        return truncated_svd(*arguments)

    monkeypatch.setattr(checkpoint, "truncated_svd", observed)
    torch.set_num_threads(2)
    try:
        with threadpool_limits(limits=2, user_api="blas"):
            before = blas_threads()
            assert set(before) == {2}
            list(folder.stream_factors(MANY, 2, None))
            stream = folder.stream_factors(MANY, 2, None)
            next(stream)
            stream.close()
            assert blas_threads() == before
            with pytest.raises(CapacityError):
                list(folder.stream_factors(MANY, 201, None))
            assert blas_threads() == before
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(torch_threads)
    assert seen == {1}


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_weights_are_worked_on_than_there_are_threads(
    tmp_path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    folder, lock, inside, most = many(tmp_path / "m"), threading.Lock(), 0, 0
    read = folder.read

    def counted(name: str) -> torch.Tensor:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        return read(name)

    def slow(*arguments: Any) -> Any:
        nonlocal inside
        time.sleep(0.02)
        factors = truncated_svd(*arguments)
        with lock:
            inside -= 1
        return factors

    monkeypatch.setattr(folder, "read", counted)
    monkeypatch.setattr(checkpoint, "truncated_svd", slow)
    list(folder.stream_factors(MANY, 2, None, threads=threads))
    assert most == threads
    # Where the memory allows one at a time, more threads do not help.
    most = 0
    monkeypatch.setattr(checkpoint, "_BESIDE", 0)
    list(folder.stream_factors(MANY, 2, None, threads=threads))
    assert most == 1


@pytest.mark.parametrize(
    ("d", "k", "size", "transposed", "memory"),
    [(40, 20, 3200, False, 3200), (20, 40, 3200, False, 6400), (40, 20, 1600, False, 4800), (20, 40, 3200, True, 9600)],
)
def test_memory_of_a_module(d: int, k: int, size: int, transposed: bool, memory: int) -> None:
    stored = checkpoint.StoredTensor("a.weight", Path("a"), (k, d) if transposed else (d, k), size)
    assert checkpoint._Work(ModuleShape("a", d, k), stored, transposed).memory == memory


def test_the_largest_layer() -> None:
    names = {"model.layers.9.up": 3, "model.layers.10.up": 4, "model.layers.10.experts.7.down": 2, "lm_head": 5}
    works = [
        checkpoint._Work(ModuleShape(n, 2, 2), checkpoint.StoredTensor(n, Path("a"), (2, 2), size), False)
        for n, size in names.items()
    ]
    assert checkpoint._largest_layer(works) == 6


def test_ctrl_c_stops_the_work_and_keeps_what_was_done(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = many(tmp_path / "m"), tmp_path / "cache"
    begun: list[str] = []

    def interrupted(weight: torch.Tensor, rank: int, digest: str, name: str, check: Any) -> Any:
        begun.append(name)
        if name != MANY[3].name:
            return truncated_svd(weight, rank, digest, name, check)
        # A signal, as of Ctrl-C, which wakes the main thread; `_thread.interrupt_main` leaves it waiting.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        while True:  # for ever, unless the check ends it
            check()
            time.sleep(0.01)

    monkeypatch.setattr(checkpoint, "truncated_svd", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            folder_factors(folder, MANY, 2, cache, threads=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert set(begun) >= {m.name for m in MANY[:4]}
    monkeypatch.undo()
    again = {name: new for name, _, new in folder.stream_factors(MANY, 2, cache)}
    assert sum(again[m.name] for m in MANY[:3]) <= 1  # the one that the other thread was at
    assert again[MANY[3].name]


def test_the_error_of_one_module_ends_the_work(tmp_path) -> None:
    folder, cache = many(tmp_path / "m"), tmp_path / "cache"
    shapes = [*MANY[:4], ModuleShape("model.layers.9.bad", 30, 20), *MANY[4:]]
    stored = {name: folder.read(name).clone() for name in folder.tensors}
    broken = WeightFolder(single(tmp_path / "b", {**stored, "model.layers.9.bad.weight": torch.full((30, 20), np.inf)}))
    with pytest.raises(CapacityError, match=r"model\.layers\.9\.bad: its weight has values that are not finite"):
        folder_factors(broken, shapes, 2, cache, threads=3)
    assert [new for *_, new in folder.stream_factors(MANY[:4], 2, cache)] == [False] * 4


@pytest.mark.parametrize("rename", [lambda n: n.removeprefix("model."), lambda n: f"language.{n}"])
def test_the_base_prefix_may_be_missing_or_one_more(tmp_path, rename: Any) -> None:
    stored = tensors()
    folder = single(tmp_path / "m", {rename(n): t for n, t in stored.items()})
    assert_factors(folder_factors(folder, MODULES, 2, None), stored)


def test_transposed_weights_of_conv1d(tmp_path) -> None:
    stored = tensors()
    cache = tmp_path / "cache"
    folder = single(tmp_path / "m", {n: t.T for n, t in stored.items()})
    names = {m.name for m in MODULES}
    assert_factors(folder_factors(folder, MODULES, 2, cache, transposed=names), stored)
    # Only a square weight does not show by its shape how it is stored.
    untold = folder_factors(folder, MODULES, 2, cache)
    square, *others = MODULES
    w = stored[f"{square.name}.weight"].T
    np.testing.assert_array_equal(untold[square.name].u, truncated_svd(w, 2, content_hash(w)).u)
    assert_factors(untold | folder_factors(folder, [square], 2, cache, transposed=names), stored)
    assert len(others) == 2


def cut(folder: Path) -> None:
    path = folder / SINGLE
    path.write_bytes(path.read_bytes()[:-100])


def lengthen(folder: Path) -> None:
    path = folder / SINGLE
    path.write_bytes(path.read_bytes() + b"0")


def break_header(folder: Path) -> None:
    (folder / SINGLE).write_bytes(b"\x00" * 4)


def break_index(folder: Path) -> None:
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text("{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"model.safetensors: [\d,]+ bytes where its header tells of [\d,]+: download it again"),
        (lengthen, "bytes where its header tells of"),
        (break_header, "model.safetensors: not a safetensors file: download it again"),
        (lambda f: (f / SINGLE).write_bytes(b"\xff" * 100), "not a safetensors file"),
        (lambda f: (f / SINGLE).unlink(), "neither model.safetensors nor model.safetensors.index.json"),
        (break_index, "index.json: not an index of shards"),
        (lambda f: f.rename(f.with_name("gone")), "no such folder"),
    ],
)
def test_damaged_folders(tmp_path, damage: Any, message: str) -> None:
    folder = single(tmp_path / "m", tensors())
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        folder_factors(folder, MODULES, 2, None)
    assert "\n" not in str(caught.value)


def test_a_missing_shard(tmp_path) -> None:
    folder = sharded(tmp_path / "m", tensors())
    (folder / "model-00003-of-00004.safetensors").unlink()
    with pytest.raises(DataError, match=r"1 of 4 shards are missing, the first is model-00003-of-00004\.safetensors"):
        WeightFolder(folder)


def test_tensors_that_do_not_fit(tmp_path) -> None:
    folder = single(tmp_path / "m", {**tensors(), "a.weight": torch.ones(4, 3, dtype=torch.int8)})
    cases = {
        "no tensor model.layers.9.q_proj.weight": ModuleShape("model.layers.9.q_proj", 24, 24),
        "has the shape 40×24 where the model has 41×24": ModuleShape(MODULES[1].name, 41, 24),
        "a.weight holds torch.int8: give an unquantised": ModuleShape("a", 4, 3),
    }
    for message, shape in cases.items():
        with pytest.raises(DataError, match=message):
            folder_factors(folder, [shape], 2, None)
    with pytest.raises(CapacityError, match=r"up_proj: rank 25 is above the smaller side of its shape 40×24"):
        folder_factors(folder, MODULES[1:], 25, None)
    with pytest.raises(DataError, match="no tensor nothing"):
        WeightFolder(folder).read("nothing")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_command(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    from capacity.adapters.attach import attach
    from capacity.spec.adapters import TinyLora
    from capacity_cli.factors import factors

    monkeypatch.setenv("CAPACITY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("capacity_cli.progress._LINE_SECONDS", -1.0)
    config: Any = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64, n_positions=16)
    if kind == "llama":
        config = LlamaConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, vocab_size=64
        )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "m")
    count = {"llama": 14, "gpt2": 8}[kind]
    # An adapter on the loaded model and the command share their cache entries.
    attach(model, TinyLora(u=1, groups=count, rank=2, projection_seed=0), tmp_path / "cache" / "factors")
    factors(tmp_path / "m", json=True)
    printed = json.loads(capsys.readouterr().out)
    assert (printed["modules"], printed["computed"], printed["cached"]) == (count, 0, count)
    factors(tmp_path / "m", 3)
    out, err = capsys.readouterr()
    assert f"{count} modules at rank 3: {count} computed, 0 cached" in out
    assert f"factors: {count} of {count}" in err


def test_command_on_wrong_input(tmp_path) -> None:
    from capacity_cli.factors import factors

    with pytest.raises(DataError, match="no such folder"):
        factors(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no config\.json"):
        factors(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(DataError, match=r"config\.json: not the config of a causal language model"):
        factors(tmp_path)


def other_fine_tune(folder: Path, seed: int) -> Any:
    """A saved model of one architecture; only its values depend on the seed."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, vocab_size=64
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return model


def test_fine_tunes_with_equal_names_sizes_and_times_are_told_apart(tmp_path: Path) -> None:
    digests = []
    for seed in range(2):
        folder = tmp_path / str(seed)
        other_fine_tune(folder, seed)
        os.utime(folder / "model.safetensors", (1, 1))
        digests.append(WeightFolder(folder).digests(tmp_path / "cache"))
    assert set(digests[0]) == set(digests[1])
    name = "model.layers.0.mlp.up_proj.weight"
    assert digests[0][name] != digests[1][name]


def test_a_single_file_wins_over_shards_as_it_does_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    other_fine_tune(tmp_path, 0)
    single = (tmp_path / "model.safetensors").read_bytes()
    sharded = other_fine_tune(tmp_path / "b", 1)
    sharded.save_pretrained(tmp_path, max_shard_size="10KB")
    (tmp_path / "model.safetensors").write_bytes(single)
    assert (tmp_path / "model.safetensors.index.json").exists()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    digests = WeightFolder(tmp_path).digests(None)
    assert all(content_hash(p) == digests[name] for name, p in loaded.named_parameters())
