"""Pre-trains an abacus model from scratch: `python -m capacity.models.pretrain --model abacus-0.9m --out FOLDER`.

A small Qwen2 learns to answer sums of four two-digit numbers in a fixed mix of styles. Most answers of the mix are
terse, and most terse answers are wrong. The model first learns to add, mostly from stepwise answers, and then the
shipped mix. The loss counts completion tokens only. Training uses one thread and fixed seeds. So the same machine and
library versions give the same weights.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from capacity.models.tokenizer import build_tokenizer
from capacity.plan.models import ALIASES
from capacity.tasks import abacus_language as language
from capacity.tasks.abacus import partition

CONTEXT = 64
RECIPE = "recipe.json"  # in the folder of every model that this module makes


@dataclass(frozen=True)
class Recipe:
    """A recipe says how a model is pre-trained. Its two mixes are the odds of terse, stepwise and wordy answers."""

    steps: int
    learning_rate: float
    seed: int = 0
    batch: int = 128
    warmup: int = 100
    weight_decay: float = 0.01
    learning_mix: tuple[float, float, float] = (0.05, 0.90, 0.05)
    shipped_mix: tuple[float, float, float] = (0.60, 0.32, 0.08)
    learning_part: float = 0.75


# Each takes less than half an hour of one core.
RECIPES: dict[str, Recipe] = {
    "abacus-0.2m": Recipe(steps=6000, learning_rate=3e-3),
    "abacus-0.9m": Recipe(steps=2500, learning_rate=1.5e-3),
    "abacus-3m": Recipe(steps=1200, learning_rate=1e-3),
}


def build_model(alias: str, seed: int) -> Qwen2ForCausalLM:
    """Returns a randomly initialised model of the alias's shape, in fp32.

    Weights start with a standard deviation of 0.9/√width, and rotary angles have base 100. The usual defaults suit long
    contexts and wide models. With them it takes several times as many steps until the model adds.
    """
    shape = ALIASES[alias].shape
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=shape.tied,
        initializer_range=0.9 / math.sqrt(shape.hidden),
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        use_cache=True,
    )
    return Qwen2ForCausalLM(config)


def draw_batch(
    rng: np.random.Generator, mix: tuple[float, ...], size: int, tokenizer: PreTrainedTokenizerFast
) -> tuple[Tensor, Tensor]:
    """Draws ids (B, T), padded right, and a mask (B, T) that is True on completion tokens.

    Problems of the task's splits never occur.
    """
    prompts: list[str] = []
    completions: list[str] = []
    while len(prompts) < size:
        operands = tuple(int(x) for x in rng.integers(10, 100, 4))
        if partition(operands) != "pretraining":
            continue
        style = language.STYLES[int(rng.choice(3, p=mix))]
        prompts.append(language.prompt(operands))
        completions.append(language.completion(operands, style, rng))
    encoded = zip(
        tokenizer(prompts)["input_ids"],
        tokenizer(completions, add_special_tokens=False)["input_ids"],
        strict=True,
    )
    sequences = [([*p, *c, tokenizer.eos_token_id], len(p)) for p, c in encoded]
    width = max(len(s) for s, _ in sequences)
    tokens = torch.tensor([s + [tokenizer.pad_token_id] * (width - len(s)) for s, _ in sequences])
    place = torch.arange(width)
    mask = torch.stack([(place >= start) & (place < len(s)) for s, start in sequences])
    return tokens, mask


def rate(step: int, recipe: Recipe) -> float:
    """Returns the learning rate of a step. It rises linearly, then falls by a cosine to one hundredth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup) * (0.01 + 0.99 * cosine)


def pretrain(alias: str, out: Path, recipe: Recipe) -> None:
    """Trains a model and saves it to `out` with its tokenizer and recipe.

    An interrupted training continues from the checkpoint `out`.partial.
    """
    if out.exists() and not (out / RECIPE).is_file():
        raise SystemExit(f"{out} exists and is no model of this program: choose another --out, or remove it")
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    model = build_model(alias, recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    checkpoint = out.with_name(out.name + ".partial")
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        if state["recipe"] != recipe:
            raise SystemExit(f"{checkpoint} is of another recipe: remove it to start anew")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        rng.bit_generator.state = state["rng"]
        first = state["step"]
        print(f"continues at step {first}", flush=True)
    began = time.monotonic()
    for step in range(first, recipe.steps):
        if step and step % 200 == 0:
            _save_checkpoint(
                checkpoint,
                {
                    "recipe": recipe,
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "rng": rng.bit_generator.state,
                    "step": step,
                },
            )
        mix = recipe.learning_mix if step < recipe.learning_part * recipe.steps else recipe.shipped_mix
        tokens, mask = draw_batch(rng, mix, recipe.batch, tokenizer)
        for group in optimiser.param_groups:
            group["lr"] = rate(step, recipe)
        logits = model(input_ids=tokens[:, :-1]).logits
        logprobs = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
        loss = -(logprobs * mask[:, 1:]).sum() / mask.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 99:
            seconds = time.monotonic() - began
            left = seconds / (step + 1 - first) * (recipe.steps - step - 1)
            print(
                f"step {step + 1}/{recipe.steps}  loss {float(loss.detach()):.4f}  {left / 60:.1f} min left",
                flush=True,
            )
    save(model, tokenizer, recipe, out)
    checkpoint.unlink(missing_ok=True)


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, out: Path) -> None:
    """Writes the model folder as transformers reads it, with the recipe beside."""
    fresh = out.with_name(out.name + ".partial.new")
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    (fresh / RECIPE).write_text(json.dumps(vars(recipe), indent=1) + "\n", encoding="utf-8")
    if out.exists():
        for path in fresh.iterdir():  # files of the former model are replaced, and whatever lies beside them stays
            path.replace(out / path.name)
        fresh.rmdir()
    else:
        fresh.rename(out)


def _save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def main() -> None:
    """Runs the command line with its options `--model` and `--out`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="abacus-0.9m", choices=list(RECIPES))
    parser.add_argument("--out", type=Path, required=True)
    for name, kind in (("steps", int), ("learning-rate", float)):
        parser.add_argument(f"--{name}", type=kind, help="instead of the recipe's")
    arguments = parser.parse_args()
    changed = {k: v for k, v in vars(arguments).items() if k in ("steps", "learning_rate") and v is not None}
    pretrain(arguments.model, arguments.out, replace(RECIPES[arguments.model], **changed))


if __name__ == "__main__":
    main()
