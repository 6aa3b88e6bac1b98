"""In which order the rows of several sources are trained on: exact shares, spread evenly, the same after a stop."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np


def seeded(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """The generator of one source, so that a source added or taken out does not change the order of the others."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *numbers])


def largest_remainder(shares: Mapping[str, float], count: int) -> dict[str, int]:
    """``count`` split by shares (any unit) into whole numbers that sum to it: the parts cut off go, largest first, to
    those that lost most; the earlier source first where they lost the same."""
    exact = {name: Fraction(str(share)) for name, share in shares.items()}
    quotas = {name: share * count / sum(exact.values()) for name, share in exact.items()}
    counts = {name: math.floor(quota) for name, quota in quotas.items()}
    by_loss = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in by_loss[: count - sum(counts.values())]:
        counts[name] += 1
    return counts


FIXED = ("seed", "sizes", "count", "world_size")
"""What must be the same where a run goes on."""


class MixtureSampler:
    """Indices into the sources' rows, put one source after the other; what a DataLoader takes as ``sampler``.

    The order depends on the seed, the epoch and the shares of the epochs before it, and on nothing else:

    - Every epoch has exactly ``count`` rows, with each source's share met by the largest-remainder rule.
    - Each source is walked in a shuffled order without repetition until all its rows have come, across epochs; then it
      is shuffled anew.
    - Each rank gets the same number of rows, of each source as many as the others or one more or less, and together
      they have the rows of the epoch. ``count`` is rounded up to a multiple of ``world_size``.
    - Within a rank the sources are spread evenly, so that a batch has nearly the shares of the epoch. A plain shuffle
      leaves small batches without a rating now and then, and the loss jumps.

    Give ``rank`` and ``world_size`` here, and do not let another sampler deal out this one's rows: sources of equal
    shares alternate, and every second row would be of one source.

    Iterating does not go on to the next epoch: ``set_epoch`` does, as with torch's DistributedSampler.

    Args:
        sizes: name of each source -> its number of rows.
        shares: name -> share, in any unit; by default the sizes.
        count: rows an epoch over all ranks; by default all rows.
        seed: from 0 up.

    Raises ValueError for a source without rows, shares for other names or below 0, a rank outside the world.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        shares: Mapping[str, float] | None = None,
        *,
        count: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        empty = [name for name, size in sizes.items() if size < 1]
        if empty or not sizes:
            raise ValueError(f"every source must have rows; without any: {', '.join(empty) or 'no sources given'}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1, got rank {rank} of {world_size}")
        if seed < 0 or (count is not None and count < 1):
            raise ValueError(f"seed must be at least 0 and count at least 1, got seed {seed} and count {count}")
        self.sizes = dict(sizes)
        self.seed, self.rank, self.world_size = seed, rank, world_size
        wanted = sum(sizes.values()) if count is None else count
        self.count = math.ceil(wanted / world_size) * world_size
        self.epoch = 0
        self.position = 0
        """How many indices of this epoch the newest iterator has given out on this rank."""
        self._start = 0
        self._shares = {0: self._checked(sizes if shares is None else shares)}  # from this epoch on

    def __len__(self) -> int:
        """Indices an epoch on this rank."""
        return self.count // self.world_size

    def __iter__(self) -> Iterator[int]:
        """The epoch's indices on this rank; after ``load_state_dict`` those that are left of it."""
        order = self._order(self.epoch)
        self.position = self._start
        for index in order[self._start :].tolist():
            self.position += 1
            yield index

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch. The epoch that is under way stays where it is."""
        if epoch < 0:
            raise ValueError(f"an epoch is counted from 0 up, got {epoch}")
        if epoch != self.epoch:
            self.epoch, self.position, self._start = epoch, 0, 0

    def shares(self, epoch: int | None = None) -> dict[str, float]:
        """The shares of an epoch, by default this one, summing to 1."""
        given = self._given(self.epoch if epoch is None else epoch)
        return {name: share / sum(given.values()) for name, share in given.items()}

    def counts(self, epoch: int | None = None) -> dict[str, int]:
        """How many rows of each source an epoch has, by default this one, over all ranks."""
        return largest_remainder(self._given(self.epoch if epoch is None else epoch), self.count)

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """New shares from the next epoch on. Those of this one stay: a DataLoader has fetched rows ahead."""
        self._shares = {epoch: given for epoch, given in self._shares.items() if epoch <= self.epoch}
        self._shares[self.epoch + 1] = self._checked(shares)

    def state_dict(self, position: int | None = None) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go on after ``position`` rows of this epoch on each rank; JSON-ready.

        ``position``: by default the number given out. A DataLoader with workers fetches ahead of the training, so give
        the number of rows that were trained on.
        """
        at = self.position if position is None else position
        if not 0 <= at <= len(self):
            raise ValueError(f"an epoch has {len(self)} rows on each rank, the position cannot be {at}")
        fixed = {name: getattr(self, name) for name in FIXED}
        return {**fixed, "epoch": self.epoch, "position": at, "shares": [list(pair) for pair in self._shares.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken. Raises ValueError where sources, seed, count or world size differ."""
        for name in FIXED:
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"the state is of a mixture with {name} {state[name]}, this one has {getattr(self, name)}: the "
                    "rows left of the epoch would not be the same; start a new run, or give what the old one had"
                )
        self._shares = {int(epoch): self._checked(given) for epoch, given in state["shares"]}
        self.epoch, self.position = state["epoch"], state["position"]
        self._start = self.position

    def _checked(self, shares: Mapping[str, float]) -> dict[str, float]:
        if shares.keys() != self.sizes.keys():
            raise ValueError(f"there must be shares for {', '.join(self.sizes)}; got them for {', '.join(shares)}")
        if not all(0 <= share < math.inf for share in shares.values()) or not any(shares.values()):
            raise ValueError(f"shares must be numbers from 0 up, not all 0; got {dict(shares)}")
        return {name: shares[name] for name in self.sizes}

    def _given(self, epoch: int) -> dict[str, float]:
        return self._shares[max(start for start in self._shares if start <= epoch)]

    def _order(self, epoch: int) -> np.ndarray:
        """This rank's indices. Shape (count / world_size,)."""
        counts = self.counts(epoch)
        walked = dict.fromkeys(self.sizes, 0)
        for past in range(epoch):
            for name, count in self.counts(past).items():
                walked[name] += count
        picked, keys, place, offset = [], [], 0, 0
        for name, count in counts.items():
            # the sources' rows one after the other are dealt to the ranks in turn, so all ranks get the same shares
            mine = self._walk(name, walked[name], count)[(self.rank - place) % self.world_size :: self.world_size]
            picked.append(offset + mine)
            # equal distances from a random beginning: any stretch of the order has a source's share, give or take a row
            keys.append((np.arange(len(mine)) + seeded(self.seed, name, 1, epoch).random()) / max(len(mine), 1))
            place, offset = place + count, offset + self.sizes[name]
        return np.concatenate(picked)[np.argsort(np.concatenate(keys), kind="stable")]

    def _walk(self, name: str, start: int, count: int) -> np.ndarray:
        """Rows ``start`` to ``start + count`` of a source's endless walk: one shuffled pass after the other."""
        size = self.sizes[name]
        passes = range(start // size, (start + count - 1) // size + 1)
        rows = [seeded(self.seed, name, 0, number).permutation(size) for number in passes]
        begin = start - passes.start * size
        return np.concatenate([*rows, np.empty(0, dtype=int)]).astype(int)[begin : begin + count]
