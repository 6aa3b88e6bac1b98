"""What a search is told: one YAML file beside the run config of the light model. Needs pyyaml only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..settings_file import ConfigError, check_names, parse_overrides, read_yaml
from .design import FIRST_SCORING, GRID, GROUPS, QUALITY_GRID, Design
from .objective import Objective

EXAMPLE = "samples: 4000"


@dataclass(frozen=True)
class SearchSettings:
    """A search. Relative paths in a YAML file are relative to that file. Raises ConfigError for a bad value."""

    run: str
    """Config of a run of the light model, as for ``qsit train run``; its data is a mixture of two or more files."""
    output: str
    """A folder for trials.jsonl, ratio.yaml, the plot and the trials that are under way."""
    validation: str
    """Rows that are not trained on (.jsonl, .json or a mixture's .yaml): ratings, and questions with lettered
    options."""
    samples: int
    """Rows that every trial is trained on."""
    mode: str = "paper"
    """paper: first quality against general data, then scoring against both."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every mixture is tried with the first, central ones and the baselines with all: that is how noise is measured."""
    objective: str = "harmonic"
    """harmonic: the harmonic mean of (SRCC + PLCC) / 2 and accuracy above chance."""
    grid: tuple[float, ...] = GRID
    """Scoring shares that are tried."""
    quality_grid: tuple[float, ...] = QUALITY_GRID
    """Shares of quality within the interpreting data that the first stage tries."""
    first_scoring: float = FIRST_SCORING
    """Scoring share of the first stage."""
    sources: dict[str, tuple[str, ...]] | None = None
    """Which files are scoring, quality and general data, by name without ending; by default files of ratings are
    scoring, the first other one is quality, the second general."""
    validation_images: str | None = None
    """Folder of the validation rows' images; by default the run's."""
    validation_limit: int | None = None
    """Validate on so many images at most."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (is_right, told) = getattr(self, field.name), _KINDS[field.name]
            if isinstance(value, list):
                object.__setattr__(self, field.name, value := tuple(value))
            if not (value is None and field.default is None) and not is_right(value):
                raise ConfigError(f"{field.name} is {value!r}: it must be {told}")
        if self.sources is not None:
            object.__setattr__(self, "sources", {name: tuple(files) for name, files in self.sources.items()})
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds are {list(self.seeds)}: give each once")

    def design(self, groups: int) -> Design:
        return Design(groups, self.seeds, self.grid, self.quality_grid, self.first_scoring)

    def target(self, chance: float) -> Objective:
        return Objective(chance)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what ``SearchSettings`` takes."""
        plain = asdict(self)
        if self.sources is not None:
            plain["sources"] = {name: list(files) for name, files in self.sources.items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> SearchSettings:
    """The search that a YAML file describes; ``overrides``: ``"samples=64"``, each over the file's own line.

    Raises ConfigError for a missing or malformed file, an unknown or missing key and a bad value; ModuleNotFoundError
    where pyyaml is missing.
    """
    path = Path(path)
    content = read_yaml(path, EXAMPLE)
    content.update(parse_overrides(overrides, "samples=4000"))
    for name in ("scoring_weight", "margin"):
        if name in content:
            raise ConfigError(f"{path}: {name} was removed with its objective: take it out, the objective is harmonic")
    check_names(path, content, SearchSettings, EXAMPLE)
    try:
        settings = SearchSettings(**content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    names = ("run", "output", "validation", "validation_images")
    paths: dict[str, Any] = {name: str(path.parent / value) for name in names if (value := getattr(settings, name))}
    return replace(settings, **paths)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_shares(value: Any) -> bool:
    return isinstance(value, tuple) and len(set(value)) == len(value) >= 4 and all(map(_is_share, value))


def _are_seeds(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) >= 1 and all(_is_count(seed + 1) for seed in value)


def _are_sources(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= set(GROUPS) or not {"scoring", "quality"} <= value.keys():
        return False
    return all(isinstance(files, list | tuple) and files and all(map(_is_text, files)) for files in value.values())


_TEXT = (_is_text, "a text")
_SHARE = (_is_share, "a number from 0 to 1")
_COUNT = (_is_count, "a whole number from 1 up")
_SHARES = (_are_shares, "a list of four or more different numbers from 0 to 1")
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("run", "output", "validation", "validation_images"), _TEXT),
    "first_scoring": _SHARE,
    **dict.fromkeys(("samples", "validation_limit"), _COUNT),
    **dict.fromkeys(("grid", "quality_grid"), _SHARES),
    "mode": (lambda value: value == "paper", "paper; joint was removed"),
    "objective": (lambda value: value == "harmonic", "harmonic; weighted and constrained were removed"),
    "seeds": (_are_seeds, "a list of whole numbers from 0 up"),
    "sources": (_are_sources, "lists of file names for scoring, quality and, if there is any, general data"),
}
