"""What one image costs in bulk scoring, by its parts: read and decode, cut into tiles, score, write a row of Parquet.

    OMP_NUM_THREADS=1 python benchmarks/bulk_parts.py
    OMP_NUM_THREADS=1 python benchmarks/bulk_parts.py --model qsit-mini --device cuda --sizes 1024x768

The packaged photo is enlarged to each size and saved as JPEG; the parts of one size take turns, and the middle of the
rounds counts. On a CPU it is processor time of the whole process, in which other programs on the machine do not count;
elsewhere the clock. The file comes from memory: what a disk or a network adds is not in it. docs/scale.md reckons with
these numbers.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from PIL import Image

import qsit_plugin
from qsit_plugin.bulk import Scorer
from qsit_plugin.bulk.work_units import units, write_part
from qsit_plugin.engines.batches import open_item
from qsit_plugin.images.reading import read_image

PHOTO = Path(qsit_plugin.__file__).parent / "demo" / "astronaut.jpg"
ROWS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=["256x192", "512x384", "1024x768", "4032x3024"])
    parser.add_argument("--model", default="qsit-nano")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    clock = time.process_time if given.device == "cpu" else time.perf_counter
    begun = clock()
    scorer = Scorer(given.model, engine=given.engine, device=given.device)
    model = scorer.model
    loading = clock() - begun
    measure = "processor time" if given.device == "cpu" else "clock"
    print(f"{date.today()}, {platform.machine()}, OMP_NUM_THREADS={os.getenv('OMP_NUM_THREADS')}, {measure}")
    print(f"{model.name} ({model.engine.name}, {model.engine.dtype_name}), loaded in {loading:.2f} s\n")
    print("| JPEG | kB | decode ms | cut ms | score ms | all ms | decode and cut / all |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for size in given.sizes:
        content = jpeg(*map(int, size.split("x")))
        decode, cut, score = parts(model, scorer, content, given.rounds, clock)
        whole = decode + cut + score
        cells = [f"{1000 * part:.1f}" for part in (decode, cut, score, whole)]
        print(f"| {size} | {len(content) / 1000:.0f} | {' | '.join(cells)} | {(decode + cut) / whole:.2f} |")
    writing, listing, size = bookkeeping(scorer)
    print(f"\nwrite a row {1e6 * writing:.0f} µs, {size:.0f} bytes; list a file {1e6 * listing:.0f} µs")


def jpeg(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    with Image.open(PHOTO) as photo:
        photo.resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def parts(model: Any, scorer: Scorer, content: bytes, rounds: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of decoding, of cutting into tiles, and of the rest, each the median of the rounds."""
    prompt = model.prompt(model.profile.question, model.profile.answer_prefix)
    picture = read_image(io.BytesIO(content))
    work = (
        lambda: read_image(io.BytesIO(content)),
        lambda: open_item(model, prompt, picture),
        lambda: scorer.record(picture),
    )
    for one in work:
        one()
    seconds: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        for place, one in zip(seconds, work, strict=True):
            begun = clock()
            one()
            place.append(clock() - begun)
    decode, cut, rest = map(statistics.median, seconds)
    return [decode, cut, rest - cut]  # a record cuts as well


class Ready:
    """Gives one record with other numbers each time: what is left is the bookkeeping."""

    def __init__(self, record: dict[str, Any]):
        self.record, self.numbers = record, random.Random(0)

    def iter_records(self, images: Any) -> Any:
        names, chance = list(self.record["probabilities"]), self.numbers.random
        for _ in images:
            shares = {name: chance() for name in names}
            yield {**self.record, "score": chance(), "std": chance(), "level_mass": chance(), "probabilities": shares}


def bookkeeping(scorer: Scorer) -> tuple[float, float, float]:
    """Processor seconds of a row of a part (reading its small file included) and of a listed file; bytes of a row."""
    record = scorer.record(PHOTO)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "images")
        folder.mkdir()
        for number in range(ROWS):
            (folder / f"{number:06}.jpg").write_bytes(b"a small file")
        begun = time.process_time()
        found = list(units([str(folder)]))
        listing = (time.process_time() - begun) / ROWS
        begun = time.process_time()
        for at, unit in enumerate(found):
            write_part(Path(place), f"part-{at}.parquet", unit, Ready(record))
        writing = (time.process_time() - begun) / ROWS
        size = sum(path.stat().st_size for path in Path(place).glob("*.parquet")) / ROWS
    return writing, listing, size


if __name__ == "__main__":
    main()
