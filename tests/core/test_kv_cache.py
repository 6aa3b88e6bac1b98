"""A KV cache with room to grow holds what transformers' own, which copies all of it at every step, holds."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from qsit_plugin.engines.kv_cache import SPARE, Prefix, joined


def pair(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 2, tokens, 8), torch.randn(rows, 2, tokens, 8)


@pytest.mark.parametrize("room", [0, 5, 200])
def test_a_growing_cache_holds_what_transformers_holds_and_leaves_its_prefixes(room):
    torch.manual_seed(0)
    prefixes = [Prefix(length, (pair(1, length),)) for length in (30, 17)]
    before = [part.clone() for prefix in prefixes for part in prefix.layers[0]]
    ours, mask, lengths = joined(prefixes, room)
    padded = [torch.nn.functional.pad(part, (0, 0, 13, 0)) for part in prefixes[1].layers[0]]
    plain = DynamicCache()
    plain.update(*(torch.cat(parts) for parts in zip(prefixes[0].layers[0], padded, strict=True)), 0)
    assert mask.tolist() == [[1] * 30, [0] * 13 + [1] * 17] and lengths.tolist() == [30, 17]
    for step in range(2 * SPARE):
        if step == SPARE:  # one answer has ended
            ours.batch_select_indices(torch.tensor([1]))
            plain.batch_select_indices(torch.tensor([1]))
        new = pair(1 if step >= SPARE else 2, 3 if step == 0 else 1)
        assert all(map(torch.equal, ours.update(*new, 0), plain.update(*new, 0)))
        assert ours.get_seq_length() == plain.get_seq_length()
    assert all(map(torch.equal, before, [part for prefix in prefixes for part in prefix.layers[0]]))
