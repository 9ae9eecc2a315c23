"""Stand-ins for vLLM: an engine that computes with transformers, and a server that speaks vLLM's HTTP."""

import copy
import json
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sampled import sample
from torch import Tensor

from capacity.forward.rollout import pad_left
from capacity.sampling import likelihood
from capacity.sampling.vllm.engine import Completion, Request


class PlainEngine:
    """An engine by transformers: adapters are added to the weights for the time of a call.

    `skip`: the number of the load (from 0) that says it was done and does nothing.
    """

    version = "0.32.0"

    def __init__(self, model: Any, pad: int, skip: int | None = None) -> None:
        self.model = copy.deepcopy(model).eval()
        self.pad, self.skip = pad, skip
        self.adapters: dict[str, dict[str, Tensor]] = {}
        self.loads = self.pushes = self.rests = 0
        self.closed = False
        self.last: dict[str, Tensor] = {}

    def load(self, name: str, folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        if self.loads != self.skip:
            self.last = tensors
        self.adapters[name] = self.last
        self.loads += 1

    def unload(self, name: str) -> None:
        del self.adapters[name]

    @torch.no_grad()
    def generate(
        self, requests: Sequence[Request], *, temperature: float, max_new_tokens: int, ends: Collection[int]
    ) -> list[Completion]:
        found = []
        for request in requests:
            ids, mask = pad_left([request.prompt], self.pad)
            generator = torch.Generator().manual_seed(request.seed)
            uniforms = torch.rand(1, max_new_tokens, generator=generator, dtype=torch.float64)
            with self._with(request.adapter):
                drawn = sample(self.model, ids, mask, uniforms, temperature=temperature, ends=ends, pad=self.pad)
            kept = drawn.completion_mask[0].bool()
            found.append(Completion(drawn.completion_ids[0][kept].tolist(), drawn.sampler_logprobs[0][kept].tolist()))
        return found

    @torch.no_grad()
    def score(self, sequences: Sequence[tuple[Sequence[int], str | None]]) -> list[list[float]]:
        found = []
        for ids, adapter in sequences:
            tokens = torch.tensor([list(ids)])
            with self._with(adapter):
                logits = self.model(input_ids=tokens).logits[:, :-1].float()
            found.append(likelihood.token_logprobs(logits, tokens[:, 1:])[0].tolist())
        return found

    @torch.no_grad()
    def push(self, weights: Iterable[tuple[str, Any]]) -> None:
        for name, tensor in weights:
            if self.pushes != self.skip:
                self.model.get_parameter(name).copy_(tensor)
        self.pushes += 1

    def rest(self) -> None:
        self.rests += 1

    def close(self) -> None:
        self.closed = True

    @contextmanager
    def _with(self, adapter: str | None) -> Iterator[None]:
        changed = {}
        for key, a in self.adapters[adapter].items() if adapter else ():
            if key.endswith("lora_A.weight"):
                name = key.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
                changed[name] = self.adapters[adapter][key.replace("lora_A", "lora_B")] @ a  # type: ignore[index]
        kept = {name: self.model.get_parameter(name).detach().clone() for name in changed}
        for name, delta in changed.items():
            self.model.get_parameter(name).data += delta
        try:
            yield
        finally:
            for name, weight in kept.items():
                self.model.get_parameter(name).data.copy_(weight)


class FakeServer:
    """vLLM's endpoints over an engine. `broken`: how many of the next requests get status 503."""

    def __init__(self, engine: PlainEngine, port: int = 0, version: str = "0.32.0") -> None:
        self.engine, self.broken, self.version = engine, 0, version
        self.refusal: str | None = None
        self.seen: list[dict[str, Any]] = []
        server = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                if self.path == "/version":
                    self.answer({"version": server.version})
                else:
                    self.answer({"data": [{"id": "base"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.seen.append(body)
                    if server.broken > 0:
                        server.broken -= 1
                        self.answer({"error": {"message": "overloaded"}}, 503)
                        return
                    if self.path == "/v1/load_lora_adapter":
                        if server.refusal is not None:
                            self.answer({"error": {"message": server.refusal}}, 500)
                            return
                        server.engine.load(body["lora_name"], Path(body["lora_path"]))
                        self.answer("Success")
                    elif self.path == "/v1/unload_lora_adapter":
                        known = body["lora_name"] in server.engine.adapters
                        if known:
                            server.engine.unload(body["lora_name"])
                        self.answer({} if known else {"error": {"message": "no such adapter"}}, 200 if known else 404)
                    else:
                        self.complete(body)

            def complete(self, body: dict[str, Any]) -> None:
                name, asked = body["model"], body["sampling_params"]
                if name != "base" and name not in server.engine.adapters:
                    self.answer({"error": {"message": f"The model {name} does not exist."}}, 404)
                    return
                adapter = None if name == "base" else name
                if "prompt_logprobs" in asked:
                    ids = body["token_ids"]
                    values = server.engine.score([(ids, adapter)])[0]
                    entries = [{str(t): {"logprob": v}} for t, v in zip(ids[1:], values, strict=True)]
                    self.answer({"choices": [], "prompt_logprobs": [None, *entries]})
                    return
                drawn = server.engine.generate(
                    [Request(body["token_ids"], asked["seed"], adapter)],
                    temperature=asked["temperature"],
                    max_new_tokens=asked["max_tokens"],
                    ends=asked["stop_token_ids"],
                )[0]
                content = [{"token_id": t, "logprob": v} for t, v in zip(drawn.ids, drawn.logprobs, strict=True)]
                self.answer({"choices": [{"token_ids": drawn.ids, "logprobs": {"content": content}}]})

            def answer(self, said: Any, status: int = 200) -> None:
                data = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
