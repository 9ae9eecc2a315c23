"""The lines for vLLM in the README of an exported folder, run by vLLM as they stand there."""

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import capacity
from capacity.adapters.attach import attach
from capacity.adapters.files import artifact
from capacity.models.loading import load
from capacity.spec.adapters import TinyLora

MODEL = "abacus-0.2m"
TEXT = "51+67+66+12="


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder with an update that changes the answer to the prompt."""
    adapted = attach(load(MODEL, "cpu")[0], TinyLora(u=4, groups=7, rank=8, projection_seed=0), None)
    base = artifact.base_fingerprint(load(MODEL, "cpu")[0])
    adapted.set_vector(0.3 * torch.randn(28, generator=torch.Generator().manual_seed(0)))
    payload = artifact.store(adapted, "fp32")
    path = tmp_path / "update.safetensors"
    path.write_bytes(artifact.pack(adapted, payload, model=MODEL, base=base, dtype="fp32"))
    return capacity.export(path, "peft", out=tmp_path / "lora").folder


def test_the_lines_for_vllm_give_the_answers_of_the_update(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    page = (exported / "README.md").read_text()
    (lines,) = re.findall(r"## vLLM\n\n```python\n(.*?)```", page, re.DOTALL)
    load_it, generate = lines.strip().rsplit("\n", 1)
    generate = re.sub(r'generate\(\["1\+2="\], ', "generate([TEXT], sampling_params=greedy, ", generate)
    assert generate != lines
    scope: dict[str, Any] = {"TEXT": TEXT}
    with contextlib.chdir(exported):
        exec(load_it, scope)
        from vllm import SamplingParams

        scope["greedy"] = SamplingParams(temperature=0.0, max_tokens=24)
        (answer,) = eval(generate, scope)
        (plain,) = scope["llm"].generate([TEXT], sampling_params=scope["greedy"])
        scope["llm"].llm_engine.engine_core.shutdown()
    found = answer.outputs[0].token_ids
    opened = capacity.load(exported.parent / "update.safetensors", device="cpu")
    ids = torch.tensor([opened.tokenizer.encode(TEXT)])
    with torch.no_grad():
        wanted = opened.model.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1] :].tolist()
    assert list(found) == wanted
    assert list(plain.outputs[0].token_ids) != wanted
