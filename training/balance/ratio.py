"""ratio.yaml: the mixture that a search has found, with everything that a run needs to know to use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsit_plugin.row_file import write_whole

from ..config import RunConfig
from ..settings_file import ConfigError, parse_overrides, read_yaml
from .settings import EXAMPLE

NAME = "ratio.yaml"
REQUIRED = ("share", "chosen_by", "flat", "groups", "objective", "normalize", "lambda_L", "metrics", "verified")
NOTED = ("light_model", "objective", "tied_interval", "flat", "lambda_L", "normalize", "chosen_by")
MIDDLE, PUBLISHED, PUBLISHED_SCORING = "middle of what is tied", "published", "published share of scoring"
CHOSEN = {
    MIDDLE: "the middle of what is tied with the best",
    PUBLISHED: "the published mixture: the search could not distinguish any mixture from another",
    PUBLISHED_SCORING: "the published share of scoring: the search could not distinguish shares of scoring",
}


@dataclass(frozen=True)
class Ratio:
    """``content``: the file's."""

    path: Path
    content: dict[str, Any]

    @property
    def shares(self) -> dict[str, float]:
        """Of each source."""
        return self.content["share"]

    def note(self) -> dict[str, Any]:
        """What run.json keeps of it."""
        return {name: self.content.get(name) for name in NOTED}

    def line(self) -> str:
        """For people, before a run: how the shares were chosen, and how sure that is."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        how = CHOSEN[self.content["chosen_by"]] + (" (a flat optimum)" if self.content["flat"] else "")
        verified = "verified" if self.content["verified"] else "not verified"
        return f"{self.path}: {shares}; {how}; {verified} on the primary model"


def read_ratio(path: str | Path) -> Ratio:
    """Raises ConfigError for a file that is not a ratio.yaml."""
    path = Path(path)
    content = read_yaml(path, EXAMPLE)
    missing = [name for name in REQUIRED if name not in content]
    if missing:
        told = f"{path} is no ratio.yaml, or one of an older version: it lacks {', '.join(missing)}"
        raise ConfigError(f"{told}. qsit train balance search writes one; report FOLDER writes that of a search anew")
    shares = content["share"]
    if not isinstance(shares, dict) or not all(type(share) in (int, float) and share >= 0 for share in shares.values()):
        raise ConfigError(f"{path}: share must be names of sources with numbers from 0 up, got {shares!r}")
    return Ratio(path, content)


def write_ratio(ratio: Ratio) -> Path:
    import yaml

    text = yaml.safe_dump(ratio.content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    write_whole(ratio.path, text)
    return ratio.path


def as_settings(ratio: Ratio, config: str | Path, overrides: Sequence[str] = ()) -> list[str]:
    """The settings, as ``read_config`` takes them, that a run has from a ratio: shares, and for ``balance: feedback``
    the ratio of losses that it aims at. Settings that are given by hand go first.

    Raises ConfigError where shares are given by hand as well.
    """
    given = parse_overrides(overrides, "learning_rate=1e-5")
    if "shares" in given:
        raise ConfigError("shares are given twice: leave shares=… or --mixture out")
    settings = [*overrides, f"shares={json.dumps(ratio.shares, ensure_ascii=False)}"]
    content = read_yaml(Path(config), EXAMPLE) | given
    if content.get("balance") == "feedback" and content.get("balance_lambda") is None:
        if ratio.content["lambda_L"] is None:
            raise ConfigError(f"balance: feedback needs balance_lambda, and {ratio.path} has no lambda_L: give it")
        settings.append(f"balance_lambda={ratio.content['lambda_L']!r}")
    return settings


def check_fits(ratio: Ratio, config: RunConfig) -> None:
    """Raise ConfigError where a ratio was not found for such a run."""
    from ..data.mixture import source_names

    for name in ("normalize", "level_loss"):
        found_with, now = ratio.content.get(name), getattr(config, name)
        if found_with not in (None, now):
            told = f"{ratio.path} was found with {name}: {found_with}, this run has {name}: {now}"
            raise ConfigError(f"{told}: the best shares depend on it. Give {name}: {found_with}, or search again")
    names = source_names(config.data)
    if set(names) != set(ratio.shares):
        raise ConfigError(
            f"{ratio.path} has shares for {', '.join(ratio.shares)}, {config.data} has {', '.join(names)}. Sources are "
            "matched by file name without ending: name the files so, list all of them, or search again"
        )
