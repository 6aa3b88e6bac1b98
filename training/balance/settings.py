"""The configuration of a search: one YAML file beside that of the light model's run. Needs pydantic and pyyaml only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from ..settings_file import (
    AfterValidator,
    Count,
    EachOnce,
    Field,
    Share,
    Text,
    Whole,
    read_file,
    settings,
    to_jsonable_python,
)
from .design import FIRST_SCORING, GRID, GROUPS, QUALITY_GRID, Design
from .objective import Objective

EXAMPLE = "samples: 4000"
HARMONIC = "take the line out, and mixtures are compared by the harmonic mean of scoring and interpreting"


def _scoring_and_quality(sources: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if not {"scoring", "quality"} <= sources.keys() <= set(GROUPS):
        raise ValueError
    return sources


Seeds = Annotated[
    tuple[Annotated[Whole, Field(ge=0)], ...],
    Field(min_length=1, description="it must be a list of whole numbers from 0 up, each once"),
    EachOnce,
]
Grid = Annotated[
    tuple[Share, ...],
    Field(min_length=4, description="it must be a list of four or more different numbers from 0 to 1"),
    EachOnce,
]
Sources = Annotated[
    dict[str, Annotated[tuple[Text, ...], Field(min_length=1)]],
    Field(description="it must be lists of file names for scoring, quality and, if there is any, general data"),
    AfterValidator(_scoring_and_quality),
]


@settings
class SearchSettings:
    """A search. Relative paths in a YAML file are relative to that file. Raises ConfigError for a bad value."""

    example: ClassVar[str] = EXAMPLE
    removed: ClassVar[dict[str, str]] = {
        "mode: joint": "mode: joint was removed: take the line out, and the shares are found in the paper's two stages",
        "objective: weighted": f"objective: weighted was removed: {HARMONIC}",
        "objective: constrained": f"objective: constrained was removed: {HARMONIC}",
        "scoring_weight": f"scoring_weight was removed with objective: weighted: {HARMONIC}",
        "margin": f"margin was removed with objective: constrained: {HARMONIC}",
    }

    run: Text
    """Config of a run of the light model, as for ``qsit train run``; its data is a mixture of two or more files."""
    output: Text
    """A folder for trials.jsonl, ratio.yaml, the plot and the trials that are under way."""
    validation: Text
    """Rows that are not trained on (.jsonl, .json or a mixture's .yaml): ratings, and multiple-choice questions."""
    samples: Count
    """Rows that every trial is trained on."""
    mode: Literal["paper"] = "paper"
    """First quality against general data, then scoring against both."""
    seeds: Seeds = (0, 1, 2)
    """Every mixture is tried with the first, central ones and the baselines with all: that is how noise is measured."""
    objective: Literal["harmonic"] = "harmonic"
    """The harmonic mean of scoring and interpreting."""
    grid: Grid = GRID
    """Scoring shares that are tried."""
    quality_grid: Grid = QUALITY_GRID
    """Shares of quality within the interpreting data that the first stage tries."""
    first_scoring: Share = FIRST_SCORING
    """Scoring share of the first stage."""
    sources: Sources | None = None
    """Which files are scoring, quality and general data, by name without ending; by default files of ratings are
    scoring, the first other one is quality, the second general."""
    validation_images: Text | None = None
    """Folder of the validation rows' images; by default the run's."""
    validation_limit: Count | None = None
    """Validate on so many images at most."""

    def design(self, groups: int) -> Design:
        return Design(groups, self.seeds, self.grid, self.quality_grid, self.first_scoring)

    def target(self, chance: float) -> Objective:
        return Objective(chance)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what ``SearchSettings`` takes."""
        return to_jsonable_python(self)


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> SearchSettings:
    """The search that a YAML file describes; ``overrides``: ``"samples=64"``, each over the file's own line.

    Raises ConfigError for a missing or malformed file, an unknown or missing key and a bad value; ModuleNotFoundError
    where pyyaml is missing.
    """
    path = Path(path)
    search = read_file(SearchSettings, path, overrides)
    names = ("run", "output", "validation", "validation_images")
    paths: dict[str, Any] = {name: str(path.parent / value) for name in names if (value := getattr(search, name))}
    return replace(search, **paths)
