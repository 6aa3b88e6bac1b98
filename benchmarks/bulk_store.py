"""What the store of ``qsit score --out FILE.sqlite`` costs: rows, memory, share beside nano, and a second run.

    python benchmarks/bulk_store.py rows                                # a million rows, scoring replaced by a stub
    python benchmarks/bulk_store.py nano --photos FOLDER                # 20,000 thumbnails, with the embedded model
    python benchmarks/bulk_store.py again --photos FOLDER               # a second run over 10,000 scored files

``rows`` makes its images in memory, thumbnails with new names and new pixels each, since a million files would measure
the file system. They go through everything but the model: known or not, hash, rows, commits, WAL. ``nano`` cuts its
thumbnails (JPEG, 256 x 192) out of the photos of a folder and runs the command on them, twice; and once more with the
stub in the model's place, which is what reading, hashing and rows cost. ``again`` times the command on files whose
scores are in the store, put there by the stub under nano's recipe. ``--images`` and ``--rows`` try it with fewer.
Processor time counts all threads; wall time means something only where nothing else runs. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = (256, 192)
SMALL = (96, 64)
ABOUT = {
    "key": "0" * 16, "model": "stub", "fingerprint": "0" * 12, "engine": "none", "dtype": "float32",
    "profile": "training", "mode": "", "scope": "nothing", "scope_kind": "other",
}  # fmt: skip
RECORD = {
    "score": 0.5, "level": "fair", "std": 0.1, "level_mass": 1.0, "width": 1, "height": 1, "dtype": "float32",
    "probabilities": dict.fromkeys(("excellent", "good", "fair", "poor", "bad"), 0.2), "engine": "none",
    "mode": "released",
}  # fmt: skip


class Stub:
    """``iter_records`` as ``Scorer`` has it, without looking at the images."""

    def iter_records(self, images: Iterable[Any]) -> Iterator[dict[str, Any]]:
        for image in images:
            image.read()
            yield RECORD


def memory(what: str) -> float:
    """MiB of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]


def pictures() -> list[bytes]:
    """Photos that come with the package, small and as PPM, whose pixels can be changed without packing them anew."""
    import qsit_plugin

    found = []
    for path in sorted((Path(qsit_plugin.__file__).parent / "demo").glob("*.jpg")):
        small = Image.open(path).convert("RGB").resize(SMALL)
        found.append(b"P6\n%d %d\n255\n" % SMALL + small.tobytes())
    return found


def made(count: int) -> Iterator[Any]:
    """So many sources: new names, new pixels."""
    from qsit_plugin.bulk.inputs.source import Source

    base = pictures()

    def content(number: int) -> bytes:
        whole = bytearray(base[number % len(base)])
        whole[-8:] = number.to_bytes(8, "big")
        return bytes(whole)

    for number in range(count):
        path = f"/photos/{number // 1000:05}/IMG_{number:08}.ppm"
        yield Source(path, len(base[0]), 1_700_000_000_000_000_000 + number, partial(content, number))


def rows(args: argparse.Namespace) -> None:
    """The bookkeeping of a million images, and of a second run over them."""
    from qsit_plugin.bulk.scoring import Counts, score_into
    from qsit_plugin.bulk.store import Store

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    before = memory("VmRSS")
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        store = os.path.join(folder, "s.sqlite")

        def on_image(counts: Counts, path: str, error: str | None) -> None:
            if counts.done % (args.rows // 10) == 0:
                print(f"{counts.done:12,} rows: {memory('VmRSS') - before:6.1f} MiB more than before the first")

        for run in ("first", "second"):
            wall, processor = time.perf_counter(), time.process_time()
            with Store(store, ABOUT) as opened:
                counts = score_into(opened, Stub(), made(args.rows), on_image=on_image)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            print(
                f"{run} run: {counts.scored:,} scored, {counts.known:,} known; {wall:.0f} s, "
                f"processor {processor:.0f} s, that is {processor / args.rows * 1000:.3f} ms a row; peak "
                f"{memory('VmHWM') - before:.1f} MiB more than before; store {os.path.getsize(store) / 2**20:.0f} MiB"
            )


def thumbnails(photos: Path, folder: Path, count: int) -> None:
    """Windows of the photos at several sizes, reduced, as JPEG; 500 a folder."""
    folder.mkdir()
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    rng = np.random.default_rng(0)
    each = -(-count // len(paths))
    for number, path in enumerate(paths):
        whole = Image.open(path).convert("RGB")
        for place in range(number * each, min(count, (number + 1) * each)):
            width = int(min(whole.width, whole.height * 4 / 3) * rng.uniform(0.4, 1.0))
            height = width * 3 // 4
            left, top = rng.integers(0, whole.width - width + 1), rng.integers(0, whole.height - height + 1)
            target = folder / f"{place // 500:04}" / f"{place:06}.jpg"
            target.parent.mkdir(exist_ok=True)
            whole.crop((left, top, left + width, top + height)).resize(SIDE).save(
                target, quality=int(rng.integers(40, 95))
            )


def child(*arguments: str) -> tuple[float, float, float]:
    """Wall and processor seconds of ``python ...``, and its peak in MiB. What it says on stderr is shown."""
    begun = time.perf_counter()
    command = [sys.executable, *arguments]
    number = os.posix_spawn(sys.executable, command, os.environ)
    _, status, used = os.wait4(number, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


SCORE = ("-m", "qsit_plugin.cli", "score")


def stub(args: argparse.Namespace) -> None:
    """A folder into a store with the stub in the model's place; ``of_nano``: as if the scores were nano's."""
    import qsit_plugin
    from qsit_plugin.bulk.inputs.sources import sources
    from qsit_plugin.bulk.recipe import recipe
    from qsit_plugin.bulk.scoring import score_into
    from qsit_plugin.bulk.store import Store

    with Store(args.store, recipe(qsit_plugin.load("qsit-nano")) if args.of_nano else ABOUT) as store:
        score_into(store, Stub(), sources([args.folder]))


def nano(args: argparse.Namespace) -> None:
    """The command itself, and what of its processor time is not the model's."""
    with tempfile.TemporaryDirectory(dir=args.work) as place:
        folder, store, other = (os.path.join(place, name) for name in ("thumbnails", "s.sqlite", "stub.sqlite"))
        thumbnails(args.photos, Path(folder), args.images)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.jpg")) / args.images / 1000
        print(f"{args.images:,} thumbnails of {SIDE[0]}x{SIDE[1]}, {size:.0f} kB each, JPEG", flush=True)
        first, again = (child(*SCORE, folder, "--out", store) for _ in range(2))
        Path(place, "none").mkdir()
        nothing, bare = (child(__file__, "stub", other, one) for one in (os.path.join(place, "none"), folder))
        print(f"with nano: {first[0]:.0f} s, processor {first[1]:.0f} s, peak {first[2]:.0f} MiB")
        print(f"again: {again[0]:.1f} s, processor {again[1]:.1f} s, peak {again[2]:.0f} MiB")
        own = bare[1] - nothing[1]
        print(f"with a stub for the model: processor {own:.1f} s for reading, hashing and rows, {own / first[1]:.2%}")


def again(args: argparse.Namespace) -> None:
    """The command on files whose scores are there."""
    with tempfile.TemporaryDirectory(dir=args.work) as place:
        folder, store = os.path.join(place, "thumbnails"), os.path.join(place, "s.sqlite")
        thumbnails(args.photos, Path(folder), args.images)
        child(__file__, "stub", store, folder, "--of-nano")
        wall, processor, peak = child(*SCORE, folder, "--out", store)
        print(f"again, {args.images:,} files: {wall:.1f} s, processor {processor:.1f} s, peak {peak:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", help="folder for what is made, which is removed at the end; by default the system's")
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("rows")
    part.add_argument("--rows", type=int, default=1_000_000)
    part.set_defaults(run=rows)
    part = parts.add_parser("nano")
    part.add_argument("--photos", type=Path, required=True, help="folder of photos of at least 512 pixels a side")
    part.add_argument("--images", type=int, default=20_000)
    part.set_defaults(run=nano)
    part = parts.add_parser("again")
    part.add_argument("--photos", type=Path, required=True, help="as for nano")
    part.add_argument("--images", type=int, default=10_000)
    part.set_defaults(run=again)
    part = parts.add_parser("stub", description="What the others start in a process of its own.")
    part.add_argument("store")
    part.add_argument("folder")
    part.add_argument("--of-nano", action="store_true")
    part.set_defaults(run=stub)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
