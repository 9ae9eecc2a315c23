"""The error of one evaluation draw that all runs share, where answers to single items are not recorded.

Counts do not tell how much of the draw the runs have in common in their answers. Two cases bound it. Runs that answer
alike whatever their accuracy have the covariance min(p, q) − p q an item (the same uniform number decides both). Runs
that answer differently have none, but each keeps its own variance p (1 − p). The sum of the two covariances is at least
as large as either, for every combination of means.
"""

import numpy as np

from capacity_analysis.types import Array


def shared_draw_covariance(means: Array, base: Array | None, answers: Array, share: float, ceiling: int) -> Array:
    """The covariance of means minus the target through one common draw, N × M × M.

    Args:
        means: the mean accuracy of each size, N × M.
        base: the accuracy of the untrained model, N; None for a target without it.
        answers: the answers behind each mean of one run, M.
        share: the share of the way from the base to the ceiling at which the target lies; 0 without a base.
        ceiling: the place of the ceiling among the sizes, if `base` is given; −1 for a ceiling that is given.
    """
    m = means.shape[1]
    every, counts, moved = means, answers, np.eye(m)
    if base is not None:
        every, counts = np.concatenate([means, base[:, None]], axis=1), np.append(answers, answers.min())
        moved = np.concatenate([moved, np.full((m, 1), share - 1.0)], axis=1)
        if ceiling >= 0:
            moved[:, ceiling] -= share
    one, other = every[:, :, None], every[:, None, :]
    alike = np.minimum(one, other) - one * other
    covariance = (alike + alike * np.eye(every.shape[1])) / np.minimum(counts[:, None], counts[None, :])
    return np.asarray(moved @ covariance @ moved.T)
