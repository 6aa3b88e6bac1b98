"""``qsit score --resume``: go on in a csv or jsonl file that an earlier run began."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple

import typer

from qsit_plugin.row_file import FileBusy, locked, why
from qsit_plugin.scores import COLUMNS

from .failures import WRONG_USAGE, note, stop

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

Resume = Annotated[
    bool,
    typer.Option("--resume", help="With --out FILE.csv or .jsonl: keep the scores that are there and add the others."),
]

ANEW = "give another --out, or leave out --resume to start the file anew"
KINDS = {"jsonl": b'{"path": ', "csv": ",".join(COLUMNS).encode() + b"\n"}
"""The formats that can be resumed, and how such files begin."""


class Recipe(NamedTuple):
    """What the scores of one run have in common, as rows say it; ``variants``: dtype and mode of the model, and of the
    second pass in bfloat16 that float16 has for single images."""

    fingerprint: str
    engine: str
    profile: str
    variants: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, model: QSiT, profile: str) -> Recipe:
        from qsit_plugin.engines.finite import OVERFLOWED

        variants = [(model.engine.dtype_name, model.mode(model.engine))]
        if model.engine.dtype_name == "float16":
            variants.append(("bfloat16", ", ".join([*model.departures(), OVERFLOWED])))
        return cls(model.fingerprint, model.engine.name, profile, tuple(variants))

    def made(self, row: dict[str, Any]) -> bool:
        """Whether a row with a score is of this recipe."""
        rest = (row.get("fingerprint"), row.get("engine"), row.get("profile"))
        return rest == self[:3] and (row.get("dtype"), row.get("mode")) in self.variants

    def __str__(self) -> str:
        return _words(self.fingerprint, self.engine, *self.variants[0], self.profile)


def check(out: str | None, kind: str) -> None:
    """End with status 2 where there is nothing to resume in this format. A store always resumes."""
    if kind == "sqlite":
        return
    if out is None or kind not in KINDS:
        stop("--resume goes with --out FILE.csv or FILE.jsonl", WRONG_USAGE)
    if os.path.exists(out) and not os.path.isfile(out):
        stop(f"--resume: {out} is no file; give one of csv or jsonl", WRONG_USAGE)


def go_on(out: str, kind: str, recipe: Recipe | None, items: Sequence[Any]) -> tuple[list[Any], int]:
    """What has no score in the file of what ``inputs.read`` gave, and the bytes of the file, to be written behind.

    An image that is given twice has two rows. Rows of errors, which are tried again as in a store, and a row that was
    cut off are taken out of the file: whoever is killed in between leaves the old one or the new one.

    Ends with status 2, and leaves the file as it is, where it holds something else than rows of ``qsit score``, or
    scores of another recipe (None: of any, since none will be added), or where another run writes it.
    """
    if not os.path.isfile(out):
        return list(items), 0
    target = Path(os.path.realpath(out))
    try:
        with locked(target):
            done, whole = _done(target, kind, out, recipe)
            fresh = None if whole else _without(target, kind, out)
        if fresh is not None:
            fresh.replace(target)
    except FileBusy as error:
        stop(str(error), WRONG_USAGE)
    except OSError as error:
        stop(f"cannot go on with {out}: {why(error)}; it is as it was", WRONG_USAGE)
    left = []
    for item in items:
        path = _as_written(str(item))
        if isinstance(item, Path) and done[path]:
            done[path] -= 1
        else:
            left.append(item)
    note(f"{out}: {len(items) - len(left)} of {len(items)} images are scored already")
    return left, target.stat().st_size


def _done(target: Path, kind: str, out: str, recipe: Recipe | None) -> tuple[Counter[str], bool]:
    """The images that have a score, by path as written, each as often as it has a row; and whether all rows stay."""
    done: Counter[str] = Counter()
    whole = True
    for record, row in _rows(target, kind, out):
        if row is not None:
            if recipe is not None and not recipe.made(row):
                stop(f"{out} holds scores of {_made_by(row)}; this run makes those of {recipe}: {ANEW}", WRONG_USAGE)
            done[_as_written(row["path"])] += 1
        whole = whole and _stays(record, row, kind)
    return done, whole


def _without(target: Path, kind: str, out: str) -> Path:
    """What stays of a file, in another one beside it. Windows replaces no file that is open, so not here."""
    fresh = target.with_name(f"{target.stem}.{os.getpid()}.new{target.suffix}")
    try:
        with open(fresh, "wb") as file:
            file.writelines(record for record, row in _rows(target, kind, out) if _stays(record, row, kind))
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(target, fresh)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return fresh


def _stays(record: bytes, row: dict[str, Any] | None, kind: str) -> bool:
    return row is not None or (kind == "csv" and record == KINDS["csv"])


def _rows(path: Path, kind: str, out: str) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each record as it stands in the file, with its row where it is one with a score: not the header of a csv, an
    error, and what was cut off. Ends with status 2 for what is no row of ``qsit score``."""
    beginning = KINDS[kind]
    with open(path, "rb") as file:
        for number, (record, whole) in enumerate(_records(file, kind), 1):
            if number == 1 and record[: len(beginning)] != beginning[: len(record)]:
                stop(f"{out} does not begin as {kind} of this qsit score: {ANEW}", WRONG_USAGE)
            if not whole or (kind == "csv" and number == 1):
                yield record, None
                continue
            try:
                row = json.loads(record) if kind == "jsonl" else _cells(record)
                yield record, None if row.get("error") else {**row, "path": row["path"], "score": float(row["score"])}
            except (ValueError, KeyError, TypeError, AttributeError):
                stop(f"{out}: row {number} is none of qsit score: {ANEW}", WRONG_USAGE)


def _records(file: BinaryIO, kind: str) -> Iterator[tuple[bytes, bool]]:
    """Lines; of a csv up to the line end that stands in no quotes, since names may hold one. And whether each is whole:
    a kill, a full disk or a failing power supply may have cut off the last one."""
    lines: list[bytes] = []
    quoted = False
    for line in file:
        lines.append(line)
        quoted ^= kind == "csv" and line.count(b'"') % 2 == 1
        if line.endswith(b"\n") and not quoted:
            yield b"".join(lines), True
            lines = []
    if lines:
        yield b"".join(lines), False


def _cells(record: bytes) -> dict[str, str]:
    (cells,) = csv.reader([record.decode("utf-8")], strict=True)
    return dict(zip(COLUMNS, cells, strict=True))


def _as_written(path: str) -> str:
    """Without what is no UTF-8, which csv cannot tell from the backslashes in whose place it stands."""
    return path.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _made_by(row: dict[str, Any]) -> str:
    return _words(*(row.get(name) for name in ("fingerprint", "engine", "dtype", "mode", "profile")))


def _words(fingerprint: Any, engine: Any, dtype: Any, mode: Any, profile: Any) -> str:
    return f"the weights {fingerprint} on {engine}, {dtype}, {mode}, profile {profile}"
