"""The score log of a long run, written as scores come, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qsit_plugin.errors import QSiTError
from qsit_plugin.row_file import FileBusy, RowFile, read_rows


class JournalError(QSiTError, ValueError):
    """A score log of another run, or one that cannot be read; the message says what to do."""


class Journal:
    """JSON lines: what the run is about, then for every metric its fingerprint and one line an image.

    ``{"dataset": …}``, ``{"metric": NAME, "fingerprint": {…}}``, ``{"metric": NAME, "image": …, "score": …}`` or
    ``… "error": …``. Each line is flushed at once. A last line that was cut off is dropped on opening; a score is never
    asked for twice unless its image changed since, an error is tried again. With a score stand ``size`` and
    ``mtime_ns`` of the image's file, as they were before it was read.

    Args:
        dataset: what the scores depend on besides the metric: dataset, ratings, image folder.

    Raises JournalError where the file was written for something else, or another run writes it. A row that the disk has
    no room for is a ``CutShort``.
    """

    def __init__(self, path: str | Path, dataset: dict[str, Any]):
        self.path = Path(path)
        self.fingerprints: dict[str, dict[str, Any]] = {}
        self.entries: dict[str, dict[str, dict[str, Any]]] = {}
        """metric -> image -> its line."""
        try:
            self._stream = RowFile(self.path, append=True)  # drops a line that was cut off
        except FileBusy as error:
            raise JournalError(f"{error}, by --out") from error
        try:
            held = self._read()
            if held is not None:
                self._compare("the dataset", held, dataset)
            else:
                self._append({"dataset": dataset})
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def begin(self, metric: str, fingerprint: dict[str, Any]) -> None:
        """Start or resume a metric. Raises JournalError where its fingerprint differs from the last run's."""
        if metric in self.fingerprints:
            self._compare(metric, self.fingerprints[metric], fingerprint)
        else:
            self.fingerprints[metric] = fingerprint
            self._append({"metric": metric, "fingerprint": fingerprint})

    def done(self, metric: str) -> set[str]:
        """The images that have a score."""
        return {image for image, entry in self.entries.get(metric, {}).items() if "score" in entry}

    def write(self, metric: str, image: str, outcome: dict[str, Any]) -> None:
        """Keep a ``{"score": float, …}`` or ``{"error": str}``."""
        self.entries.setdefault(metric, {})[image] = outcome
        self._append({"metric": metric, "image": image, **outcome})

    def _append(self, line: dict[str, Any]) -> None:
        self._stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()

    def _read(self) -> dict[str, Any] | None:
        """Load the rows of the file; returns its dataset, or None for a new file."""
        dataset, rows = None, read_rows(self.path)
        for number, text in enumerate(rows, 1):
            try:
                line = json.loads(text)
                if "dataset" in line:
                    dataset = line["dataset"]
                elif "image" in line:  # whose fingerprint, where it has one, is that of the weights alone
                    self.entries.setdefault(line.pop("metric"), {})[line.pop("image")] = line
                else:
                    self.fingerprints[line["metric"]] = line["fingerprint"]
            except (ValueError, KeyError, TypeError):
                raise JournalError(f"{self.path}, line {number} is not a line of a run: {self._cure()}") from None
        if dataset is None and rows:
            raise JournalError(f"{self.path} does not say which dataset its scores belong to: {self._cure()}")
        return dataset

    def _compare(self, what: str, held: dict[str, Any], wanted: dict[str, Any]) -> None:
        changed = [key for key in {**held, **wanted} if held.get(key) != wanted.get(key)]
        if changed:
            key = changed[0]
            raise JournalError(
                f"{self.path} holds scores of an earlier run in which {what} differed: {key} was {held.get(key)}, is "
                f"{wanted.get(key)}; {self._cure()}"
            )

    def _cure(self) -> str:
        return "delete the file to start again, or give --out another name"
