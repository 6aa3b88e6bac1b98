"""An opt-in fast tier: fewer tiles or fewer tokens an image. It changes scores, so they say so and lose calibrations.

Both limits choose only among the checkpoint's own grid points, so a limited model works exactly as a checkpoint
whose ``image_grid_pinpoints`` are fewer, and the tests hold it against transformers with such a config. The tile limit
bounds the work of the vision tower, the token limit that of the language model. How far scores move is measured by
``benchmarks/fast_tier.py``.
"""

from __future__ import annotations

from dataclasses import replace

from .errors import LimitError
from .scores import LIMIT
from .tiling import Tiling


def limited(tiling: Tiling, max_tiles: int | None, max_image_tokens: int | None) -> Tiling:
    """The tiling with grids of at most ``max_tiles`` tiles, and at most ``max_image_tokens`` tokens an image.

    ``max_tiles`` counts the tiles of the canvas, not the base view, which is always seen. A limit that no image can
    exceed is dropped: scores are then the released ones and are called so.

    Raises:
        LimitError: not a whole number, or below what every image needs.
    """
    if max_tiles is not None:
        tiling = _limit_tiles(tiling, max_tiles)
    return tiling if max_image_tokens is None else _limit_tokens(tiling, max_image_tokens)


def limits_of(tiling: Tiling) -> list[str]:
    """The limits as ``Score.mode`` names them; empty without."""
    tiles, tokens = tiling.tile_limit, tiling.token_limit
    words = [] if tiles is None else [f"{LIMIT}{tiles} tile{'s' if tiles > 1 else ''}"]
    return words + ([] if tokens is None else [f"{LIMIT}{tokens} image tokens"])


def tiles_of(tiling: Tiling, point: tuple[int, int]) -> int:
    """Tiles of a grid point, without the base view."""
    return (point[0] // tiling.tile) * (point[1] // tiling.tile)


def most_tokens(tiling: Tiling, point: tuple[int, int]) -> int:
    """No image has more tokens on this grid point; an image of its shape has as many where nothing is reduced."""
    rows, columns = (length // tiling.tile * tiling.side for length in point)
    unreduced = int(1.1**2 * tiling.max_tiles * tiling.side**2)  # more than this is reduced, see Tiling.features
    return tiling.side**2 + min(rows * columns, unreduced) + rows


def _limit_tiles(tiling: Tiling, most: int) -> Tiling:
    counts = [tiles_of(tiling, point) for point in tiling.grid_points]
    about = f"this checkpoint's grids have {min(counts)} to {max(counts)} tiles beside the base view"
    _need_whole("max_tiles", most, min(counts), about)
    if most >= max(counts):
        return tiling
    kept = tuple(point for point, count in zip(tiling.grid_points, counts, strict=True) if count <= most)
    return replace(tiling, grid_points=kept, tile_limit=most)


def _limit_tokens(tiling: Tiling, most: int) -> Tiling:
    counts = [most_tokens(tiling, point) for point in tiling.grid_points]
    about = f"this checkpoint's smallest grid gives up to {min(counts)} image tokens, its largest up to {max(counts)}"
    _need_whole("max_image_tokens", most, min(counts), about)
    return tiling if most >= max(counts) else replace(tiling, token_limit=most)


def _need_whole(name: str, given: int, least: int, about: str) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise LimitError(f"{name} must be a whole number from {least} on, or None for no limit; got {given!r}: {about}")
