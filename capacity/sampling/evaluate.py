"""Evaluation under a fixed protocol: every run answers the same items, with uniforms that its protocol decides."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from capacity.adapters.model import AdaptedModel
from capacity.forward.rollout import Rollout, pad_left
from capacity.models.ends import EndTokens, end_tokens
from capacity.sampling.own_model import TransformersSampler, unadapted
from capacity.sampling.prompts import check_room, folds_system, prompt_ids
from capacity.spec.frozen import canonical_json
from capacity.spec.parts import EvaluationSpec
from capacity.spec.result import Outcome
from capacity.tasks.task import GradedTwice, Item, Task

if TYPE_CHECKING:
    from capacity.sampling.sampler import Sampler


@dataclass(frozen=True)
class Evaluation:
    """The graded completions of one evaluation.

    Attributes:
        outcomes: the answers to each item; for tasks that are graded twice `correct` is one of the two grades.
        items_digest: SHA-256 of the items, names and contents, in their order; 16 hex digits.
        n_items: number of items.
        n_correct: number of correct samples.
        samples_per_item: number of samples of each item.
        n_strict, n_lenient: correct samples by the two ways of grading; None for tasks that are graded in one way.
        n_unfinished: samples that were cut off at the protocol's number of tokens.
        end_tokens: ids of the tokens that end a completion.
        system_folded: whether the system message stood in the user's turn, because the chat template takes none.
    """

    outcomes: tuple[Outcome, ...]
    items_digest: str
    n_items: int
    n_correct: int
    samples_per_item: int
    n_strict: int | None = None
    n_lenient: int | None = None
    n_unfinished: int = 0
    end_tokens: tuple[int, ...] = ()
    system_folded: bool = False

    @property
    def accuracy(self) -> float:
        """The share of correct samples: pass@1."""
        return self.n_correct / (self.n_items * self.samples_per_item)

    @property
    def pass_at_k(self) -> float:
        """The share of items that at least one of the samples solves: pass@k for k = `samples_per_item`."""
        return sum(any(outcome.correct) for outcome in self.outcomes) / self.n_items


def evaluate(
    model: nn.Module | AdaptedModel,
    tokenizer: Any,
    task: Task,
    spec: EvaluationSpec,
    on_items: Callable[[int, int], None] | None = None,
    on_rollout: Callable[[Rollout], None] | None = None,
    sampler: "Sampler | None" = None,
    *,
    base: bool = False,
    run_seed: int | None = None,
) -> Evaluation:
    """Samples and grades `samples_per_item` completions of each item.

    The uniforms of item i, sample j depend on i, j and `draw_seed` only. So two runs of one seed differ in an item only
    where their models differ.

    Args:
        model: the model to sample from, with or without its update.
        tokenizer: the model's tokenizer.
        task: where items and grades come from.
        spec: the protocol.
        on_items: called after each batch with how many completions are done, and how many there are.
        on_rollout: called with what was sampled.
        sampler: an engine that samples instead of `model`, in one pass. Each completion then has a seed of its own
            that depends on `draw_seed`, i and j; `model` is asked for its context only.
        base: evaluate the untrained model.
        run_seed: the seed of the run that is evaluated, for protocols with draws of each seed.

    Raises:
        DataError: the split has fewer items than asked for.
        SpecError: a prompt leaves no room in the model's context.
    """
    items = [item for item in task.items(spec.split, spec.items) for _ in range(spec.samples_per_item)]
    prompts = [prompt_ids(tokenizer, item) for item in items]
    adapted = model if isinstance(model, AdaptedModel) else unadapted(model)
    check_room(context_of(adapted.bare), _lengths(items, prompts), spec.max_new_tokens)
    ends, folded = end_tokens(adapted.bare, tokenizer), folds_system(tokenizer, items)
    if sampler is not None:
        sampler.follow(prompts, "evaluation")
        rng = np.random.default_rng(draw_seed(spec, run_seed))
        new = spec.max_new_tokens
        rollout = sampler.sample(prompts, rng, temperature=spec.temperature, max_new_tokens=new)
        if on_rollout is not None:
            on_rollout(rollout)
        return graded(task, items, rollout.completions(), spec.samples_per_item, tokenizer, ends, folded=folded)
    uniforms = evaluation_uniforms(spec, len(items), run_seed)
    ids, mask = pad_left(prompts, tokenizer.pad_token_id)
    own = TransformersSampler(adapted, tokenizer)
    drawn: list[list[int]] = []
    for rollout in own.parts(ids, mask, uniforms, temperature=spec.temperature, base=base):
        drawn.extend(rollout.completions())
        if on_rollout is not None:
            on_rollout(rollout)
        if on_items is not None:
            on_items(len(drawn), len(items))
    return graded(task, items, drawn, spec.samples_per_item, tokenizer, ends, folded=folded)


def evaluate_at(
    model: nn.Module, tokenizer: Any, task: Task, specs: Sequence[tuple[EvaluationSpec, int | None]]
) -> list[Evaluation]:
    """Evaluates the untrained model under protocols that differ in temperature and draws alone.

    Each prompt is read once for all of them. The answers are those of `evaluate` with each protocol by itself.

    Args:
        model: the bare model.
        tokenizer: the model's tokenizer.
        task: where items and grades come from.
        specs: each protocol with the seed of its run.

    Raises:
        DataError, SpecError: as `evaluate`.
    """
    first = specs[0][0]
    items = [item for item in task.items(first.split, first.items) for _ in range(first.samples_per_item)]
    prompts = [prompt_ids(tokenizer, item) for item in items]
    adapted = unadapted(model)
    check_room(context_of(model), _lengths(items, prompts), first.max_new_tokens)
    ends, folded = end_tokens(model, tokenizer), folds_system(tokenizer, items)
    uniforms = torch.stack([evaluation_uniforms(spec, len(items), seed) for spec, seed in specs], dim=1).flatten(0, 1)
    ids, mask = pad_left(prompts, tokenizer.pad_token_id)
    each = len(specs)
    temperatures = torch.tensor([spec.temperature for spec, _ in specs]).repeat(len(items))
    drawn: list[list[int]] = []
    own = TransformersSampler(adapted, tokenizer)
    wide_ids, wide_mask = ids.repeat_interleave(each, 0), mask.repeat_interleave(each, 0)
    for rollout in own.parts(wide_ids, wide_mask, uniforms, temperature=temperatures):
        drawn.extend(rollout.completions())
    return [
        graded(task, items, drawn[i::each], first.samples_per_item, tokenizer, ends, folded=folded) for i in range(each)
    ]


def draw_seed(spec: EvaluationSpec, run_seed: int | None) -> int:
    """The seed of a run's evaluation draws.

    Run 3 of protocol 0 has the draws of seed 3. So `capacity evaluate --seed 3` repeats its evaluation.

    Args:
        spec: the protocol.
        run_seed: the seed of the run; it matters for protocols with draws of each seed only.

    Raises:
        ValueError: the protocol has draws of each seed, and no seed is given.
    """
    if spec.draws == "common":
        return spec.seed
    if run_seed is None:
        raise ValueError("the draws of this protocol follow from the seed of the run, and none is given")
    return spec.seed + run_seed


def evaluation_uniforms(spec: EvaluationSpec, rows: int, run_seed: int | None = None) -> torch.Tensor:
    """One number in [0, 1) for each token of `rows` completions, (rows, T), float64; they follow from `draw_seed`."""
    generator = torch.Generator().manual_seed(draw_seed(spec, run_seed))
    return torch.rand(rows, spec.max_new_tokens, generator=generator, dtype=torch.float64)


def _lengths(items: Sequence[Item], prompts: Sequence[Sequence[int]]) -> dict[str, int]:
    """The tokens of each prompt, by the name of its item."""
    return {item.id: len(ids) for item, ids in zip(items, prompts, strict=True)}


def graded(
    task: Task,
    items: Sequence[Item],
    drawn: Sequence[Sequence[int]],
    k: int,
    tokenizer: Any,
    ends: EndTokens,
    *,
    folded: bool = False,
) -> Evaluation:
    """The evaluation of given completions.

    Args:
        task: what grades them.
        items: the item of each completion; the `k` of one item stand in a row.
        drawn: the token ids of the completions.
        k: how many completions each item has.
        tokenizer: the tokenizer of the model that wrote them.
        ends: the tokens that end a completion.
        folded: whether the system message stood in the user's turn.
    """
    texts = ends.texts(tokenizer, drawn)
    pairs = list(zip(items, texts, strict=True))
    grades = {"correct": [int(task.grade(item, text)) for item, text in pairs]}
    if isinstance(task, GradedTwice):
        grades["strict"] = [int(task.grade_strict(item, text)) for item, text in pairs]
        grades["lenient"] = [int(task.grade_lenient(item, text)) for item, text in pairs]
    outcomes = tuple(
        Outcome.model_validate(
            {
                "item": items[i].id,
                **{name: tuple(g[i : i + k]) for name, g in grades.items()},
                "completions": tuple(texts[i : i + k]),
            }
        )
        for i in range(0, len(items), k)
    )
    right = {name: sum(grade) for name, grade in grades.items()}
    return Evaluation(
        outcomes=outcomes,
        items_digest=_digest(items[::k]),
        n_items=len(outcomes),
        n_correct=right["correct"],
        samples_per_item=k,
        n_strict=right.get("strict"),
        n_lenient=right.get("lenient"),
        n_unfinished=ends.unended(drawn),
        end_tokens=ends.ids,
        system_folded=folded,
    )


def _digest(items: Sequence[Item]) -> str:
    text = canonical_json([asdict(item) for item in items])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def context_of(model: nn.Module) -> int | None:
    """The tokens of the longest sequence that a model takes; None if its config does not say."""
    context: int | None = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return context
