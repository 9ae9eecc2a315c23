"""A vLLM engine in this process, on the device that the trainer uses too."""

import os
import random
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capacity.errors import EngineError
from capacity.plan.engine_memory import engine_rank, slots
from capacity.sampling.vllm.engine import DTYPES, Completion, Request, installed_version

_HEAD_SIZES = "32, 64, 80, 96, 112, 128, 160, 192, 224 or 256"


class LocalEngine:
    """vLLM's `LLM` without a process of its own. There can be one at a time: vLLM keeps state of the process.

    Args:
        folder: folder of the model.
        dtype: dtype of the weights: "fp32", "bf16" or "fp16".
        context: tokens of the longest prompt and completion together.
        rank: largest rank of the adapters; None for an engine that takes none.
        adapters: how many adapters are loaded at once.
        cache_bytes: memory for keys and values.
        sleeps: on a GPU, give weights and cache back between rollouts.

    Raises:
        EngineError: vLLM is missing or not supported, or it refuses to start; the message says why.
        SpecError: `rank` is above vLLM's largest.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str,
        context: int,
        rank: int | None,
        adapters: int,
        cache_bytes: int,
        sleeps: bool = False,
    ) -> None:
        lora = {} if rank is None else {"max_lora_rank": engine_rank(rank), "max_loras": slots(adapters)}
        self.version = installed_version()
        # Read when vLLM is imported. Its core runs in this process, so that weights can be handed over as tensors.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        import torch
        from vllm import LLM

        self._ids: dict[str, int] = {}
        self._folders: dict[str, Path] = {}
        self._loaded = 0
        self._sleeps, self._asleep = sleeps, False
        state, seeds = random.getstate(), np.random.get_state()  # vLLM seeds them, and torch's
        try:
            with torch.random.fork_rng():
                self._llm: Any = LLM(
                    str(folder),
                    dtype=DTYPES[dtype],
                    max_model_len=context,
                    enforce_eager=True,
                    kv_cache_memory_bytes=cache_bytes,
                    enable_lora=rank is not None,
                    enable_sleep_mode=sleeps,
                    skip_tokenizer_init=True,
                    logprobs_mode="processed_logprobs",  # after the temperature: of what is drawn from
                    **lora,
                )
        except Exception as error:  # anything from a wrong config to the device's memory
            raise EngineError(f"vLLM {self.version} does not start on {folder}: {_reason(error)}") from error
        finally:
            random.setstate(state)
            np.random.set_state(seeds)

    def load(self, name: str, folder: Path) -> None:
        """Makes the PEFT LoRA folder `folder` known as `name`."""
        self._wake()
        self._loaded += 1
        self._ids[name], self._folders[name] = self._loaded, folder
        try:
            self._llm.llm_engine.add_lora(self._lora(name))
        except Exception as error:
            del self._ids[name], self._folders[name]
            raise EngineError(f"vLLM refuses the adapter {folder}: {_line(error)}") from error

    def unload(self, name: str) -> None:
        """Makes the engine forget an adapter."""
        self._llm.llm_engine.remove_lora(self._ids.pop(name))
        del self._folders[name]

    def generate(
        self, requests: Sequence[Request], *, temperature: float, max_new_tokens: int, ends: Collection[int]
    ) -> list[Completion]:
        """Draws one completion a request, in order."""
        from vllm import SamplingParams

        common: dict[str, Any] = {"temperature": temperature, "max_tokens": max_new_tokens, "logprobs": 0}
        # The given tokens end a completion, and nothing else, whatever the model's generation config says.
        common |= {"ignore_eos": True, "stop_token_ids": sorted(ends), "detokenize": False}
        outputs = self._run(
            [r.prompt for r in requests],
            [SamplingParams(seed=r.seed, **common) for r in requests],
            [r.adapter for r in requests],
        )
        found = []
        for output in outputs:
            drawn = output.outputs[0]
            ids = list(drawn.token_ids)
            logprobs = [entry[token].logprob for entry, token in zip(drawn.logprobs, ids, strict=True)]
            found.append(Completion(ids, logprobs))
        return found

    def score(self, sequences: Sequence[tuple[Sequence[int], str | None]]) -> list[list[float]]:
        """The log-probabilities of all tokens but the first of each sequence under an adapter, at temperature 1."""
        from vllm import SamplingParams

        parameters = SamplingParams(temperature=1.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        outputs = self._run([ids for ids, _ in sequences], [parameters] * len(sequences), [a for _, a in sequences])
        return [
            [entry[token].logprob for entry, token in zip(output.prompt_logprobs[1:], ids[1:], strict=True)]
            for output, (ids, _) in zip(outputs, sequences, strict=True)
        ]

    def push(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Replaces the weights. What the prefix cache holds belongs to the old ones, so it is emptied."""
        self._wake()
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self._llm.reset_prefix_cache()

    def rest(self) -> None:
        """Gives memory back while the trainer works, if the engine was started for it."""
        if self._sleeps and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True

    def close(self) -> None:
        """Ends the engine."""
        self._llm.llm_engine.engine_core.shutdown()

    def _run(
        self, prompts: Sequence[Sequence[int]], parameters: list[Any], adapters: Sequence[str | None]
    ) -> list[Any]:
        self._wake()
        given = [{"prompt_token_ids": list(ids)} for ids in prompts]
        loras = [None if name is None else self._lora(name) for name in adapters]
        found: list[Any] = self._llm.generate(
            given, parameters, lora_request=loras if self._ids else None, use_tqdm=False
        )
        return found

    def _lora(self, name: str) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(name, self._ids[name], str(self._folders[name]))

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False


def _line(error: BaseException) -> str:
    """The last line of an error that is not empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _reason(error: BaseException) -> str:
    """Says why an engine did not start, with the way out."""
    text = " ".join(str(error).split())
    if "head_size" in text or "head size" in text.lower():
        return f"it has no attention for the model's head size, only for {_HEAD_SIZES}: use --rollouts transformers"
    if "memory" in text.lower() or "KV cache" in text:
        return f"{_line(error)}: see capacity plan --rollouts vllm, free memory, or lower max_new_tokens"
    return f"{_line(error)}: use --rollouts transformers"
