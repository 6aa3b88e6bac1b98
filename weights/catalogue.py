"""The catalogue of named checkpoints, and how a name, a path or a Hub id becomes a local folder."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from qsit_plugin.weights.download import cached_snapshot, snapshot
from qsit_plugin.weights.errors import WeightsError, first_line
from qsit_plugin.weights.folder import check_folder, weight_bytes

NANO = Path(__file__).resolve().parent / "nano"
"""The folder of the embedded checkpoint."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Entry:
    """One named checkpoint; ``repo`` is its Hub id, None for the one inside the package. ``size`` in bytes, about."""

    name: str
    description: str
    repo: str | None
    size: int | None = None


@dataclass(frozen=True)
class Status:
    """An entry and where it lies on this machine; ``folder`` is None when it is not here. ``size`` in bytes."""

    name: str
    description: str
    repo: str | None
    size: int | None
    folder: Path | None


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("qsit-nano", "embedded, human ratings of photos and synthetic distortions; needs no network", None),
        Entry("qsit-mini", "Q-SiT-mini (Qwen2-0.5B), human ratings", "zhangzicheng/q-sit-mini", 1_790_000_000),
        Entry("qsit", "Q-SiT (Qwen2-7B), human ratings", "zhangzicheng/q-sit", 16_100_000_000),
    )
}


def resolve(
    name: str | os.PathLike[str], *, revision: str | None = None, download: bool = True, refresh: bool = False
) -> Path:
    """The local folder of a checkpoint: a catalogue name, an existing folder, or a Hub id ``owner/name``.

    A complete copy in the Hub's cache (``HF_HOME``) is taken as it is, without asking the network; ``refresh`` asks
    for a newer one. ``HF_HUB_OFFLINE`` and ``download=False`` never fetch. A name is never replaced by another one.

    Raises:
        WeightsError: nothing found, nothing fetched, or a folder that cannot be trusted; says what to do.
    """
    entry = ENTRIES.get(name) if isinstance(name, str) else None
    if entry is not None and entry.repo is None:
        return _embedded(entry, revision)
    if entry is None and os.path.lexists(name):
        if revision is not None:
            raise WeightsError(f"revision={revision!r} was given for the folder {name}; only Hub checkpoints have one")
        return check_folder(Path(name))
    repo = entry.repo if entry is not None else os.fspath(name)
    if repo is None or isinstance(name, os.PathLike) or not _HUB_ID.fullmatch(repo):
        raise WeightsError(_unknown(os.fspath(name)))
    _check_hub_id(repo)
    if not refresh and (folder := cached_snapshot(repo, revision)) is not None:
        return folder
    return snapshot(repo, revision, download=download, asked_as=str(name))


def status(name: str) -> Status:
    """Where a catalogue entry lies on this machine; touches no network."""
    entry = ENTRIES.get(name)
    if entry is None:
        raise WeightsError(_unknown(name))
    folder = cached_snapshot(entry.repo) if entry.repo else (NANO if _is_complete(NANO) else None)
    size = weight_bytes(folder) if folder else entry.size
    return Status(entry.name, entry.description, entry.repo, size, folder)


def _embedded(entry: Entry, revision: str | None) -> Path:
    if revision is not None:
        raise WeightsError(f"{entry.name} comes with the package and has no revisions; leave revision out")
    try:
        return check_folder(NANO)
    except WeightsError as error:
        raise WeightsError(
            f"the embedded model {entry.name} is damaged or absent ({error}); reinstall: "
            "pip install --force-reinstall --no-deps qsit-plugin"
        ) from None


def _check_hub_id(repo: str) -> None:
    """The Hub's own rules (no "..", no "--", at most 96 characters), which huggingface_hub raises as ValueError."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise WeightsError(f"{repo!r} is no folder here and cannot be a Hub id: {first_line(error)}") from error


def _is_complete(folder: Path) -> bool:
    try:
        check_folder(folder)
    except WeightsError:
        return False
    return True


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), ENTRIES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"no checkpoint {name!r}: {hint}"
        f"Give one of {', '.join(ENTRIES)}, an existing folder, or a Hub id such as zhangzicheng/q-sit-mini"
    )
