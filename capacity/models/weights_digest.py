"""Tells whether the weights of a model in memory are what they were."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

WHOLE_BYTES = 256 * 2**20  # of larger models, three blocks of each tensor are read
_BLOCK_BYTES = 2**16


def weights_digest(model: nn.Module) -> str:
    """Returns a SHA-256 over names and bytes of all parameters and buffers, 64 hex digits.

    Of a model of more than 256 MiB, it covers the first, the middle and the last 64 KiB of each tensor. A step of an
    optimiser, a cast or a merge changes all blocks. A fault in a single weight between them would not be seen.
    """
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    whole = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= WHOLE_BYTES
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        flat = tensor.reshape(-1)
        for block in (flat,) if whole else _blocks(flat):
            digest.update(block.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _blocks(flat: Tensor) -> Iterator[Tensor]:
    """Yields the first, the middle and the last block of a flat tensor."""
    size = _BLOCK_BYTES // flat.element_size()
    for start in (0, max(0, (len(flat) - size) // 2), max(0, len(flat) - size)):
        yield flat[start : start + size]
