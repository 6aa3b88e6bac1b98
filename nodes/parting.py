"""Images of a folder, copied or moved into passed/ and failed/ below the output folder, and moved back.

A manifest beside them says every step before the first one is done (qsit_plugin/bulk/manifest.py), so that a run that
was cancelled can be taken back too. Nothing is overwritten, nothing leaves the input folder, and what this node takes
back are moves: it deletes no copies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qsit_plugin.nodes.beside import companions
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.row_file import why

if TYPE_CHECKING:  # else within functions, not at ComfyUI's start: bulk brings sqlite and much more
    from qsit_plugin.bulk.file_steps import Step

LEAVE, COPY, MOVE, UNDO = "leave them", "copy", "move", "undo the last move"
ACTIONS = (LEAVE, COPY, MOVE, UNDO)
SHOWN = 3
"""Files that were left, as the report names them."""


def check_action(action: str, source: str) -> None:
    """Raise InputError for an unknown action, and for a move out of the input folder."""
    if action not in ACTIONS:
        raise InputError(f"passed_and_failed must be one of {', '.join(ACTIONS)}, got {action!r}")
    if action == MOVE and source != "output":
        raise InputError(f"choose '{COPY}' for passed_and_failed: nothing is moved out of the {source} folder")


def part(images: Sequence[tuple[Path, bool]], root: Path, place: Path, do: str, each: Callable[[], None]) -> list[str]:
    """Copy or move images, each with whether it passed, into ``place``/passed and ``place``/failed.

    They keep their place below ``root``, and their small files (words, sidecars) go with them. ``each`` is called after
    every step; what it raises ends the work, which the manifest can take back.

    Returns: lines that say what was done. Raises InputError where nothing can be written.
    """
    from qsit_plugin.bulk.manifest import ManifestError, carry_out, check, plan

    within = [root, place]
    todo: list[Step] = []
    left: list[str] = []
    try:
        for step, problem in check(_steps(images, root, place, do), within):
            if problem is None:
                todo.append(step)
            else:
                left.append(problem)
        count = {True: sum(passed for _, passed in images), False: sum(not passed for _, passed in images)}
        lines = [f"{count[True]} passed, {count[False]} failed"]
        if todo:
            place.mkdir(parents=True, exist_ok=True)
            manifest = _next_manifest(place)
            plan(manifest, todo, within=within)
            done = 0
            for _, is_done, error in _watched(carry_out(manifest, within=within), each):
                done += is_done
                left += [error] if error is not None else []
            lines.append(
                f"{done} files {'moved' if do == MOVE else 'copied'} into {place.name}/; {manifest.name} says which"
            )
    except ManifestError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"cannot {do} into {place.name}: {why(error)}") from error
    return lines + _left(left)


def move_back(place: Path, output: Path, each: Callable[[], None]) -> list[str]:
    """Take back the newest manifest of ``place`` that still has moved files. Lines as ``part``; raises InputError."""
    from qsit_plugin.bulk.manifest import ManifestError, undo

    for manifest in reversed(_manifests(place)):
        if not _moves(manifest):
            continue
        try:
            outcomes = list(_watched(undo(manifest, within=[output]), each))
        except (ManifestError, OSError) as error:
            raise InputError(f"{manifest.name} cannot be taken back: {error}") from error
        done, left = sum(o.done for o in outcomes), [f"{o.step.target}: {o.error}" for o in outcomes if o.error]
        if done or left:
            return [f"{done} files moved back, by {manifest.name}", *_left(left)]
    return [f"nothing to move back: no manifest of a move in {place.name}/ has files left"]


def _steps(images: Iterable[tuple[Path, bool]], root: Path, place: Path, do: str) -> Iterator[Step]:
    from qsit_plugin.bulk.file_steps import file_step

    taken: set[Path] = set()
    for image, passed in images:
        for path in [image, *companions(image)]:
            if path not in taken:  # photo.png and photo.jpg have one photo.txt
                taken.add(path)
                yield file_step(do, path, place / ("passed" if passed else "failed") / path.relative_to(root))


def _watched(outcomes: Iterator, each: Callable[[], None]) -> Iterator:
    for outcome in outcomes:
        yield outcome
        each()


def _manifests(place: Path) -> list[Path]:
    return sorted(place.glob("manifest-*.jsonl"))


def _next_manifest(place: Path) -> Path:
    numbers = [int(path.stem[9:]) for path in _manifests(place) if path.stem[9:].isdigit()]
    return place / f"manifest-{max(numbers, default=0) + 1:04}.jsonl"


def _moves(manifest: Path) -> bool:
    """Whether a manifest is one of moves; False for what is none."""
    try:
        with manifest.open(encoding="ascii", errors="replace") as stream:
            rows = (json.loads(line) for line in stream)
            return next((row["do"] for row in rows if isinstance(row, dict) and "do" in row), None) == MOVE
    except (OSError, ValueError):
        return False


def _left(reasons: Sequence[str]) -> list[str]:
    more = [f"and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
    return [f"left: {reason}" for reason in reasons[:SHOWN]] + more
