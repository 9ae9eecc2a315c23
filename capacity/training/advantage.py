"""Group-relative advantages of GRPO (Shao et al., 2402.03300, section 4.1.2)."""

from torch import Tensor


def group_advantages(rewards: Tensor, group_size: int, epsilon: float = 1e-4) -> Tensor:
    """(reward − group mean) / (group standard deviation + `epsilon`), with n − 1 in the deviation.

    Args:
        rewards: (B,), the `group_size` samples of a prompt next to each other.
        group_size: samples a prompt, at least 2.
        epsilon: added to the deviation.

    Returns:
        Advantages, (B,). A dead group (all rewards equal) gets zeros.
    """
    groups = rewards.view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + epsilon)).view(-1)


def group_hits(rewards: Tensor, group_size: int) -> list[int]:
    """Number of rewarded samples in each group, for rewards of 0 and 1."""
    return [int(hits) for hits in rewards.view(-1, group_size).sum(1).tolist()]


def dead_groups(hits: list[int], group_size: int) -> int:
    """Groups whose rewards are all equal: they give no gradient."""
    return sum(1 for h in hits if h in (0, group_size))
