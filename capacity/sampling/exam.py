"""An exam asks models the same items with the same random numbers, so that their scores differ as the models do."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from capacity.adapters.model import AdaptedModel
from capacity.forward.rollout import pad_left
from capacity.models.ends import end_tokens
from capacity.sampling.own_model import TransformersSampler
from capacity.sampling.prompts import prompt_ids
from capacity.tasks.rows import SPLITS
from capacity.tasks.task import Split, Task

_STREAM = 1  # runs have two numbers to their streams, so these are none of theirs


class Exam:
    """An exam has fixed items of one split, one completion of each, and fixed uniform numbers to draw it with.

    Args:
        task: what asks and grades.
        tokenizer: the tokenizer of the models.
        split: where the items come from.
        items: how many there are; the first ones of the split.
        temperature: the temperature of the draws.
        max_new_tokens: the largest number of tokens of a completion.
        seed: what the uniform numbers follow from, beside the split. They are not those of an evaluation of this seed.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: Any,
        split: Split,
        items: int,
        *,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ) -> None:
        self.task, self.tokenizer, self.temperature = task, tokenizer, temperature
        self.items = task.items(split, items)
        self._ids, self._mask = pad_left([prompt_ids(tokenizer, item) for item in self.items], tokenizer.pad_token_id)
        # A stream of its own: with the numbers of an evaluation, a choice by this exam would fit the evaluation's draw.
        rng = np.random.default_rng([SPLITS.index(split), seed, _STREAM])
        self._uniforms = torch.from_numpy(rng.random((len(self.items), max_new_tokens)))

    def __len__(self) -> int:
        return len(self.items)

    def hits(
        self, adapted: AdaptedModel, start: int = 0, stop: int | None = None, *, base: bool = False
    ) -> NDArray[np.bool_]:
        """Returns which of the items from `start` to before `stop` are answered correctly, shape (stop − start,).

        Args:
            adapted: the model that answers.
            start, stop: the items that are asked; all if they are not given.
            base: True for the answers of the untrained model.
        """
        asked = slice(start, len(self) if stop is None else stop)
        sampler = TransformersSampler(adapted, self.tokenizer)
        drawn: list[list[int]] = []
        parts = sampler.parts(
            self._ids[asked], self._mask[asked], self._uniforms[asked], temperature=self.temperature, base=base
        )
        for rollout in parts:
            drawn.extend(rollout.completions())
        texts = end_tokens(adapted.bare, self.tokenizer).texts(self.tokenizer, drawn)
        return np.array([self.task.grade(item, text) for item, text in zip(self.items[asked], texts, strict=True)])
