"""Where a run's samples come from: `TransformersSampler` (the trainer's own model) or `EngineSampler` (vLLM)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from capacity.forward.rollout import Rollout


@dataclass(frozen=True)
class Request:
    """A request asks for one sample of each prompt, from the model as it is now.

    Attributes:
        prompts: the token ids of the prompts.
        rng: the randomness of the samples.
        temperature: the temperature of the samples.
        longest: the largest number of tokens of a completion.
        base: True to sample the untrained model.
    """

    prompts: list[list[int]]
    rng: np.random.Generator
    temperature: float
    longest: int
    base: bool


class Sampler(Protocol):
    """Draws completions from the model that is trained, with the update that it has when it is asked.

    Attributes:
        engine_name: the engine that draws them, with its version, "vllm 0.32.0"; None for the trainer's own model.
    """

    engine_name: str | None

    def follow(self, prompts: Sequence[Sequence[int]], where: str) -> dict[str, Any]:
        """Makes sure that the next samples come from the update as it is now.

        Args:
            prompts: token ids of the prompts that will be sampled; some serve as a probe.
            where: the place in the run, "step 7", for messages.

        Returns:
            What the metrics of the step record of it; an empty dict where there is nothing to follow.

        Raises:
            TrainingError: the sampler holds another update.
        """

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        rng: np.random.Generator,
        *,
        temperature: float,
        max_new_tokens: int,
        base: bool = False,
    ) -> Rollout:
        """Draws one completion of each prompt.

        Args:
            prompts: token ids of the prompts.
            rng: all the randomness there is. How much of it is used depends on the number of prompts and on
                `max_new_tokens` only.
            temperature: 0 (greedy) or above.
            max_new_tokens: length of a completion, at most.
            base: draw from the untrained model.
        """

    def close(self) -> None:
        """Gives back what the sampler holds."""
