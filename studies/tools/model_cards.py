"""Measures the embedded models and writes their cards: `python studies/tools/model_cards.py` (docs/model-cards.md).

What a card says is measured here, on the test split, beside what the language that a model was trained on makes it
be: shares of the styles, one estimate in ten right, bits of a stepwise answer.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from capacity.forward.model import padded_predictions
from capacity.forward.rollout import Rollout, pad_left, pad_right
from capacity.models.ends import end_tokens
from capacity.models.loading import embedded_folder, load
from capacity.models.pretrain import RECIPES, Recipe
from capacity.plan.protocols import PROTOCOLS
from capacity.runs.files import write_atomically
from capacity.sampling.evaluate import Evaluation, evaluate
from capacity.spec.parts import EvaluationSpec, TaskSpec
from capacity.tasks import abacus_language as language
from capacity.tasks.abacus import AbacusTask
from capacity.tasks.catalog import open_task
from capacity.training.batches import encode_completions, encode_prompts
from capacity_analysis.statistics.estimate import accuracy_estimate

ROOT = Path(__file__).parents[2]
PROTOCOL = PROTOCOLS["abacus"]


def evaluated(alias: str, temperature: float) -> Evaluation:
    """The untrained model on the test items."""
    task = open_task(TaskSpec(name="abacus", demonstrations="none"))
    model, tokenizer = load(alias, "cpu")
    spec: EvaluationSpec = PROTOCOL.evaluation(task, temperature=temperature)
    return evaluate(model, tokenizer, task, spec)


def style_of(completion: str) -> str:
    if completion.startswith("#"):
        return "terse"
    return "stepwise" if "=" in completion else "wordy"


def percent(outcomes: list[int]) -> str:
    if not outcomes:
        return "never"
    return accuracy_estimate(np.array([outcomes], dtype=float)).percent()


@torch.no_grad()
def code_length(model: nn.Module, tokenizer: object, bits: int) -> tuple[float, float]:
    """Mean bits of a stepwise answer in the base's own words with fillers of `bits`, and the standard error."""
    rng = np.random.default_rng(0)
    task = AbacusTask("worked", bits, 0.0)
    items = task.items("test")
    texts = [task.demonstrations(item, 1, rng)[0] for item in items]
    completions = encode_completions(tokenizer, texts, end_tokens(model, tokenizer), items[0])
    ids, mask = pad_right(completions, 0)
    rollout = Rollout(*pad_left(encode_prompts(tokenizer, items), 0), ids, mask, torch.zeros(ids.shape))
    logprobs = padded_predictions(model, rollout).logprobs()
    each = -(logprobs * mask).sum(1).double() / np.log(2)
    return float(each.mean()), float(each.std() / len(each) ** 0.5)


def known_bits(recipe: Recipe, bits: int) -> float:
    """What a stepwise answer costs a model that has the language right: style, form, words, fillers."""
    style = -np.log2(recipe.shipped_mix[1])
    return float(style + language.FORM_BITS + language.entropy(language.SYNONYM_ODDS) + bits)


def card(alias: str) -> list[str]:
    recipe = RECIPES[alias]
    model, tokenizer = load(alias, "cpu")
    weights = embedded_folder(alias) / "model.safetensors"
    config = json.loads((embedded_folder(alias) / "config.json").read_text())
    sampled = {t: evaluated(alias, t) for t in PROTOCOL.temperatures}
    rows = [(style_of(o.completions[0]), o.correct[0]) for o in sampled[1.0].outcomes]
    known = dict(zip(language.STYLES, recipe.shipped_mix, strict=True))
    lines = [
        f"## `{alias}`",
        f"Qwen2 architecture, {config['num_hidden_layers']} layers, width {config['hidden_size']}, feed-forward "
        f"{config['intermediate_size']}, {config['num_attention_heads']} heads of 32; "
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {config['vocab_size']} tokens, context "
        f"{config['max_position_embeddings']}, fp32, {weights.stat().st_size / 1e6:.1f} MB. "
        f"SHA-256 of the weights: `{hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}…`.",
        "",
        f"Pre-training: {recipe.steps:,} steps of {recipe.batch} sequences, AdamW, rate {recipe.learning_rate:g} with "
        f"{recipe.warmup} steps of warm-up and a cosine. In the first {recipe.learning_part:.0%} of the steps, "
        f"{recipe.learning_mix[1]:.0%} of the answers are stepwise. The others have the shipped mix.",
        "",
        "| temperature | " + " | ".join(f"{t:g}" for t in sampled) + " |",
        "|---" * (len(sampled) + 1) + "|",
        "| accuracy % | " + " | ".join(percent([o.correct[0] for o in e.outcomes]) for e in sampled.values()) + " |",
        "",
        "| style at T = 1 | share | share in pre-training | of these correct |",
        "|---|---|---|---|",
    ]
    for style in language.STYLES:
        lines.append(
            f"| {style} | {percent([int(s == style) for s, _ in rows])} | {100 * known[style]:.0f} | "
            f"{percent([right for s, right in rows if s == style])} |"
        )
    lines += ["", "| style bits | bits of a stepwise answer | known | difference |", "|---|---|---|---|"]
    for bits in language.STYLE_BITS:
        measured, error = code_length(model, tokenizer, bits)
        expected = known_bits(recipe, bits)
        lines.append(f"| {bits} | {measured:.2f} ± {1.96 * error:.2f} | {expected:.2f} | {measured - expected:+.2f} |")
    return [*lines, ""]


def main() -> None:
    lines = [
        "# Model cards of the embedded models",
        "",
        "`make model-cards` writes this page. Intervals are 95 % intervals for fresh items and one seed.",
        "",
    ]
    for alias in RECIPES:
        if embedded_folder(alias).is_dir():
            print(alias, flush=True)
            lines += card(alias)
    write_atomically(ROOT / "docs" / "model-cards.md", "\n".join(lines))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
