"""The options of ``qsit gate``, checked together, and the images that they speak of."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qsit_plugin.protocol import LEVELS

from ..failures import WRONG_USAGE, stop

if TYPE_CHECKING:
    from qsit_plugin.bulk.gate import Gate
    from qsit_plugin.bulk.inputs.source import Source
    from qsit_plugin.bulk.stored import Stored
    from qsit_plugin.images.errors import ImageError


@dataclass(frozen=True)
class GateOptions:
    """What ``qsit gate`` was asked for; its properties are for use after ``check``."""

    folder: str | None
    least: float | None
    keep: str | None
    level: str | None
    passed: str | None
    failed: str | None
    kinds: list[str]
    dry_run: bool
    xmp: bool
    yes: bool
    manifest: str | None

    def check(self) -> None:
        """End with status 2 for what does not go together, before a model is loaded."""
        if self.folder is None or not os.path.isdir(self.folder):
            stop("give a folder to look through" if self.folder is None else f"no folder {self.folder}", WRONG_USAGE)
        if self.least is not None and self.keep is not None:
            stop("--min is a score, --keep a share of the folder: give one of them", WRONG_USAGE)
        if self.least is None and self.keep is None and self.level is None:
            stop("say what passes: --min .6, --keep 20% or --level good", WRONG_USAGE)
        if self.level is not None and self.level not in LEVELS:
            stop(f"no level {self.level!r}: give one of {', '.join(LEVELS)}", WRONG_USAGE)
        _ = self.share
        moving = bool(self.passed or self.failed)
        if moving and not self.dry_run and len(self.kinds) != 1:
            stop("say what is done: one of --copy, --move, --link, or --dry-run", WRONG_USAGE)
        if not moving and not self.dry_run and (self.kinds or not self.xmp):
            stop("say where images go: --pass DIR, --fail DIR or both (or only --xmp, or --dry-run)", WRONG_USAGE)
        from qsit_plugin.bulk.gate import below

        if len(set(self.places)) < len(list(filter(None, (self.passed, self.failed)))):
            stop("--pass and --fail are one folder: give two", WRONG_USAGE)
        if below(self.root, self.places):
            stop(f"{self.folder} itself lies in --pass or --fail: give other folders", WRONG_USAGE)
        if self.kinds == ["move"] and not (self.yes or self.dry_run or sys.stdin.isatty()):
            stop("--move asks first, and here is nobody to ask: give --yes", WRONG_USAGE)

    @property
    def root(self) -> str:
        return os.path.abspath(str(self.folder))

    @property
    def places(self) -> list[str]:
        return [os.path.abspath(place) for place in (self.passed, self.failed) if place]

    @property
    def share(self) -> float | None:
        """In (0, 1]; None without --keep. Ends with status 2 for another."""
        if self.keep is None:
            return None
        try:
            share = float(self.keep.strip().removesuffix("%")) / 100
        except ValueError:
            share = 0.0
        if not self.keep.strip().endswith("%") or not 0.0 < share <= 1.0:
            stop(f"--keep {self.keep!r} is no share: give one as in 20%, above 0% and at most 100%", WRONG_USAGE)
        return share

    def found(self, recursive: bool, skipped: Counter[str]) -> Iterator[Source | ImageError]:
        """The image files of the folder, but not those that went to --pass and --fail before."""
        from qsit_plugin.bulk.gate import below
        from qsit_plugin.bulk.inputs.sources import sources
        from qsit_plugin.images.errors import ImageError

        for item in sources([self.root], recursive=recursive, skipped=skipped, shards=False):
            if isinstance(item, ImageError) or not below(item.path, self.places):
                yield item

    def scored(self, file: str, recipe: int) -> Iterator[Stored]:
        """The images of the folder that are there and have a score, from the store."""
        from qsit_plugin.bulk.gate import below
        from qsit_plugin.bulk.store import open_to_read
        from qsit_plugin.bulk.stored import stored

        with closing(open_to_read(file)) as opened:
            for image in stored(opened, recipe):
                mine = below(image.path, [self.root]) and not below(image.path, self.places)
                if mine and "score" in image.row and os.path.lexists(image.path):
                    yield image

    def gate(self, threshold: float) -> Gate:
        from qsit_plugin.bulk.gate import Gate

        passed, failed = (os.path.abspath(place) if place else None for place in (self.passed, self.failed))
        do = self.kinds[0] if self.kinds else "copy"
        return Gate(self.root, threshold, self.level or LEVELS[-1], do, passed, failed, self.xmp)
