import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from capacity.adapters import weights
from capacity.adapters.budget import ModuleShape
from capacity.adapters.factors import cached_svd, content_hash, truncated_svd
from capacity.adapters.weights import INDEX, SINGLE, WeightFolder, folder_factors
from capacity.errors import CapacityError, DataError

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

    monkeypatch.setattr(weights, "content_hash", touched)
    monkeypatch.setattr(weights, "safe_open", touched)
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


def test_what_was_done_before_an_interruption_stays_cached(tmp_path) -> None:
    folder, cache = single(tmp_path / "m", tensors()), tmp_path / "cache"

    def stop(done: int, total: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder_factors(folder, MODULES, 2, cache, stop)
    again = list(WeightFolder(folder).stream_factors(MODULES, 2, cache))
    assert [new for *_, new in again] == [False, False, True]


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

    from capacity.adapters.inject import attach
    from capacity.config import TinyLora
    from capacity_cli.factors import factors_command

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
    factors_command(tmp_path / "m", 2, None, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert (printed["modules"], printed["computed"], printed["cached"]) == (count, 0, count)
    factors_command(tmp_path / "m", 3, None, as_json=False)
    out, err = capsys.readouterr()
    assert f"{count} modules at rank 3: {count} computed, 0 cached" in out
    assert f"factors: {count} of {count}" in err


def test_command_on_wrong_input(tmp_path) -> None:
    from capacity_cli.factors import factors_command

    with pytest.raises(DataError, match="no such folder"):
        factors_command(tmp_path / "gone", 2, None, as_json=True)
    with pytest.raises(DataError, match=r"no config\.json"):
        factors_command(tmp_path, 2, None, as_json=True)
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(DataError, match=r"config\.json: not the config of a causal language model"):
        factors_command(tmp_path, 2, None, as_json=True)


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
