"""The name of a weight in caches and fingerprints."""

import torch
import xxhash


def content_hash(weight: torch.Tensor) -> str:
    """The XXH3-128 hash of a tensor: of its shape and its values as float32; 32 hex digits.

    It names a weight in caches and fingerprints, at the speed of memory; nobody's trust rests on it.

    A bfloat16 checkpoint has one hash, whether it is loaded as it is or in float32. Of float64 and integer tensors the
    dtype and the raw bytes are hashed. The work goes in slices: a large tensor is never copied whole.
    """
    narrow = weight.is_floating_point() and weight.element_size() <= 4
    dtype = torch.float32 if narrow else weight.dtype
    digest = xxhash.xxh3_128(f"{dtype}|{tuple(weight.shape)}|".encode())
    rows = weight.detach() if weight.dim() else weight.detach().reshape(1)
    step = max(1, 2**20 * len(rows) // max(1, rows.numel()))
    for start in range(0, len(rows), step):
        digest.update(rows[start : start + step].to("cpu", dtype).contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
