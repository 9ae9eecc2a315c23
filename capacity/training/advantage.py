"""Computes the group-relative advantages of GRPO (Shao et al., arXiv 2402.03300, section 4.1.2)."""

from torch import Tensor


def group_advantages(rewards: Tensor, group_size: int, epsilon: float = 1e-4) -> Tensor:
    """Returns (reward − group mean) / (group standard deviation + `epsilon`).

    The standard deviation divides by n − 1.

    Args:
        rewards: the rewards of shape (B,). The `group_size` samples of a prompt stand next to each other.
        group_size: the number of samples per prompt, at least 2.
        epsilon: a small number that is added to the standard deviation.

    Returns:
        The advantages, of shape (B,). A dead group, whose rewards are all equal, gets zeros.
    """
    groups = rewards.view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + epsilon)).view(-1)


def group_hits(rewards: Tensor, group_size: int) -> list[int]:
    """Returns the number of rewarded samples in each group, for rewards of 0 and 1 of shape (B,)."""
    return [int(hits) for hits in rewards.view(-1, group_size).sum(1).tolist()]


def dead_groups(hits: list[int], group_size: int) -> int:
    """Counts the groups whose rewards are all equal. They give no gradient."""
    return sum(1 for h in hits if h in (0, group_size))
