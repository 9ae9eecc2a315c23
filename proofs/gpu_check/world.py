"""The world of the check: models of random numbers, and a task that they solve half the time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from capacity.models.loading import DTYPES
from capacity.plan.model_shapes import ModelShape
from capacity.plan.protocols import GRPO
from capacity.spec.adapters import Adapter
from capacity.spec.methods import Method
from capacity.spec.parts import EvaluationSpec, TaskSpec, TrainingSpec
from capacity.spec.run import RunSpec
from capacity.tasks.task import Item, Split
from capacity.training.base import Bases

PAD, EOS = "<pad>", "<eos>"
_ITEMS: dict[Split, int] = {"train": 64, "validation": 4, "test": 8}
_LEADING = (3.0, 2.5, 2.0, 1.5)  # singular values that stand out, so that factors are well determined and quick


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run: its steps, and the tokens of each prompt and of each completion."""

    prompts: int
    samples: int
    prompt_tokens: int
    new_tokens: int
    steps: int = 2
    items: int = 4

    @property
    def rows(self) -> int:
        """Returns the number of sequences of a step."""
        return self.prompts * self.samples


@dataclass(frozen=True)
class Coin:
    """A task whose answers are right by the toss of a coin, which the text of a completion decides."""

    vocabulary: int
    prompt_tokens: int
    max_new_tokens: int

    name = "coin"
    has_demonstrations = True

    def items(self, split: Split, count: int | None = None) -> Sequence[Item]:
        """Returns items whose prompts are random words."""
        rng = np.random.default_rng(sorted(_ITEMS).index(split))
        found = [Item(f"{split}-{i}", self._words(rng, self.prompt_tokens), "") for i in range(_ITEMS[split])]
        return found[:count]

    def demonstrations(self, item: Item, count: int, rng: np.random.Generator) -> list[str]:  # noqa: ARG002
        """Returns random words, as many as a completion may have beside its end."""
        return [self._words(rng, self.max_new_tokens - 1) for _ in range(count)]

    def grade(self, item: Item, completion: str) -> bool:
        """Tells which side the coin shows."""
        return hashlib.sha256(f"{item.id} {completion}".encode()).digest()[0] % 2 == 0

    def _words(self, rng: np.random.Generator, count: int) -> str:
        return " ".join(f"w{token}" for token in rng.integers(2, self.vocabulary, count))


class CoinBases(Bases):
    """What has been loaded, with `Coin` for a task."""

    coin: Coin

    def task(self, spec: TaskSpec) -> Coin:  # noqa: ARG002
        """Returns the task, whatever the spec names."""
        return self.coin


def bases(device: str, cache: Path, shape: ModelShape, sizes: Sizes) -> CoinBases:
    """Returns a place for models, with the task of these sizes."""
    found = CoinBases(device, cache)
    found.coin = Coin(shape.vocabulary, sizes.prompt_tokens, sizes.new_tokens)
    return found


def run_spec(model: str, method: Method, adapter: Adapter, sizes: Sizes, seed: int = 0, rate: float = 1e-3) -> RunSpec:
    """Returns the spec of a run of the check."""
    return RunSpec(
        model=model,
        task=TaskSpec(name="coin", demonstrations="random" if method == "sft" else "none"),
        method=method,
        adapter=adapter.seeded(seed),
        storage_dtype="fp32",
        training=TrainingSpec(
            steps=sizes.steps,
            prompts_per_step=sizes.prompts,
            samples_per_prompt=sizes.samples,
            max_new_tokens=sizes.new_tokens,
            learning_rate=rate,
            warmup_steps=0,
        ),
        grpo=GRPO if method == "grpo" else None,
        evaluation=EvaluationSpec(split="test", items=sizes.items, max_new_tokens=sizes.new_tokens),
        seed=seed,
    )


def write_model(shape: ModelShape, folder: Path, dtype: str, device: str) -> str:
    """Writes a model of random numbers with its tokenizer, and returns the folder's name."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.device(device):
        model = Qwen2ForCausalLM(config).to(DTYPES[dtype])
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            _stand_out(module.weight)
    model.save_pretrained(folder)
    _tokenizer(shape.vocabulary).save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def _stand_out(weight: Tensor) -> None:
    """Gives a random weight some singular values above all others."""
    d, k = weight.shape
    largest = float(weight.float().std()) * (d**0.5 + k**0.5)
    left = torch.randn(d, len(_LEADING), device=weight.device) / d**0.5
    right = torch.randn(len(_LEADING), k, device=weight.device) / k**0.5
    weight += ((left * largest * torch.tensor(_LEADING, device=weight.device)) @ right).to(weight.dtype)


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Returns a tokenizer with a word for each token of a model."""
    words = {PAD: 0, EOS: 1, **{f"w{i}": i for i in range(2, vocabulary)}}
    tokenizer = Tokenizer(WordLevel(words, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, clean_up_tokenization_spaces=False
    )
