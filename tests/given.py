"""Sequences that are given, and how near two computations of them are, for tests of the forward pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from capacity.forward.predictions import Predictions
from capacity.forward.rollout import Rollout, pad_left, pad_right

VOCABULARY = 61  # of the tiny models
Sequences = tuple[list[list[int]], list[list[int]]]  # prompts and completions, a row each

_TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12)  # 0, the padding token, among them


@st.composite
def sequences(draw: st.DrawFn, least: int = 1) -> Sequences:
    """Prompts in groups of unequal size, all different or all equal, and completions of `least` to 12 tokens.

    Some completions occur in several rows.
    """
    kind = draw(st.sampled_from(["groups", "different", "equal"]))
    if kind == "groups":
        prompts = [p for n in draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)) for p in [draw(_TOKENS)] * n]
    elif kind == "different":
        prompts = draw(st.lists(_TOKENS, min_size=1, max_size=6, unique_by=tuple))
    else:
        prompts = [draw(_TOKENS)] * draw(st.integers(1, 6))
    completion = st.lists(st.integers(0, VOCABULARY - 1), min_size=least, max_size=12)
    several = st.sampled_from(draw(st.lists(completion, min_size=1, max_size=2)))
    return prompts, [draw(st.one_of(completion, several)) for _ in prompts]


def given_rollout(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Rollout:
    """A rollout of these token ids, a row each."""
    ids, mask = pad_right(completions, 0)
    return Rollout(*pad_left(prompts, 0), ids, mask, torch.zeros(ids.shape))


def ragged(repeats: Sequence[int], longest: int = 12, seed: int = 0) -> Sequences:
    """Random prompts, each repeated so many times in a row, with a completion a row; lengths are random too."""
    generator = torch.Generator().manual_seed(seed)

    def words() -> list[int]:
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        found: list[int] = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        return found

    prompts = [prompt for count in repeats for prompt in [words()] * count]
    return prompts, [words() for _ in prompts]


def gradients(predictions: Predictions, parameters: Mapping[str, Any], temperature: float = 1.0) -> dict[str, Tensor]:
    """The gradient, by name, of a sum of all log-probabilities in which each has a weight of its own.

    It is zero where a parameter plays no part.
    """
    logprobs = predictions.logprobs(temperature)
    weights = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(7))
    found = torch.autograd.grad((logprobs * weights).sum(), list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(parameters.items(), found, strict=True)
    }


def assert_near(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], relative: float = 1e-5) -> None:
    """Compares tensors by name, each relative to its own size.

    Tensors that are zero but for rounding, such as the gradient of a key's bias, are held against the largest one.
    """
    assert found.keys() == expected.keys()
    expected = {name: tensor.detach() for name, tensor in expected.items()}
    largest = max(float(torch.linalg.vector_norm(t)) for t in expected.values())
    assert largest > 1e-3
    for name, tensor in expected.items():
        assert bool(found[name].isfinite().all()), name
        size = max(float(torch.linalg.vector_norm(tensor)), 1e-3 * largest)
        distance = float(torch.linalg.vector_norm(found[name].detach() - tensor)) / size
        assert distance <= relative, f"{name} differs by {distance:.2g} of its size"


def assert_same_predictions(found: Predictions, expected: Predictions, relative: float = 1e-5) -> None:
    """Compares log-probabilities at two temperatures, the entropy and the code length."""
    for temperature in (1.0, 0.7):
        pair = (p.logprobs(temperature).detach() for p in (found, expected))
        assert_near(*({"logprobs": logprobs} for logprobs in pair), relative=relative)
    for a, b in (
        (found.mean_entropy(), expected.mean_entropy()),
        (found.code_length_bits(), expected.code_length_bits()),
    ):
        assert abs(a - b) <= relative * b
    assert (found.tokens, found.shape) == (expected.tokens, expected.shape)
