"""Scoring on the machines of a Ray cluster: Ray Data hands units of work to workers, each with a ``Scorer`` of its own.

What goes through Ray is names and counts: a worker reads its images and writes its part of the table itself. So images
and table lie where all nodes see them under the same path. A worker that dies takes no row with it: Ray starts another,
and its unit is done again.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qsit_plugin.errors import QSiTError
from qsit_plugin.row_file import RowFile, read_rows

from .scorer import Scorer
from .work_units import Item, UnseenError, part_name, write_part

BLOCKS = 10_000
"""Pieces in which Ray gets the units, at most: each costs its scheduler a task."""

RUN_FILE = "_run"
"""Locked while a run writes the folder. Its word is the run's: a worker that reads another one, or none, has another
folder of that name."""


class ClusterError(QSiTError):
    """Nobody answers at the address, Ray refuses the work, or the workers cannot do it."""


@dataclass(frozen=True)
class Workers:
    """How many workers, from ``least`` to ``most`` (None: as many as fit, and as the cluster's autoscaler adds), and
    what each takes of its node: processor cores, and GPUs or a share of one."""

    least: int = 1
    most: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass
class Done:
    """Rows of the table so far, how many of them are errors, and units of work."""

    rows: int = 0
    failed: int = 0
    units: int = 0
    of: int = 0


class _Worker:
    """What an actor holds: nothing. The model is the process's, see ``Scorer``."""

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        tasks = map(pickle.loads, batch.column("task").to_pylist())
        return {"result": [_attempt(_work, *task) for task in tasks]}


def _attempt(work: Callable[..., dict[str, Any]], *given: Any) -> bytes:
    """The result, pickled; also an error of this package, of which Ray would leave only the text of a traceback."""
    try:
        return pickle.dumps(work(*given))
    except Exception as error:
        known = isinstance(error, QSiTError | ModuleNotFoundError)
        said = error if known else ClusterError(f"a worker failed: {type(error).__name__}: {_first_line(error)}")
        return pickle.dumps({"raised": said})


def _result(pickled: bytes) -> dict[str, Any]:
    """What ``_attempt`` was given to do. Raises what was raised there."""
    result = pickle.loads(pickled)
    if "raised" in result:
        raise result["raised"]
    return result


def _work(task: _Task, part: str, unit: list[Item]) -> dict[str, Any]:
    """One unit on a worker; refused under another recipe than the first worker's, or scores would mix."""
    folder = _seen(task.folder, task.run)
    if not (folder / part).exists() and (own := _recipe(task.scorer)) != task.recipe:
        differing = [name for name in own if own[name] != task.recipe[name]]
        here, there = ({name: found[name] for name in differing} for found in (own, task.recipe))
        raise ClusterError(
            f"the worker on {socket.gethostname()} scores with {here}, the first one with {there}: give the same "
            "versions and the same checkpoint to all machines, and --engine, --device and --dtype"
        )
    return {"part": part, "worker": (socket.gethostname(), os.getpid())} | write_part(
        folder, part, unit, task.scorer, recursive=task.recursive
    )


@dataclass(frozen=True)
class _Task:
    """What all units of a run have in common."""

    scorer: Scorer
    recipe: dict[str, Any]
    folder: str
    run: str
    recursive: bool


def _seen(folder: str, run: str) -> Path:
    if read_rows(Path(folder, RUN_FILE)) != [run]:
        raise UnseenError(
            f"{folder} of this run is not there for a worker on {socket.gethostname()}: images and the table must lie "
            "on storage that every node mounts under the same path"
        )
    return Path(folder)


def _recipe(scorer: Scorer) -> dict[str, Any]:
    from .recipe import recipe

    return recipe(scorer.model, scorer.settings.get("profile"))


def _probe(scorer: Scorer, folder: str, run: str) -> dict[str, Any]:
    _seen(folder, run)
    return _recipe(scorer)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Ray, started for this block on this machine alone (``"local"``), or an existing cluster (``ray://HOST:10001``,
    ``HOST:6379``, or ``auto``, the one that this machine belongs to).

    Ray's usage statistics are switched off for what is started here, and what is started for ``local`` takes this
    machine's loopback address; a cluster's own statistics are its operator's to switch off. Both are settings of this
    process's environment.

    Raises ClusterError where nobody answers, ModuleNotFoundError without Ray, with the command that installs it.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray starts: before the import, and whatever was set
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # lines of Ray's own on stderr, of what it cures itself
    if address == "local":  # Ray's switch for loopback addresses; else it takes the network's, and listens on all
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ModuleNotFoundError(
            "--engine-on needs Ray, which is not installed: pip install 'qsit-plugin[ray]'", name="ray"
        ) from error
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options["include_dashboard"] = False
    elif address != "auto":
        _knock(address)
    began = not ray.is_initialized()
    try:
        if began:
            ray.init(address=address, **options)
    except Exception as error:  # Ray raises plain ones too, as where its processes take more than 30 s to start
        said = "Ray does not start" if address == "local" else f"no Ray cluster at {address}"
        cure = "" if address == "local" else "; one that wants a token reads it from RAY_AUTH_TOKEN"
        raise ClusterError(f"{said}: {_first_line(error)}{cure}") from error
    try:
        yield
    finally:
        if began:
            ray.shutdown()


def _knock(address: str) -> None:
    """Ray's client tries for half a minute and says little; a closed port is known at once."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        port, host = place.port, place.hostname
    except ValueError:
        port = host = None
    if place.scheme != "ray" or not host or not port:
        raise ClusterError(f"no address of a Ray cluster: {address!r}; give local, auto, or ray://HOST:10001")
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError as error:
        raise ClusterError(
            f"nobody answers at {address} ({error.strerror or error}): start Ray there, or give local"
        ) from error


def score_on_ray(
    units: Iterable[list[Item]],
    scorer: Scorer,
    out: str | os.PathLike[str],
    *,
    address: str = "local",
    workers: Workers = Workers(),
    recursive: bool = True,
    on_start: Callable[[dict[str, Any]], None] = lambda recipe: None,
    on_unit: Callable[[Done, dict[str, Any]], None] = lambda done, result: None,
) -> Done:
    """Score units of work into a folder of Parquet files, each image once: the rows of ``qsit score``.

    The folder has its name when it is whole. Until then its files gather in ``OUT.partial``, from which the same call
    goes on; files of what is no longer to be scored, or of another recipe, are left out in the end.

    Args:
        scorer: its settings go to the workers; paths among them must be absolute.
        on_start: called with the recipe of the workers (see ``recipe.recipe``) before the first unit.
        on_unit: called after each unit with the counts so far and its result: ``rows``, ``errors`` (path and reason of
            each that failed), ``worker`` (host and process number).

    Raises:
        FileExistsError: ``out`` is there.
        FileBusy: another run writes it.
        ClusterError, UnseenError: the workers cannot do it; what is whole stays for the next call.
        ModuleNotFoundError: without Ray. Else what ``load`` raises on a worker.
    """
    table = Path(os.path.abspath(out))
    if os.path.lexists(table):
        raise FileExistsError(17, "is there already; name another", os.fspath(table))
    partial = table.with_name(table.name + ".partial")
    with connected(address):
        partial.mkdir(exist_ok=True)
        with RowFile(partial / RUN_FILE) as lock:
            run = secrets.token_hex(8)
            lock.write(run + "\n")
            lock.flush()
            with _in_words():
                recipe = _first_recipe(scorer, os.fspath(partial), run, workers)
                on_start(recipe)
                task = _Task(scorer, recipe, os.fspath(partial), run, recursive)
                done, parts = _run(task, units, workers, on_unit)
        _finish(partial, parts, table)
    return done


def _first_recipe(scorer: Scorer, folder: str, run: str, workers: Workers) -> dict[str, Any]:
    """The recipe as a worker has it. What would fail on all workers fails here, once."""
    import ray

    attempt = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(_attempt)
    return _result(ray.get(attempt.remote(_probe, scorer, folder, run)))


def _run(
    task: _Task, units: Iterable[list[Item]], workers: Workers, on_unit: Callable[[Done, dict[str, Any]], None]
) -> tuple[Done, set[str]]:
    named = {part_name(unit, task.recipe["key"]): unit for unit in units}  # one that was given twice, once
    done = Done(of=len(named))
    if not named:
        return done, set()
    for result in _results([pickle.dumps((task, part, unit)) for part, unit in named.items()], workers):
        done.rows += result["rows"]
        done.failed += len(result["errors"])
        done.units += 1
        on_unit(done, result)
    return done, set(named)


def _results(tasks: list[bytes], workers: Workers) -> Iterator[dict[str, Any]]:
    """What ``_work`` returns, as the units end. Through a client port (``ray://``) an actor on the cluster runs Ray
    Data, which cannot be run from outside; it ends with the connection."""
    import ray
    from ray.util.client import ray as client

    if client.is_connected():
        driver = ray.remote(num_cpus=0)(_Driver).remote(tasks, workers)
        found: Iterator[bytes] = iter(lambda: ray.get(driver.next.remote()), None)
    else:
        found = _mapped(tasks, workers)
    yield from map(_result, found)


class _Driver:
    """Ray Data's program on a node of the cluster."""

    def __init__(self, tasks: list[bytes], workers: Workers):
        self._results = _mapped(tasks, workers)

    def next(self) -> bytes | None:
        return next(self._results, None)


def _mapped(tasks: list[bytes], workers: Workers) -> Iterator[bytes]:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"task": task} for task in tasks]
    results = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS)).map_batches(
        _Worker,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=workers.least, max_size=workers.most),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    for row in results.iter_rows():
        yield row["result"]


def _finish(partial: Path, parts: set[str], table: Path) -> None:
    for file in partial.iterdir():
        if file.name not in parts:
            file.unlink()
    if os.path.lexists(table):
        raise FileExistsError(17, f"came to be during the run, whose files are in {partial}", os.fspath(table))
    partial.rename(table)


@contextmanager
def _in_words() -> Iterator[None]:
    """ClusterError for an error of Ray's own."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Ray cannot go on: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
