"""Talks over HTTP to a vLLM server. This environment then needs no vLLM, only a folder that both can read.

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve MODEL --enable-lora --max-loras 3 --max-lora-rank 8 \\
        --logprobs-mode processed_logprobs --enable-scale-out

Token ids go in and come out (`/inference/v1/generate`, a "scale-out" endpoint), so no text is tokenised twice.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from capacity.errors import EngineError, SpecError
from capacity.sampling.vllm.engine import Completion, Request, check_version

_CONNECTIONS = 64
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each further try: a minute in all
_TIMEOUT = 600.0  # seconds that one completion may take
_NOT_FOUND = 404
_TRY_AGAIN = (429, 500, 502, 503, 504)
_REFUSED = "Worker failed with error"  # what a working engine says, with status 500, of an adapter that it can't take


class ServerEngine:
    """The engine behind a vLLM server.

    A server that does not answer is asked again, with longer and longer waits. One that was started again in the
    meantime is given its adapters anew.

    Args:
        url: address of the server, "http://host:8000".
        waits: seconds before each further try.

    Raises:
        EngineError: the server is unreachable, or of a version that is not supported.
    """

    def __init__(self, url: str, waits: Sequence[float] = _WAITS) -> None:
        self.url, self.waits = url.rstrip("/"), tuple(waits)
        self.version = str(self._asked("GET", "/version")["version"])
        check_version(self.version)
        self.model = str(self._asked("GET", "/v1/models")["data"][0]["id"])
        self._folders: dict[str, Path] = {}

    def load(self, name: str, folder: Path) -> None:
        """Makes the PEFT LoRA folder `folder` known as `name`."""
        self._load(name, folder)
        self._folders[name] = folder

    def unload(self, name: str) -> None:
        """Makes the server forget an adapter. One that was started again has done so already."""
        del self._folders[name]
        self._asked("POST", "/v1/unload_lora_adapter", {"lora_name": name}, absent_is_fine=True)

    def generate(
        self, requests: Sequence[Request], *, temperature: float, max_new_tokens: int, ends: Collection[int]
    ) -> list[Completion]:
        """Draws one completion a request, in order."""
        common = _plain(temperature) | {"max_tokens": max_new_tokens, "stop_token_ids": sorted(ends), "logprobs": 0}
        answers = self._all([self._body(r.prompt, r.adapter, common | {"seed": r.seed}) for r in requests])
        found = []
        for answer in answers:
            drawn = answer["choices"][0]
            logprobs = [float(entry["logprob"]) for entry in drawn["logprobs"]["content"]]
            found.append(Completion([int(token) for token in drawn["token_ids"]], logprobs))
        return found

    def score(self, sequences: Sequence[tuple[Sequence[int], str | None]]) -> list[list[float]]:
        """The log-probabilities of all tokens but the first of each sequence under an adapter, at temperature 1."""
        common = _plain(1.0) | {"max_tokens": 1, "prompt_logprobs": 0}
        answers = self._all([self._body(ids, adapter, common) for ids, adapter in sequences])
        return [
            [
                float(entry[str(token)]["logprob"])
                for entry, token in zip(a["prompt_logprobs"][1:], ids[1:], strict=True)
            ]
            for a, (ids, _) in zip(answers, sequences, strict=True)
        ]

    def push(self, weights: Iterable[tuple[str, Any]]) -> None:  # noqa: ARG002
        """Refuses: a server takes no weights over HTTP.

        Raises:
            SpecError: always.
        """
        raise SpecError("a vLLM server takes no merged weights from capacity: sync by hot-swap, or run vLLM in process")

    def rest(self) -> None:
        """Does nothing: a server has its memory for itself."""

    def close(self) -> None:
        """Leaves the server as it was found, without our adapters."""
        for name in list(self._folders):
            self.unload(name)

    def _body(self, ids: Sequence[int], adapter: str | None, parameters: dict[str, Any]) -> dict[str, Any]:
        return {"model": adapter or self.model, "token_ids": list(ids), "sampling_params": parameters, "stream": False}

    def _all(self, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        """The answers in the order of the requests, which go out side by side, so that the server batches them."""
        with ThreadPoolExecutor(max(1, min(_CONNECTIONS, len(bodies)))) as pool:
            return list(pool.map(self._generated, bodies))

    def _generated(self, body: dict[str, Any]) -> Any:
        return self._asked("POST", "/inference/v1/generate", body, on_absent=lambda: self._reload(body["model"]))

    def _reload(self, name: str) -> bool:
        """Gives a server that was started again its adapter; False if the name is not an adapter's."""
        if name not in self._folders:
            return False
        self._load(name, self._folders[name])
        return True

    def _load(self, name: str, folder: Path) -> None:
        body = {"lora_name": name, "lora_path": str(folder.resolve()), "load_inplace": True}
        self._asked("POST", "/v1/load_lora_adapter", body)

    def _asked(
        self,
        verb: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        absent_is_fine: bool = False,
        on_absent: Callable[[], bool] | None = None,
    ) -> Any:
        """The decoded answer of the server, which is asked again after each of the waits.

        Raises:
            EngineError: the server refuses, or does not answer in the end.
        """
        last = ""
        for wait in (0.0, *self.waits):
            time.sleep(wait)
            try:
                return _answer(self.url + path, verb, body)
            except urllib.error.HTTPError as error:
                last = _message(error)
                if error.code == _NOT_FOUND and (absent_is_fine or (on_absent is not None and on_absent())):
                    if absent_is_fine:
                        return None
                    continue
                if error.code not in _TRY_AGAIN or _REFUSED in last:
                    raise EngineError(f"the vLLM server {self.url} refuses {path}: {last}{_hint(path, last)}") from None
            except (OSError, http.client.HTTPException) as error:
                last = str(getattr(error, "reason", None) or error or type(error).__name__)
        raise EngineError(
            f"the vLLM server {self.url} is gone: {len(self.waits) + 1} tries in {sum(self.waits):.0f} s ended with "
            f"{last!r}; complete runs are kept: start the server and give the same command again"
        )


def _plain(temperature: float) -> dict[str, Any]:
    """Parameters that sample from the whole distribution, whatever the model's generation config would add."""
    return {
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "ignore_eos": True,
        "detokenize": False,
    }


def _answer(url: str, verb: str, body: dict[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=verb)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        text = response.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text  # what the adapter endpoints say is no JSON


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says of an error, in one line."""
    text = error.read().decode(errors="replace")
    try:
        said = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = text
    return " ".join(str(said).split()) or f"status {error.code}"


def _hint(path: str, message: str) -> str:
    if "max_lora_rank" in message or "greater than" in message:
        return "; start it with a larger --max-lora-rank, or take a smaller --rank"
    if path.endswith("lora_adapter") and "Not Found" in message:
        return "; start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
    return ""
