"""A store -> one HTML file to look at: distribution, worst and best, every image, two runs side by side.

The file asks nothing of the network, and says so to the browser (a content security policy). Names of files are text
in it, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from qsit_plugin.protocol import LEVELS
from qsit_plugin.row_file import read_rows, replacing

from .gate import below
from .paired import paired
from .store import StoreError, in_words, open_to_read
from .stored import Stored, about_recipe, choose_recipe, stored
from .thumbnails import shard_of, thumbnails

LISTED = 50_000
"""Images that the page lists; of more the worst and the best. All are in the distribution."""

BINS = 50


@dataclass(frozen=True)
class Written:
    """How many images the page lists, of how many that have a score; how many have a thumbnail, and failed."""

    listed: int
    scored: int
    thumbnails: int
    failed: int


def report(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: int | None = None,
    against: str | None = None,
    answers: str | os.PathLike[str] | None = None,
    pictures: int = 3000,
) -> Written:
    """Write the page; a file that is there is replaced at the end.

    Args:
        recipe: the number of the recipe whose scores are shown; may be None where the store has one only.
        against: a second run over the same images: the number of another recipe of this store, or another store with
            one recipe. Images are paired by their content.
        answers: jsonl of ``qsit explain`` or ``qsit ask``, whose texts are shown with their images.
        pictures: thumbnails at most, of the worst and the best images first.

    Raises:
        StoreError: a store cannot be read, has no score, several recipes and none was chosen, or nothing in common with
            the second run.
        ValueError: the answers are not such a file.
        OSError: a file cannot be read or written.
    """
    said = {} if answers is None else _answers(answers)
    with closing(open_to_read(store)) as file, in_words(os.fspath(store)):
        file.execute("BEGIN")  # one state of the store, while others write to it
        chosen = choose_recipe(file, os.fspath(store), recipe)
        about = about_recipe(file, chosen)
        levels: Counter[str] = Counter()
        scores = np.array([_counted(one, levels) for one in stored(file, chosen) if "score" in one.row])
        if not len(scores):
            raise StoreError(f"{os.fspath(store)}: no image has a score; qsit score DIR --out FILE.sqlite makes some")
        images = sorted(_listed(file, chosen, scores), key=lambda one: one.row["score"])
        failed = [(one.path, one.row["error"]["message"]) for one in stored(file, chosen) if "error" in one.row]
        other, name = ({}, None) if against is None else _second_run(file, against)
        pairs = None if against is None else asdict(_pairs(file, chosen, other, against))
    made = thumbnails(_ends(images, pictures))
    base = _base(images)
    page = {
        "about": about, "name": os.path.basename(base), "against": name, "pairs": pairs, "levels": LEVELS,
        "scored": len(scores), "counts": [levels[level] for level in LEVELS],
        "histogram": np.histogram(scores, BINS, (0, 1))[0].tolist(),
        "link": _link(base, out), "failed": [[_name(path, base), why] for path, why in failed[:LISTED]],
        "failures": len(failed),
    }  # fmt: skip
    rows = (_row(one, base, made, other, said) for one in images)
    with replacing(Path(out)) as fresh, fresh.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        for piece in _page(page, rows):
            stream.write(piece)
    return Written(len(images), len(scores), len(made), len(failed))


def _counted(one: Stored, levels: Counter[str]) -> float:
    levels[one.row["level"]] += 1
    return float(one.row["score"])


def _listed(file: sqlite3.Connection, recipe: int, scores: np.ndarray) -> Iterator[Stored]:
    low = high = 0.0
    if len(scores) > LISTED:
        ordered = np.sort(scores)
        low, high = float(ordered[LISTED // 2 - 1]), float(ordered[-(LISTED // 2)])
    for one in stored(file, recipe):
        if "score" in one.row and (len(scores) <= LISTED or not low < one.row["score"] < high):
            yield one


def _ends(images: list[Stored], count: int) -> Iterator[str]:
    """The worst and the best by turns: of a long list each end has half of the thumbnails."""
    for place in range(min(count, len(images))):
        yield images[place // 2 if place % 2 == 0 else -1 - place // 2].path


def _second_run(file: sqlite3.Connection, against: str) -> tuple[dict[bytes | None, float], str]:
    """content -> score, and how the run is named."""
    if against.isdecimal():
        return _run_of(file, choose_recipe(file, "the store", int(against)), f"recipe {against}")
    with closing(open_to_read(against)) as second, in_words(against):
        return _run_of(second, choose_recipe(second, against, None), os.path.basename(against))


def _run_of(file: sqlite3.Connection, recipe: int, where: str) -> tuple[dict[bytes | None, float], str]:
    found = {one.sha256: one.row["score"] for one in stored(file, recipe) if "score" in one.row}
    about = about_recipe(file, recipe)
    return found, ", ".join(filter(None, (about["model"], about["mode"], where)))


def _pairs(file: sqlite3.Connection, recipe: int, other: Mapping[bytes | None, float], against: str) -> Any:
    """Over contents, so that copies of an image count once."""
    first = {one.sha256: one.row["score"] for one in stored(file, recipe) if one.sha256 in other and "score" in one.row}
    try:
        return paired(list(first.values()), [other[sha256] for sha256 in first])
    except ValueError as error:
        raise StoreError(f"--against {against}: {error}; they are paired by content") from error


def _answers(path: str | os.PathLike[str]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    if not os.path.isfile(path):
        raise ValueError(f"{os.fspath(path)}: no such file; qsit explain DIR --out FILE.jsonl makes one")
    for number, line in enumerate(read_rows(path), 1):
        try:
            row = json.loads(line)
            if "error" not in row:
                found.setdefault(os.path.abspath(row["path"]), []).append((str(row["question"]), str(row["text"])))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{os.fspath(path)}, line {number}: not a row of qsit explain or qsit ask") from error
    return found


def _row(
    one: Stored, base: str, made: Mapping[str, str], other: Mapping[bytes | None, float], said: Mapping[str, Any]
) -> list[Any]:
    """As page.js reads it: name, score, level, probabilities, spread, width, height, score of the second run,
    thumbnail, answers, and whether the name leads to the file."""
    row, second = one.row, other.get(one.sha256)
    shares = [round(row["probabilities"][level], 3) for level in LEVELS]
    return [
        _name(one.path, base), round(row["score"], 5), LEVELS.index(row["level"]), shares,
        round(row["std"], 4), row["width"], row["height"], None if second is None else round(second, 5),
        made.get(one.path, ""), said.get(one.path, []), shard_of(one.path) is None and "://" not in one.path,
    ]  # fmt: skip


def _base(images: list[Stored]) -> str:
    """The folder that all images lie in, empty where they lie on several drives or at addresses."""
    if any("://" in one.path for one in images):
        return ""
    try:
        return os.path.commonpath([os.path.dirname(one.path) for one in images])
    except ValueError:
        return ""


def _name(path: str, base: str) -> str:
    return Path(os.path.relpath(path, base)).as_posix() if base and below(path, [base]) else path


def _link(base: str, out: str | os.PathLike[str]) -> str:
    """Address of the images' folder, empty without one: relative to the page, so that both can be moved together."""
    try:
        way = os.path.relpath(base, os.path.dirname(os.path.abspath(out))) if base else ""
    except ValueError:  # another drive
        return Path(base).as_uri() + "/"
    return quote(os.fsencode(Path(way).as_posix())) + "/" if way else ""


def _page(page: Mapping[str, Any], rows: Iterator[list[Any]]) -> Iterator[str]:
    files = resources.files("qsit_plugin.bulk") / "page"
    frame, style, script = ((files / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js"))
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    fixed = {"policy": policy, "title": html.escape(f"{page['name']}: image quality"), "style": style, "script": script}
    head, tail = frame.split("{{rows}}")
    yield _filled(head, fixed | {"page": _json(page)})
    for number, row in enumerate(rows):
        yield (",\n" if number else "") + _json(row)
    yield _filled(tail, fixed)


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Each mark is replaced once and what takes its place is not looked at again, as a file's name may hold a mark."""
    pieces = text.split("{{")
    for at, piece in enumerate(pieces[1:], 1):
        name, _, rest = piece.partition("}}")
        pieces[at] = values[name] + rest
    return "".join(pieces)


def _json(value: Any) -> str:
    """For a script element, which ``</script`` would end and ``<!--`` would change."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
