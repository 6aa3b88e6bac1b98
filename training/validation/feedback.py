"""The fine stage of Q-SiT's balance strategy: after each epoch the mixture follows the validation losses.

The paper (figure 3-B) trains the large model from the light one's best mixture on, and after every epoch compares the
ratio of validation losses, score loss / interpret loss, with the light model's at its optimum, lambda: below it the
share of interpretation rises, above it that of ratings. By how much is not published; here the share moves by the full
step where the ratio is off by a factor of two or more, and by less the nearer it is, so that it comes to rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import ConfigError, RunConfig
from ..data.mixture import Mixture
from ..data.sampler import MixtureSampler

Entry = dict[str, Any]
DIVERGED = "the training has diverged; begin again with a lower learning_rate or a longer warmup"


def moved(share: float, ratio: float, target: float, *, step: float, bounds: Sequence[float]) -> float:
    """The next share of ratings. ``ratio``: of the losses, score / interpret, from 0 to infinity."""
    direction = -1.0 if ratio == 0 else max(-1.0, min(1.0, math.log2(ratio / target)))
    return max(bounds[0], min(bounds[1], share + step * direction))


def with_share(shares: Mapping[str, float], scoring: Sequence[str], share: float) -> dict[str, float]:
    """The shares of all sources, with ``share`` for those of ratings together; within both groups as they were."""
    now = sum(shares[name] for name in scoring)
    scale = {True: share / now, False: (1.0 - share) / (1.0 - now)}
    return {name: value * scale[name in scoring] for name, value in shares.items()}


def sources_of_ratings(mixture: Mixture, given: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the sources whose rows are ratings. Raises ConfigError where that cannot be told or is all or none.

    ``given``: instead of looking at the rows.
    """
    names = [source.name for source in mixture.sources]
    if given is not None:
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ConfigError(f"scoring_sources: no source {unknown[0]!r}; there are {', '.join(names)}")
        found = tuple(name for name in names if name in given)
    else:
        tasks = {source.name: {row.task for row in source.rows} for source in mixture.sources}
        mixed = [name for name, kinds in tasks.items() if len(kinds) > 1]
        if mixed:
            raise ConfigError(
                f"balance: {mixed[0]} has ratings and conversations, so its share moves neither way: put them into "
                "files of their own, or name the sources of ratings in scoring_sources"
            )
        found = tuple(name for name, kinds in tasks.items() if kinds == {"score"})
    if not found or len(found) == len(names):
        kind = "no" if not found else "only"
        raise ConfigError(
            f"balance: feedback needs sources of ratings and others; data has {kind} sources of ratings "
            f"({', '.join(names)}): give a mixture (.yaml) of both"
        )
    return found


class Balance:
    """Moves the sampler's shares and remembers how: the same history gives the same order of rows."""

    def __init__(self, config: RunConfig, mixture: Mixture, sampler: MixtureSampler):
        self.sampler = sampler
        self.scoring = sources_of_ratings(mixture, config.scoring_sources)
        self.target, self.step, self.bounds = config.balance_lambda or 0.0, config.balance_step, config.balance_bounds
        self.history: list[Entry] = []
        begin = self.share()
        if not self.bounds[0] <= begin <= self.bounds[1]:
            raise ConfigError(
                f"the share of ratings begins at {begin:.3f}, outside balance_bounds {list(self.bounds)}: give other "
                "shares or wider bounds"
            )

    def share(self, epoch: int | None = None) -> float:
        """Of ratings in an epoch, by default the one under way."""
        shares = self.sampler.shares(epoch)
        return sum(shares[name] for name in self.scoring)

    def entry(self, score_loss: float, interpret_loss: float, step: int) -> Entry:
        """What the epoch that has just ended leads to. Raises ConfigError for losses that are not finite."""
        if not math.isfinite(score_loss) or not math.isfinite(interpret_loss):
            raise ConfigError(f"the validation losses are {score_loss} and {interpret_loss}: {DIVERGED}")
        ratio = score_loss / interpret_loss if interpret_loss > 0 else math.inf
        share = self.share()
        following = moved(share, ratio, self.target, step=self.step, bounds=self.bounds)
        return {
            "epoch": self.sampler.epoch,
            "step": step,
            "share": share,
            "score_loss": score_loss,
            "interpret_loss": interpret_loss,
            "lambda": self.target,
            "next_share": following,
            "next_shares": with_share(self.sampler.shares(), self.scoring, following),
        }

    def apply(self, entry: Entry) -> None:
        """From the next epoch on."""
        self.sampler.set_shares(entry["next_shares"])
        self.history.append(entry)

    def restore(self, history: Sequence[Entry]) -> None:
        """As if these entries had just been made; the sampler is then in the epoch of the last one."""
        self.history = []
        for entry in history:
            self.sampler.set_epoch(entry["epoch"])
            self.apply(entry)

    def line(self, entry: Entry) -> str:
        """For people."""
        ratio = entry["score_loss"] / entry["interpret_loss"] if entry["interpret_loss"] > 0 else math.inf
        return (
            f"epoch {entry['epoch'] + 1}: score loss / interpret loss {ratio:.3f}, lambda {self.target:.3f}; share of "
            f"ratings {entry['share']:.3f}, then {entry['next_share']:.3f}"
        )
