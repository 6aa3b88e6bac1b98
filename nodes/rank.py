"""The order of Q-SiT Rank. Knows numbers only."""

from __future__ import annotations

from collections.abc import Sequence

ORDERS = ("best first", "worst first")


def top(scores: Sequence[float], k: int, order: str, min_score: float = 0.0) -> list[int]:
    """Indices of the ``k`` best (or worst) scores that reach ``min_score``, in that order; equal scores keep theirs.

    ``k = 0`` keeps all. Raises ValueError for a negative k or an unknown order.
    """
    if k < 0:
        raise ValueError(f"k must be 0 (all) or more, got {k}")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    sign = -1.0 if order == "best first" else 1.0
    kept = [i for i in range(len(scores)) if scores[i] >= min_score]
    ranked = sorted(kept, key=lambda i: sign * scores[i])
    return ranked[:k] if k else ranked
