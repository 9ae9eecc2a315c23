"""A cache of transformers that has room for all tokens from the start, so that no step copies what is there."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, at the front of tensors that hold `room` tokens of each sequence.

    `keys` and `values` are what is filled, (B, H, L, D), as transformers expects them.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.tensors: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Appends tokens to each sequence, and returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.tensors = [self._empty(new, len(new)) for new in (key_states, value_states)]
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for tensor, new in zip(self.tensors, (key_states, value_states), strict=True):
            tensor[:, :, start:end] = new
        self._show(end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Replaces the sequences by those that the indices (B′,) name. Fewer sequences stay in the same tensors."""
        filled, count = self.get_seq_length(), len(beam_idx)
        for i, tensor in enumerate(self.tensors):
            target = tensor[:count] if count <= len(tensor) else self._empty(tensor, count)
            target[:, :, :filled] = tensor[beam_idx, :, :filled]
            self.tensors[i] = target
        if self.tensors:
            self._show(filled)

    def _empty(self, like: Tensor, count: int) -> Tensor:
        return like.new_empty(count, like.shape[1], self.room, like.shape[3])

    def _show(self, filled: int) -> None:
        self.keys, self.values = (tensor[:, :, :filled] for tensor in self.tensors)


def roomy_cache(config: Any, room: int) -> DynamicCache:
    """Returns an empty cache for a model of this config. Layers of full attention have room for `room` tokens.

    Layers with a window, or with states of other kinds, are transformers' own: they keep less, or do not grow.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
