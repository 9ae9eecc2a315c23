"""Completes prompts: each different prompt is read once, and finished sequences leave the batch.

Shapes: B sequences, P prompt tokens (padded left), T new tokens.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from capacity.forward.rollout import Rollout
from capacity.sampling.decoding.decoder import Decoder
from capacity.sampling.draw import draw
from capacity.sampling.finite import check_drawn

_WORTH_DROPPING = 0.75  # finished sequences are dropped when at most this share of the batch still grows


@torch.no_grad()
def complete(
    decoder: Decoder,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    *,
    temperature: float | Tensor,
    ends: Collection[int],
    pad: int,
    run: Tensor | None = None,
) -> Rollout:
    """Completes every prompt until a token of `ends` or for T tokens.

    Args:
        decoder: predicts the next tokens.
        prompt_ids: token ids of the prompts, (B, P), padded left. Equal neighbours are read once.
        prompt_mask: 1 where a prompt has a token, (B, P).
        uniforms: one number in [0, 1) a drawn token, (B, T), float64: the only randomness.
        temperature: 0 (greedy) or above; one for all, or one a row, (B,).
        ends: the tokens that end a completion.
        pad: the token that fills up after it.
        run: the number of each row's run among those of the decoder, (B,), ascending; all of one run if None.

    Returns:
        The rollout, with the sampler's measurements. Its T is the length of the longest completion.

    Raises:
        TrainingError: if the model's logits are not finite.
    """
    device, (rows, longest) = prompt_ids.device, uniforms.shape
    run = torch.zeros(rows, dtype=torch.long, device=device) if run is None else run.to(device)
    first = torch.ones(rows, dtype=torch.bool, device=device)
    first[1:] = ((prompt_ids[1:] != prompt_ids[:-1]) | (prompt_mask[1:] != prompt_mask[:-1])).any(1)
    first[1:] |= run[1:] != run[:-1]
    logits = decoder.start(prompt_ids[first], prompt_mask[first], run[first], first.cumsum(0) - 1, longest)
    uniforms = uniforms.to(device)
    end_ids = torch.tensor(sorted(ends), device=device)
    ids = torch.full((rows, longest), pad, device=device)
    mask = torch.zeros_like(ids)
    logprobs, plain, entropies = (torch.zeros(rows, longest, device=device) for _ in range(3))
    row = torch.arange(rows, device=device)  # of each sequence that is still in the batch
    grows = torch.ones(rows, dtype=torch.bool, device=device)
    width = longest
    for t in range(longest):
        drawn = draw(
            logits.float(), uniforms[row, t], temperature[row] if isinstance(temperature, Tensor) else temperature
        )
        # Finished sequences are written too, as padding: to choose among rows, the host would wait for a GPU each time.
        ids[row, t], mask[row, t] = torch.where(grows, drawn.tokens, pad), grows.long()
        for whole, new in ((logprobs, drawn.logprobs), (plain, drawn.plain_logprobs), (entropies, drawn.entropies)):
            whole[row, t] = torch.where(grows, new, 0.0)
        grows = grows & ~torch.isin(drawn.tokens, end_ids)
        count = int(grows.sum())
        if count == 0 or t + 1 == longest:
            width = t + 1
            break
        tokens = drawn.tokens
        if count <= _WORTH_DROPPING * len(row):
            kept = grows.nonzero().squeeze(1)
            decoder.keep(kept)
            row, tokens, grows = row[kept], tokens[kept], grows[kept]
        logits = decoder.step(tokens)
    check_drawn(plain[mask.bool()])
    cut = (t[:, :width] for t in (ids, mask, logprobs, plain, entropies))
    return Rollout(prompt_ids, prompt_mask, *cut)
