"""Makes the passes of several runs on one base together. Each token knows its run; see `capacity.adapters.lanes`.

A run's batches, losses and updates are those that it would have alone, up to the rounding of products whose rows are
few. Attention, losses, metrics, clipping and Adam are each run's own.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capacity.adapters.kinds.low_rank import LowRankModel
from capacity.adapters.lanes import Host, Pairs, pairs_of
from capacity.errors import CapacityError
from capacity.forward.model import Forward, joint_predictions
from capacity.forward.predictions import Predictions
from capacity.forward.rollout import Rollout
from capacity.models.ends import end_tokens
from capacity.sampling.decoding.blocks import takes
from capacity.sampling.own_model import unadapted
from capacity.sampling.sampler import Request
from capacity.sampling.together import SharedSampler
from capacity.training.arm import Arm, Asking
from capacity.training.batch import Batch
from capacity.training.loop import Trainee


class Together:
    """Makes the passes of several runs. See `capacity.training.loop.Passes`.

    Args:
        base: the bare model that the runs share, without an update.
        tokenizer: its tokenizer.
        runs: the models of the runs, copies of the base with their updates.
    """

    def __init__(self, base: nn.Module, tokenizer: Any, runs: Sequence[LowRankModel]) -> None:
        self.host = Host(base, runs)
        self.packs = Forward(self.host.model).packs
        ends = end_tokens(base, tokenizer).ids
        self.sampler = SharedSampler(base, self.host, takes(unadapted(base)), ends, tokenizer.pad_token_id)

    def batches(self, trainees: Sequence[Trainee]) -> list[Batch]:
        """Returns the sequences of each run's next step. Runs that ask for samples are sampled together."""
        askings: dict[int, Asking[Batch]] = {i: t.arm.gather(t.items()) for i, t in enumerate(trainees)}
        found: dict[int, Batch] = {}
        answers: dict[int, Rollout | None] = dict.fromkeys(askings)
        while answers:
            requests: dict[int, Request] = {}
            for i, answer in answers.items():
                try:
                    requests[i] = askings[i].send(answer)  # type: ignore[arg-type]
                except StopIteration as end:
                    found[i] = end.value
                except CapacityError as error:
                    trainees[i].fail(error)
            answers = {}
            for i, drawn in zip(requests, self._sampled(trainees, requests), strict=True):
                if isinstance(drawn, CapacityError):
                    trainees[i].fail(drawn)
                else:
                    answers[i] = drawn
        # A run that failed has no batch; its place is kept by an empty one.
        return [found.get(i, _NOTHING) for i in range(len(trainees))]

    def losses(self, trainees: Sequence[Trainee], batches: Sequence[Batch]) -> list[Tensor]:
        """Returns the loss of each run's step, and records its metrics."""
        made: list[Tensor] = []
        joint: list[tuple[Trainee, Batch, Batch]] = []
        for trainee, batch in zip(trainees, batches, strict=True):
            if not trainee.grows:
                continue
            arm = trainee.arm
            passed = arm.with_gradient(batch)
            if passed.sequences and self.packs and arm.at_once(batch.rollout) >= batch.sequences:
                joint.append((trainee, batch, passed))
            else:
                made += _tried(trainee, lambda arm=arm, batch=batch: arm.loss(batch))
        if joint:
            own = self._predictions([(t.arm, p) for t, _, p in joint])
            beside = self._beside(joint)
            for (trainee, batch, passed), predictions, other in zip(joint, own, beside, strict=True):
                made += _tried(
                    trainee,
                    lambda a=trainee.arm, b=batch, p=passed, o=predictions, f=other: _recorded(a, b, p, o, f),
                )
        return made

    def _sampled(self, trainees: Sequence[Trainee], requests: dict[int, Request]) -> list[Rollout | CapacityError]:
        if not requests:
            return []
        with torch.no_grad():
            updates: list[Pairs] = [{} if r.base else pairs_of(trainees[i].arm.adapted) for i, r in requests.items()]
        return self.sampler.sample(list(requests.values()), updates)

    def _predictions(self, sequences: Sequence[tuple[Arm, Batch]]) -> list[Predictions]:
        """Returns what each run's model predicts."""
        updates = [pairs_of(arm.adapted) for arm, _ in sequences]

        def lanes(tokens: list[int]) -> AbstractContextManager[object]:
            return self.host.lanes(list(zip(updates, tokens, strict=True)))

        return joint_predictions(self.host.model, [batch.rollout for _, batch in sequences], lanes)

    @torch.no_grad()
    def _beside(self, joint: Sequence[tuple[Trainee, Batch, Batch]]) -> "list[_Beside | None]":
        """Returns what is predicted without a gradient for each run that measures the base.

        The base predicts all sequences. So does a run's own model, if not all of them have a gradient.
        """
        measuring = [i for i, (trainee, _, _) in enumerate(joint) if trainee.arm.measures_base]
        partly = [i for i in measuring if joint[i][2] is not joint[i][1]]
        base = joint_predictions(self.host.model, [joint[i][1].rollout for i in measuring]) if measuring else []
        own = self._predictions([(joint[i][0].arm, joint[i][1]) for i in partly]) if partly else []
        whole = dict(zip(partly, own, strict=True))
        found = {i: _Beside(predictions, whole.get(i)) for i, predictions in zip(measuring, base, strict=True)}
        return [found.get(i) for i in range(len(joint))]


@dataclass(frozen=True)
class _Beside:
    """What is predicted of all sequences of a step beside the pass with a gradient.

    Attributes:
        base: the predictions of the base.
        own: those of the run's model, if the pass with a gradient left some sequences out.
    """

    base: Predictions
    own: Predictions | None


def _recorded(arm: Arm, batch: Batch, passed: Batch, own: Predictions, beside: _Beside | None) -> Tensor:
    """Returns the loss of a run's step from its predictions, and records its metrics."""
    if beside is None:
        loss, seen = arm.look(passed, own, None, arm.base_code_length(passed))
    else:
        loss, seen = arm.look(passed, own, beside.base if beside.own is None else None)
    loss = loss if passed is batch else loss * arm.share(passed, batch)
    whole = seen
    if beside is not None and beside.own is not None:
        with torch.no_grad():
            _, whole = arm.look(batch, beside.own, beside.base)
    arm.record(loss, batch, passed, [seen], [whole])
    return loss


def _tried(trainee: Trainee, make: Any) -> list[Tensor]:
    """Returns the loss that `make` gives; none, if it fails, which ends this run alone."""
    try:
        return [make()]
    except CapacityError as error:
        trainee.fail(error)
        return []


_EMPTY = torch.zeros(0, 0)
_NOTHING = Batch(Rollout(_EMPTY, _EMPTY, _EMPTY, _EMPTY, _EMPTY), {})
