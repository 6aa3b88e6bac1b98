"""Which files are trained on, and how much of each: the YAML of the published data mix, and the plan of an epoch.

    datasets:
      - json_path: train_koniq_qsit.json
        sampling_strategy: all
      - json_path: q_instruct.json
        sampling_strategy: random:22%

``all``, ``first:N``, ``end:N``, ``random:N``, each N also as a percentage, mean what they mean to LLaVA-NeXT's trainer;
a percentage is rounded up. One thing differs: its ``random`` shuffles without a fixed seed, ours with one, so that a
run can be repeated; which rows the published model was trained on is not known.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

from qsit_plugin import __version__
from qsit_plugin.errors import QSiTError
from qsit_plugin.evaluation.datasets.json_records import read_records
from qsit_plugin.yaml_file import load_yaml

from .containers import is_container
from .formats import row_of
from .rows import RowError, TrainingRow
from .sampler import MixtureSampler, seeded

STRATEGIES = ("all", "first", "end", "random")
_FORMS = "all, first:N, end:N or random:N, where N is a number of rows or a percentage such as 22%"


class MixtureError(QSiTError, ValueError):
    """A mixture file that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """One entry of a mixture.

    ``size``: how many rows its file has. ``rows``: those that were chosen, in the order of the strategy. ``sha256``: of
    the file; ``selection_sha256``: of the chosen rows, whatever the layout of the file.
    """

    name: str
    path: Path
    strategy: str
    size: int
    rows: tuple[TrainingRow, ...]
    sha256: str
    selection_sha256: str


@dataclass(frozen=True)
class Mixture:
    """The sources in the order of the file, and the seed of their random choices."""

    sources: tuple[Source, ...]
    seed: int

    def rows(self) -> list[TrainingRow]:
        """All chosen rows, source after source: what the sampler's indices count."""
        return [row for source in self.sources for row in source.rows]

    def sampler(self, **options: Any) -> MixtureSampler:
        """A sampler of these sources with this seed; ``options`` as for MixtureSampler."""
        return MixtureSampler({source.name: len(source.rows) for source in self.sources}, seed=self.seed, **options)


def read_mixture(path: str | Path, *, seed: int = 0, folder: str | Path | None = None) -> Mixture:
    """Read a mixture's YAML and the files that it names (``.json`` or ``.jsonl``).

    Args:
        seed: of ``random``, from 0 up.
        folder: where to look, by file name, for a file that is not at its ``json_path``. A relative ``json_path`` is
            relative to the YAML.

    Raises MixtureError for a YAML that is malformed or has unknown keys, a missing or malformed file, an unknown
    strategy or one that chooses nothing, and a chosen row that cannot be trained on; ModuleNotFoundError where pyyaml
    is missing.
    """
    path = Path(path)
    return _mixture(_entries(path), path, seed, folder)


def read_rows(path: str | Path, *, seed: int = 0) -> list[TrainingRow]:
    """All rows of a file, or those that a mixture (``.yaml``) chooses. Raises MixtureError as ``read_mixture`` does."""
    return read_data(path, seed=seed).rows()


def read_data(path: str | Path, *, seed: int = 0, folder: str | Path | None = None) -> Mixture:
    """What a file of rows, or the YAML of a mixture, holds. ``folder`` and errors are those of ``read_mixture``."""
    path = Path(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        return read_mixture(path, seed=seed, folder=folder)
    if is_container(path):
        raise MixtureError(
            f"{path} is a container: make rows of it first, by qsit train convert NAME {path} --images FOLDER --out "
            "ROWS.jsonl"
        )
    if not path.is_file():
        raise MixtureError(f"no file {path}; qsit train convert writes one")
    return _mixture([{"json_path": path.name, "sampling_strategy": "all"}], path, seed, None)


def _mixture(entries: Sequence[dict[str, str]], path: Path, seed: int, folder: str | Path | None) -> Mixture:
    if seed < 0:
        raise MixtureError(f"the seed must be at least 0, got {seed}")
    found: list[Source] = []
    for number, entry in enumerate(entries, 1):
        place = f"{path.name}, dataset {number}"
        file = _find(entry["json_path"], path.parent, folder, place)
        name = _free_name(file.stem, [source.name for source in found])
        try:
            records = read_records(file)
            chosen = choose(entry["sampling_strategy"], len(records), seed, name)
        except ValueError as error:
            raise MixtureError(f"{place}: {error}") from None
        rows = tuple(_row(f"{file}, row {i}", records[i], i, name) for i in chosen)
        hashes = hashlib.sha256(file.read_bytes()).hexdigest(), _fingerprint([records[i] for i in chosen])
        found.append(Source(name, file, entry["sampling_strategy"], len(records), rows, *hashes))
    return Mixture(tuple(found), seed)


def _row(place: str, record: dict[str, Any], number: int, name: str) -> TrainingRow:
    try:
        return row_of(record, number, name)
    except RowError as error:
        raise MixtureError(
            f"{place}: {error}; qsit train convert lists all such rows of a file and can leave them out"
        ) from None


def source_names(path: str | Path) -> list[str]:
    """The names of the sources of a mixture, or of one file, without reading the rows. Raises MixtureError as
    ``read_mixture`` does."""
    path = Path(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return [path.stem]
    names: list[str] = []
    for entry in _entries(path):
        names.append(_free_name(PurePosixPath(entry["json_path"].replace("\\", "/")).stem, names))
    return names


def choose(strategy: str, rows: int, seed: int, name: str) -> Sequence[int]:
    """The rows that a strategy takes of a file with so many. Raises ValueError for an unknown one, or one of no rows.

    ``first:N`` and its like take all rows of a smaller file, as they do in LLaVA-NeXT.
    """
    kind, _, amount = strategy.partition(":")
    if kind not in STRATEGIES or (kind == "all") != (amount == ""):
        raise ValueError(f"no sampling strategy {strategy!r}: give {_FORMS}")
    if kind == "all":
        return range(rows)
    count = _amount(amount, rows, strategy)
    if kind == "random":
        return seeded(seed, name, 2).permutation(rows)[:count].tolist()
    return range(count) if kind == "first" else range(rows - count, rows)


def _amount(text: str, rows: int, strategy: str) -> int:
    number = text.strip()
    try:
        percent = Fraction(number.removesuffix("%")) if number.endswith("%") else None
        count = int(number) if percent is None else math.ceil(percent * rows / 100)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"no sampling strategy {strategy!r}: give {_FORMS}") from None
    if count < 1 or (percent is not None and percent > 100):
        raise ValueError(f"{strategy!r} must choose at least one row and at most 100%")
    return min(count, rows)


def _entries(path: Path) -> list[dict[str, str]]:
    try:
        content = load_yaml(path)
    except FileNotFoundError:
        raise MixtureError(f"{path}: no such mixture file") from None
    except IsADirectoryError:
        raise MixtureError(f"{path} is a folder: give the mixture's YAML") from None
    except ValueError as error:
        raise MixtureError(str(error)) from None
    if not isinstance(content, dict) or content.keys() != {"datasets"} or not isinstance(content["datasets"], list):
        raise MixtureError(f"{path} must have one key, datasets, with a list")
    if not content["datasets"]:
        raise MixtureError(f"{path} lists no datasets")
    return [_entry(f"{path.name}, dataset {number}", entry) for number, entry in enumerate(content["datasets"], 1)]


def _entry(place: str, entry: Any) -> dict[str, str]:
    entry = {"sampling_strategy": "all", **entry} if isinstance(entry, dict) else {}
    if entry.keys() != {"json_path", "sampling_strategy"}:
        raise MixtureError(f"{place}: it must have json_path, may have sampling_strategy, and nothing else")
    for key, value in entry.items():
        if not isinstance(value, str):
            raise MixtureError(f"{place}: {key} must be a text, got {value!r}")
    return entry


def _find(json_path: str, beside: Path, folder: str | Path | None, place: str) -> Path:
    name = PurePosixPath(json_path.replace("\\", "/")).name
    tried = [beside / json_path] + ([] if folder is None else [Path(folder) / name])
    for candidate in tried:
        if candidate.is_file():
            return candidate
    cure = "" if folder is not None else "; --folder says where the files of the mixture lie"
    raise MixtureError(f"{place}: no file {' and none '.join(map(str, tried))}{cure}")


def _free_name(stem: str, taken: Sequence[str]) -> str:
    """A file that is listed twice has two names: ``koniq``, ``koniq#2``."""
    candidates = [stem, *(f"{stem}#{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in candidates if name not in taken)


def _fingerprint(records: Sequence[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record, sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


# ---- the plan: rows, shares and hashes of each source, before anything is trained ----


def plan_of(
    mixture: Mixture,
    *,
    count: int | None = None,
    shares: Mapping[str, float] | None = None,
    world_size: int = 1,
) -> dict[str, Any]:
    """The plan of a mixture's first epoch, JSON-ready.

    ``count``: rows an epoch, by default all chosen ones. ``shares``: of each source, by default by its rows. Of each
    source: ``rows`` is what its file has, ``chosen`` what the strategy takes, of these ``ratings`` are questions for a
    score, ``per_epoch`` is what an epoch has.
    """
    sampler = mixture.sampler(count=count, shares=shares, world_size=world_size)
    counts = sampler.counts()
    return {
        "seed": mixture.seed,
        "world_size": world_size,
        "rows_per_epoch": sampler.count,
        "sources": [
            {
                "name": source.name,
                "file": source.path.name,
                "strategy": source.strategy,
                "rows": source.size,
                "chosen": len(source.rows),
                "ratings": sum(row.task == "score" for row in source.rows),
                "per_epoch": counts[source.name],
                "share": counts[source.name] / sampler.count,
                "sha256": source.sha256,
                "selection_sha256": source.selection_sha256,
            }
            for source in mixture.sources
        ],
        "versions": {"qsit-plugin": __version__},
    }


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """The plan as aligned columns."""
    width = max(len(source["name"]) for source in plan["sources"])
    yield f"{'source':<{width}}  {'strategy':<12}{'rows':>10}{'chosen':>10}{'an epoch':>10}{'share':>8}  sha256"
    for source in plan["sources"]:
        numbers = f"{source['rows']:>10,}{source['chosen']:>10,}{source['per_epoch']:>10,}{source['share']:>8.1%}"
        yield f"{source['name']:<{width}}  {source['strategy']:<12}{numbers}  {source['sha256'][:12]}"
    chosen = sum(source["chosen"] for source in plan["sources"])
    rows = sum(source["rows"] for source in plan["sources"])
    numbers = f"{rows:>10,}{chosen:>10,}{plan['rows_per_epoch']:>10,}{1:>8.1%}"
    yield f"{'all':<{width}}  {'':<12}{numbers}  seed {plan['seed']}"
