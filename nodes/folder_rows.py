"""The table of a folder: which files are still to be scored or explained, and their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsit_plugin.images.reading import ImageError
from qsit_plugin.nodes.beside import words_path, write_beside
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.files import COLUMNS, EXPLAINED, append_rows, columns_of, rewrite, row, rows_in, state_of
from qsit_plugin.protocol import EXPLAIN

NOTHING, TXT, COLUMN = "no", ".txt beside the image", "column of the table"
WORDS = (NOTHING, TXT, COLUMN)
TOGETHER = 8
"""Images that are explained before their words are on the disk; a cancelled run loses no more."""
TOKENS = 200


@dataclass
class FolderTable:
    """The table of the images of a folder, as one model with certain weights sees them.

    ``about``: model and fingerprint, by which its rows are told from those of others. ``names``: path -> as the table
    names it.
    """

    table: Path
    about: Mapping[str, str]
    names: Mapping[Path, str]
    failures: list[str] = field(default_factory=list)

    def score(self, model: Any) -> list[str]:
        """Score what has no row yet, or one of another state of the file. Lines that say what was done."""
        files, names = list(self.names), self.names
        states = {path: state_of(path) for path in files}
        there = rows_in(self.table)
        done = {(r["path"], r.get("size"), r.get("mtime_ns")) for r in there if not r["error"] and self._is_ours(r)}
        todo = [path for path in files if (names[path], *map(str, states[path].values())) not in done]
        again = {names[path] for path in todo}
        left = [r for r in there if r["path"] not in again or not self._is_ours(r)]
        scored_before = sum(not r["error"] for r in there) - sum(not r["error"] for r in left)
        # One row a file and model: those that are scored again are taken out first.
        if len(left) < len(there) or (self.table.exists() and columns_of(self.table) not in (COLUMNS, EXPLAINED)):
            rewrite(self.table, left, self._columns())

        def rows() -> Iterator[dict[str, Any]]:
            for path, score in zip(todo, model.file_scores(todo), strict=True):
                if isinstance(score, ImageError):
                    self.failures.append(f"{names[path]}: {score.reason}")
                    yield {"path": names[path], **self.about, "error": score.reason, **states[path]}
                else:
                    yield row(names[path], score.to_dict()) | states[path]

        for _ in append_rows(self.table, rows()):
            pass
        self.n_scored = len(todo) - len(self.failures)
        lines = [
            f"{self.n_scored} scored, {len(self.failures)} failed, {len(files) - len(todo)} were in the table",
            *self.failures,
        ]
        if scored_before:
            lines.insert(
                1,
                f"{scored_before} of them scored again: the file changed, or its row did not say of which state it is",
            )
        return lines

    def rows(self) -> dict[Path, dict[str, str]]:
        """The row of every image that has a score, in the order of the files."""
        found = {r["path"]: r for r in rows_in(self.table) if not r["error"] and self._is_ours(r)}
        return {path: found[name] for path, name in self.names.items() if name in found}

    def explain(self, model: Any, how: str) -> list[str]:
        """Put what has no words yet into words: a .txt that is there, or a cell that is filled, stays as it is."""
        rows = self.rows()
        todo = [path for path, r in rows.items() if not (words_path(path).exists() if how == TXT else _words(r))]
        bar = model.progress(len(todo)) if todo else None
        written = 0
        for first in range(0, len(todo), TOGETHER):
            paths = todo[first : first + TOGETHER]
            texts = [answer.text for answer in model.answers(paths, EXPLAIN, bar=bar, max_new_tokens=TOKENS)]
            if how == TXT:
                written += sum(write_beside(words_path(p), t + "\n") for p, t in zip(paths, texts, strict=True))
            else:
                self._fill({self.names[path]: text for path, text in zip(paths, texts, strict=True)})
                written += len(texts)
        kept = f", {len(rows) - written} had words already" if len(rows) > written else ""
        return [f"{written} put in words{kept}"]

    def _fill(self, texts: Mapping[str, str]) -> None:
        rows = [r | {"explanation": texts[r["path"]]} if self._gets(r, texts) else r for r in rows_in(self.table)]
        rewrite(self.table, rows, EXPLAINED)

    def _gets(self, r: Mapping[str, str], texts: Mapping[str, str]) -> bool:
        return r["path"] in texts and not r["error"] and self._is_ours(r)

    def _is_ours(self, r: Mapping[str, str]) -> bool:
        return self.about.items() <= r.items()

    def _columns(self) -> Sequence[str]:
        return EXPLAINED if columns_of(self.table) == EXPLAINED else COLUMNS


def _words(r: Mapping[str, str]) -> str:
    return (r.get("explanation") or "").strip()


def check_words(how: str) -> None:
    if how not in WORDS:
        raise InputError(f"explain must be one of {', '.join(WORDS)}, got {how!r}")
