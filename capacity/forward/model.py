"""One forward pass of a model over the sequences of a step, packed where its attention allows it, else padded."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from capacity.forward.attention import NAME, Sight, packed_attention, window_as_mask
from capacity.forward.packing import pack
from capacity.forward.predictions import Predictions, rows_of
from capacity.forward.rollout import Rollout, positions

AttentionInterface.register(NAME, packed_attention)  # transformers' own way to add an attention
AttentionMaskInterface.register(NAME, window_as_mask)

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}  # of logits, relative to the largest


def _alone(tokens: list[int]) -> AbstractContextManager[object]:  # noqa: ARG001
    """The context of a pass in which all tokens have the model's own update."""
    return nullcontext()


class Forward:
    """Predicts completion tokens with a model, and finds out once whether its tokens can be packed.

    Args:
        model: a causal language model of transformers, with or without PEFT's layers around its modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.packs = _packs(model)

    def __call__(self, rollout: Rollout) -> Predictions:
        """Returns the predictions of all completion tokens. Dropout is off."""
        self.model.eval()
        return packed_predictions(self.model, rollout) if self.packs else padded_predictions(self.model, rollout)


def packed_predictions(model: nn.Module, rollout: Rollout) -> Predictions:
    """Predicts with every token computed once and without padding.

    Raises:
        NotImplementedError: if the attention of the model does not take packed tokens.
    """
    return joint_predictions(model, [rollout])[0]


def joint_predictions(
    model: nn.Module, rollouts: Sequence[Rollout], lanes: Callable[[list[int]], AbstractContextManager[object]] = _alone
) -> list[Predictions]:
    """Predicts for several runs in one pass. The tokens of each run stand in a row.

    Args:
        model: a model whose attention takes packed tokens.
        rollouts: the sequences of each run.
        lanes: called with the number of tokens of each run; gives the context in which each has its own update.

    Raises:
        NotImplementedError: if the attention of the model does not take packed tokens.
    """
    runs = [pack(rollout) for rollout in rollouts]
    starts = [end - run.tokens for run, end in zip(runs, accumulate(run.tokens for run in runs), strict=True)]
    kept, rows = zip(*(rows_of(run.predicting) for run in runs), strict=True)
    with _attention(model, NAME), lanes([run.tokens for run in runs]):
        out = model(
            input_ids=torch.cat([run.ids for run in runs])[None],
            position_ids=torch.cat([run.positions for run in runs])[None],
            use_cache=False,
            logits_to_keep=torch.cat([k + start for k, start in zip(kept, starts, strict=True)]),
            packed=[Sight(run) for run in runs],
        )
    logits = torch.split(out.logits[0].float(), [len(k) for k in kept])
    shapes = [(r.completion_ids.shape[0], r.completion_ids.shape[1]) for r in rollouts]
    return [
        Predictions(own, row, run.target, run.place, shape)
        for own, row, run, shape in zip(logits, rows, runs, shapes, strict=True)
    ]


def padded_predictions(model: nn.Module, rollout: Rollout) -> Predictions:
    """Predicts with one padded row for each sequence, as every causal language model can."""
    real, cut = rollout.completion_mask.bool(), rollout.trimmed()
    logits = padded_logits(model, cut)[cut.completion_mask.bool()].float()
    row = torch.arange(len(logits), device=logits.device)
    shape = (rollout.completion_ids.shape[0], rollout.completion_ids.shape[1])
    return Predictions(logits, row, rollout.completion_ids[real], real.reshape(-1).nonzero().squeeze(1), shape)


def padded_logits(model: nn.Module, rollout: Rollout) -> Tensor:
    """The logits that predict the cells of the completions, (R, T, V), from one pass over padded rows."""
    mask = torch.cat([rollout.prompt_mask, rollout.completion_mask], 1)
    out = model(
        input_ids=torch.cat([rollout.prompt_ids, rollout.completion_ids], 1),
        attention_mask=mask,
        position_ids=positions(mask),
        use_cache=False,
        logits_to_keep=rollout.completion_ids.shape[1] + 1,
    )
    logits: Tensor = out.logits[:, :-1]
    return logits


@contextmanager
def _attention(model: nn.Module, name: str) -> Iterator[None]:
    """Lets the modules of a model use an attention function, for the time of the context."""
    configs: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            configs.setdefault(id(config), config)
    before = [config._attn_implementation for config in configs.values()]
    try:
        for config in configs.values():
            config._attn_implementation = name
        yield
    finally:
        for config, own in zip(configs.values(), before, strict=True):
            config._attn_implementation = own


@torch.no_grad()
def _packs(model: nn.Module) -> bool:
    """Tells whether packed tokens give the logits that padded rows give, by trying it on a few tokens.

    A model whose blocks mix tokens outside of attention, or whose attention is not known, so falls back to padded rows.
    """
    bare: Any = model
    device = next(model.parameters()).device
    vocabulary = int(bare.config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (4, 9), generator=generator).to(device)
    prompt_mask = torch.tensor([[1] * 5, [1] * 5, [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]], device=device)
    prompts = ids[::2, :5].repeat_interleave(2, 0)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], device=device)
    probe = Rollout(prompts, prompt_mask, ids[:, 5:], mask, torch.zeros(4, 4, device=device))
    was_training = model.training
    model.eval()
    try:
        packed, padded = packed_predictions(model, probe), padded_predictions(model, probe)
    except Exception as error:  # models that know nothing of packed tokens raise all sorts
        why = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        distance = float((packed.logits[packed.row] - padded.logits[padded.row]).abs().max())
        scale = float(padded.logits.abs().max())
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        if distance <= _TOLERANCE.get(dtype, 0.15) * max(scale, 1.0):
            return True
        why = f"its logits differ by {distance:.2g} from those of padded rows"
    finally:
        model.train(was_training)
    warnings.warn(
        f"{type(bare).__name__} does not take packed tokens, so rows are padded, which is slower ({why})", stacklevel=1
    )
    return False
