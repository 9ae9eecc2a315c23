"""A vLLM server over HTTP, by a stand-in: requests, adapters at run time, and what happens when it dies."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import FakeServer, PlainEngine

from capacity.adapters.attach import attach
from capacity.errors import EngineError, SpecError
from capacity.sampling.vllm.engine import Request
from capacity.sampling.vllm.server import ServerEngine
from capacity.sampling.vllm.sync import LoraWriter
from capacity.spec.adapters import TinyLora

QUICK = (0.05, 0.1, 0.2, 0.4, 0.8)
PROMPTS = [[5, 6, 7], [8, 9], [5, 6, 7]]


@pytest.fixture
def engine(loaded_smallest: Any) -> PlainEngine:
    return PlainEngine(loaded_smallest[0], loaded_smallest[1].pad_token_id)


@pytest.fixture
def server(engine: PlainEngine) -> Iterator[FakeServer]:
    server = FakeServer(engine)
    yield server
    server.stop()


@pytest.fixture
def adapter(smallest: Any, tmp_path: Path) -> Path:
    adapted = attach(smallest, TinyLora(u=1, groups=3, rank=2, projection_seed=0), None)
    adapted.set_vector(torch.tensor([0.5, -0.5, 0.5]))
    return LoraWriter(adapted, tmp_path, "fp32", "abacus-0.2m").write("one")[0]


def test_completions_and_scores_are_the_engine_s(engine: PlainEngine, server: FakeServer, adapter: Path) -> None:
    client = ServerEngine(server.url)
    client.load("one", adapter)
    requests = [Request(p, seed, name) for p, seed, name in zip(PROMPTS, (1, 2, 3), (None, "one", "one"), strict=True)]
    got = client.generate(requests, temperature=0.8, max_new_tokens=6, ends=[2])
    assert got == engine.generate(requests, temperature=0.8, max_new_tokens=6, ends=[2])
    asked: list[tuple[list[int], str | None]] = [([5, 6, 7, 8], None), ([5, 6, 7, 8], "one")]
    assert client.score(asked) == engine.score(asked)  # type: ignore[arg-type]
    client.close()
    assert engine.adapters == {}


def test_each_sequence_has_a_seed_of_its_own_and_nothing_of_the_generation_config(server: FakeServer) -> None:
    client = ServerEngine(server.url)
    client.generate([Request(PROMPTS[0], s) for s in (7, 8)], temperature=1.0, max_new_tokens=2, ends=[7, 2])
    sent = [body["sampling_params"] for body in server.seen]
    assert sorted(p["seed"] for p in sent) == [7, 8]
    assert all(p["stop_token_ids"] == [2, 7] for p in sent)
    assert all((p["top_p"], p["top_k"], p["min_p"], p["repetition_penalty"]) == (1.0, 0, 0.0, 1.0) for p in sent)


def test_a_busy_server_is_asked_again(server: FakeServer) -> None:
    client = ServerEngine(server.url, QUICK)
    server.broken = 3
    assert len(client.generate([Request([5], 0)], temperature=1.0, max_new_tokens=2, ends=[2])) == 1


def test_a_server_started_again_gets_its_adapters_anew(engine: PlainEngine, server: FakeServer, adapter: Path) -> None:
    client = ServerEngine(server.url, QUICK)
    client.load("one", adapter)
    before = client.score([([5, 6, 7], "one")])
    server.stop()

    def restarted() -> None:
        time.sleep(0.3)
        engine.adapters.clear()
        restarted_servers.append(FakeServer(engine, server.port))

    restarted_servers: list[FakeServer] = []
    thread = threading.Thread(target=restarted)
    thread.start()
    assert client.score([([5, 6, 7], "one")]) == before
    thread.join()
    assert restarted_servers[0].engine.loads == 2
    restarted_servers[0].stop()
    client._folders.clear()


def test_a_server_that_stays_away_ends_the_run_with_a_line(engine: PlainEngine) -> None:
    server = FakeServer(engine)
    client = ServerEngine(server.url, (0.01, 0.02))
    server.stop()
    with pytest.raises(EngineError, match=r"is gone: 3 tries in 0 s.*complete runs are kept.*the same command again"):
        client.generate([Request([5], 0)], temperature=1.0, max_new_tokens=2, ends=[2])
    with pytest.raises(EngineError, match="is gone"):
        ServerEngine(server.url, (0.01,))


def test_a_server_of_another_version(engine: PlainEngine) -> None:
    server = FakeServer(engine, version="0.9.1")
    with pytest.raises(EngineError, match=r"vLLM 0\.9\.1 is not supported"):
        ServerEngine(server.url)
    server.stop()


def test_a_rank_above_the_server_s_largest(server: FakeServer, adapter: Path) -> None:
    client = ServerEngine(server.url, QUICK)
    server.refusal = "Call failed: Worker failed with error 'LoRA rank 16 is greater than max_lora_rank 8.'"
    with pytest.raises(
        EngineError, match=r"refuses /v1/load_lora_adapter: .*LoRA rank 16 is greater.*larger --max-lora-rank"
    ):
        client.load("one", adapter)


def test_merged_weights_do_not_go_over_http(server: FakeServer) -> None:
    with pytest.raises(SpecError, match="takes no merged weights"):
        ServerEngine(server.url).push([])
