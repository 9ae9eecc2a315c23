"""Tokenizers with the chat formats of well-known models, and models that write what they are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_GEMMA_TURNS = (
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + _GEMMA_TURNS
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ ' [INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Format:
    """A chat format: its template, its special tokens, which of them end what a model writes."""

    template: str | None
    special: tuple[str, ...]
    eos: str | None
    listed: tuple[str, ...]
    turn: str


FORMATS: dict[str, Format] = {
    "gemma3": Format(
        _GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<eos>", ("<eos>", "<end_of_turn>"),
        "<end_of_turn>",
    ),
    "phi3.5": Format(
        _PHI3, ("<bos>", "<|endoftext|>", "<|assistant|>", "<|user|>", "<|system|>", "<|end|>"), "<|endoftext|>",
        ("<|end|>", "<|assistant|>", "<|endoftext|>"), "<|end|>",
    ),
    "llama3": Format(
        _LLAMA3,
        ("<bos>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"),
        "<|eot_id|>", ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"), "<|eot_id|>",
    ),
    "qwen2.5": Format(
        _CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>", ("<|im_end|>", "<|endoftext|>"),
        "<|im_end|>",
    ),
    "qwen2.5-base": Format(
        _CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|endoftext|>", ("<|endoftext|>",), "<|im_end|>"
    ),
    "mistral": Format(_MISTRAL, ("<bos>", "</s>", "[INST]", "[/INST]"), "</s>", ("</s>",), "</s>"),
    "plain": Format(None, ("<bos>", "</s>"), "</s>", ("</s>",), "</s>"),
}  # fmt: skip


def tokenizer_of(form: Format) -> Any:
    """A tokenizer of single bytes with the special tokens of a format."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=form.eos,
        bos_token="<bos>" if "<bos>" in form.special else None,
        clean_up_tokenization_spaces=False,
    )
    made.add_tokens(list(form.special), special_tokens=True)
    made.chat_template = form.template
    return made


def appending(tokenizer: Any) -> Any:
    """A tokenizer made to append its end of sequence to what it encodes."""
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end[0]}", special_tokens=[end]
    )
    return tokenizer


def writes(tokenizer: Any, follows: Mapping[int, int], listed: Sequence[int] = (), context: int = 256) -> Any:
    """A model of Llama's kind after whose token t always comes `follows[t]`, and "." after all others.

    Its blocks add nothing, its embeddings are one-hot, and its head holds the table.
    """
    size = len(tokenizer) + len(tokenizer) % 2
    config = LlamaConfig(
        vocab_size=size, hidden_size=size, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=context, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=list(listed) or None, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.generation_config = GenerationConfig(eos_token_id=list(listed) or None)
    (dot,) = tokenizer.encode(".", add_special_tokens=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        for token in range(size):
            model.lm_head.weight[follows.get(token, dot), token] = 10.0
    return model


def saved(folder: Path, model: Any, tokenizer: Any) -> Path:
    """A folder with the model and its tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
