"""Evaluates many adapters in one pass of one engine: each row has its own adapter or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capacity.errors import EngineError
from capacity.models.ends import end_tokens
from capacity.sampling.evaluate import Evaluation, context_of, graded
from capacity.sampling.finite import check_logprobs
from capacity.sampling.prompts import check_room, folds_system, prompt_ids
from capacity.sampling.vllm.engine import Engine, Request
from capacity.spec.parts import EvaluationSpec
from capacity.tasks.task import Task

AT_ONCE = 16  # adapters in one pass; the engine keeps room for each
_ZERO = "zero"  # the engine's name of the adapter of zeros
_CHECKED = 4  # prompts that are scored to see whose rows are whose


@dataclass(frozen=True)
class Evaluations:
    """What several adapters of one base answered.

    Attributes:
        adapters: by the names that were given.
        base: without any adapter; None if that was not asked for.
        zero: with an adapter of zeros; None if there was none.
    """

    adapters: Mapping[str, Evaluation]
    base: Evaluation | None
    zero: Evaluation | None


def evaluate_several(
    engine: Engine,
    model: Any,
    tokenizer: Any,
    task: Task,
    spec: EvaluationSpec,
    adapters: Mapping[str, Path],
    *,
    base: bool = True,
    zero: Path | None = None,
    backwards: bool = False,
) -> Evaluations:
    """The evaluation of each adapter, and of the base and of an adapter of zeros if they are asked for.

    Sample j of item i has the same seed under all of them, so they are paired. The engine knows adapters by names of
    its own, so those that are given may be any text.

    Args:
        engine: an engine started for as many adapters, with that of zeros, or for `AT_ONCE` if they are more.
        model: transformers model of the base, which is asked for its context.
        tokenizer: the model's tokenizer.
        task: where items and grades come from.
        spec: the protocol.
        adapters: PEFT LoRA folders by name.
        base: also evaluate without any adapter, in the same batch as the first of them.
        zero: PEFT LoRA folder of zeros, which comes first; None for none.
        backwards: the rows are sent in the opposite order.

    Raises:
        EngineError: the engine gave rows of the base the output of an adapter.
    """
    items = [item for item in task.items(spec.split, spec.items) for _ in range(spec.samples_per_item)]
    prompts = [prompt_ids(tokenizer, item) for item in items]
    lengths = {item.id: len(ids) for item, ids in zip(items, prompts, strict=True)}
    check_room(context_of(model), lengths, spec.max_new_tokens)
    ends, folded = end_tokens(model, tokenizer), folds_system(tokenizer, items)
    seeds = [int(seed) for seed in np.random.default_rng(spec.seed).integers(2**31, size=len(prompts))]
    probe = [list(ids) for ids in dict.fromkeys(map(tuple, prompts))][:_CHECKED]
    alone = _scores(engine, probe, None)
    found: dict[str | None, Evaluation] = {}
    given = {f"adapter-{index}": name for index, name in enumerate(adapters)}
    folders = {own: adapters[name] for own, name in given.items()}
    if zero is not None:
        folders = {_ZERO: zero, **folders}
    names = list(folders)
    groups = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)] or [[]]
    with_base = groups[0]
    for group in reversed(groups) if backwards else groups:
        for name in group:
            engine.load(name, folders[name])
        check_base_rows(engine, probe, alone, {name: given[name] for name in group if name != _ZERO})
        rows: list[str | None] = [None, *group] if base and group is with_base else [*group]
        if backwards:
            rows.reverse()
        requests = [Request(ids, seed, adapter) for adapter in rows for ids, seed in zip(prompts, seeds, strict=True)]
        drawn = engine.generate(
            requests, temperature=spec.temperature, max_new_tokens=spec.max_new_tokens, ends=ends.ids
        )
        check_logprobs(completion.logprobs for completion in drawn)
        for index, adapter in enumerate(rows):
            mine = drawn[index * len(prompts) : (index + 1) * len(prompts)]
            ids = [completion.ids for completion in mine]
            found[adapter] = graded(task, items, ids, spec.samples_per_item, tokenizer, ends, folded=folded)
        for name in group:
            engine.unload(name)
    return Evaluations({name: found[own] for own, name in given.items()}, found.get(None), found.get(_ZERO))


def check_base_rows(
    engine: Engine, probe: Sequence[Sequence[int]], alone: Sequence[float], adapters: Mapping[str, str]
) -> None:
    """Checks that rows without an adapter stay the base's while adapters are loaded and in the same batch.

    Args:
        engine: an engine that has loaded `adapters`.
        probe: sequences to score.
        alone: scores of the probe before any adapter was loaded, from `_scores`.
        adapters: what people call the adapters, by the names that the engine knows. An adapter of zeros is not among
            them, because its rows are those of the base.

    Raises:
        EngineError: such rows are nearer to some adapter's rows than to the base's own.
    """
    rows: list[tuple[Sequence[int], str | None]] = [(ids, name) for name in (None, *adapters) for ids in probe]
    scored = engine.score(rows)
    by_name = {name: _flat(scored[i * len(probe) : (i + 1) * len(probe)]) for i, name in enumerate((None, *adapters))}
    mixed, own = by_name[None], np.array(alone)
    for name, called in adapters.items():
        if np.linalg.norm(mixed - by_name[name]) < np.linalg.norm(mixed - own):
            raise EngineError(
                f"vLLM {engine.version} gives rows without an adapter the output of adapter {called}: start it with "
                "--max-loras above the number of adapters that are loaded at once"
            )


def _scores(engine: Engine, probe: Sequence[Sequence[int]], adapter: str | None) -> Sequence[float]:
    found: list[float] = _flat(engine.score([(ids, adapter) for ids in probe])).tolist()
    return found


def _flat(scores: Sequence[Sequence[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([value for row in scores for value in row])
