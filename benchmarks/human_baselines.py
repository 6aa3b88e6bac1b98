"""Baselines on human-rated photos, in one run of the harness of ``qsit bench accuracy``: what else orders these photos.

    python benchmarks/human_baselines.py --rated BIQ2021 --unseen LIVEC --work FOLDER --out benchmarks/results \\
        --teacher teacher.safetensors --checkpoint qsit-nano --checkpoint old=FOLDER

On the same photos: every no-reference metric of pyiqa that can be created with the network closed, BRISQUE with the
support vector machine that its package brings (``brisque`` and ``libsvm-official``; ``PYTHONPATH`` may lead to a folder
of ``pip install --no-deps --target``), linear probes (a ridge on the ratings of training photos) of EfficientNet-Lite0
with ImageNet's weights and of the distilled tower, the teacher, and any checkpoints of ours. What cannot run is listed
with its reason. BIQ2021 and LIVEC are folders with ratings.csv and their images. Scores are kept in FOLDER as they
come, so a run that was stopped goes on.

Figures are of the validation parts, of BIQ2021 by subset. The test parts are for the end of all choices, by
``--part test``; there figures without near twins stand beside the official ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # also where it is imported, as by a test

from pyiqa_worker import close_network, summary  # noqa: E402

import qsit_plugin  # noqa: E402
from qsit_plugin.evaluation.accuracy import open_journal, result_of, score_pairs, summarize, unscored  # noqa: E402
from qsit_plugin.evaluation.baselines import MetricError, open_metric  # noqa: E402
from qsit_plugin.evaluation.datasets.biq2021 import scene_of  # noqa: E402
from qsit_plugin.evaluation.datasets.published import DATASETS, Ratings  # noqa: E402
from qsit_plugin.evaluation.datasets.ratings import RatedImage  # noqa: E402
from qsit_plugin.evaluation.report import markdown  # noqa: E402
from qsit_plugin.evaluation.scorers import ModelScorer, Scorer  # noqa: E402
from qsit_plugin.row_file import write_whole  # noqa: E402
from qsit_plugin.training.nano.human import rated as databases  # noqa: E402
from qsit_plugin.training.nano.human.rated import Rated, read, read_and_cut  # noqa: E402
from qsit_plugin.training.nano.human.readout import (  # noqa: E402
    Describe,
    Ridge,
    describe_all,
    drawn,
    photo_of,
    teacher_description,
    tower_description,
)
from qsit_plugin.training.nano.human.teacher import read_teacher  # noqa: E402
from qsit_plugin.training.nano.tower import LEVELS, read_tower  # noqa: E402

TOWER = Path(databases.__file__).with_name("tower.safetensors")
UNTRAINED = "a photo of the training split"
"""What stands for the twins of a test photo: ratings.csv says that there is one, not which."""

Pair = tuple[RatedImage, Path]


@dataclass
class FunctionScorer:
    """A baseline that is a function of one photo's path."""

    name: str
    score: Callable[[Path], float]
    fingerprint: dict[str, Any]
    lower_is_better: bool = False

    @torch.inference_mode()
    def outcomes(self, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
        for path in paths:
            try:
                yield {"score": float(self.score(path))}
            except (OSError, ValueError) as error:  # one photo that cannot be scored is that photo's result
                yield {"error": f"{type(error).__name__}: {error}"}


def brisque() -> FunctionScorer:
    """BRISQUE as the package has it. Raises ImportError where it is missing."""
    import brisque as package

    class Brisque(package.BRISQUE):  # type: ignore[misc]
        def scale_features(self, features: Any) -> Any:
            # some of the 36 are arrays of one number, which numpy takes for a number no more since 2.4
            return super().scale_features([np.ravel(feature)[0] for feature in features])

    network, files = Brisque(url=False), sorted(Path(package.__file__).parent.glob("models/*.*"))

    def score(path: Path) -> float:
        with Image.open(path) as image:
            return float(network.score(np.asarray(image.convert("RGB"))))

    return FunctionScorer("brisque (package)", score, {"kind": "brisque", "files": digest_of(files)}, True)


def probe(name: str, describe: Describe, training: Sequence[Rated], cache: Path, about: str) -> FunctionScorer:
    """A ridge on the ratings of ``training``, of what ``describe`` says of a photo; that is kept in ``cache``."""
    ridge = Ridge(describe_all(training, describe, cache, bfloat16=False), np.array([photo.mos for photo in training]))
    names = hashlib.sha256("\n".join(photo.path.name for photo in training).encode()).hexdigest()
    fingerprint = {"kind": "probe", "of": about, "training": names, "alpha": ridge.alpha}
    return FunctionScorer(
        f"{name}, {len(training)} ratings", lambda path: ridge(describe(photo_of(path)).half().numpy())[0], fingerprint
    )


def tower_probe(tower: str, training: Sequence[Rated], work: Path) -> FunctionScorer:
    """``tower``: a file of a tower, or a checkpoint, whose tower it is then."""
    total = hashlib.sha256()
    for name, weight in sorted(read_tower(tower).items()):
        total.update(name.encode() + weight.numpy().tobytes())
    about, name = total.hexdigest(), f"probe of {Path(tower).name}"
    return probe(name, tower_description(tower), training, work / f"probe-{about[:8]}.npz", about)


def teacher(path: Path) -> FunctionScorer:
    model = read_teacher(path)
    return FunctionScorer(
        "teacher",
        lambda photo: float(model(photo_of(photo)).softmax(-1)[0] @ LEVELS),
        {"kind": "teacher", "weights": digest_of([path])},
    )


def ours(given: str) -> Scorer:
    """``checkpoint`` or ``name=checkpoint``, whose results stand under that name."""
    name, _, checkpoint = given.rpartition("=")
    scorer = ModelScorer(qsit_plugin.load(checkpoint, device="cpu"))
    scorer.name = name or scorer.name
    return scorer


def digest_of(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        total.update(path.read_bytes())
    return total.hexdigest()


def pyiqa_names() -> list[str]:
    import pyiqa

    return [name for name in pyiqa.list_models(metric_mode="NR") if not name.startswith("qsit")]


def openers(args: argparse.Namespace, training: Sequence[Rated]) -> Iterator[tuple[str, Callable[[], Scorer]]]:
    """What is compared, each opened when its turn comes, so that only one is in memory."""
    for given in args.checkpoint:
        yield given, partial(ours, given)
    if args.teacher:
        yield "teacher", partial(teacher, args.teacher)
    for tower in (str(TOWER), *args.tower):
        yield f"probe of {Path(tower).name}", partial(tower_probe, tower, training, args.work)
    imagenet, cache = "EfficientNet-Lite0, ImageNet", args.work / "probe-imagenet.npz"
    yield imagenet, lambda: probe(f"probe of {imagenet}", teacher_description(None), training, cache, imagenet)
    yield "brisque (package)", brisque
    for name in pyiqa_names() if args.metrics is None else args.metrics:
        yield name, partial(open_metric, name, "cpu")


def photos_of(name: str, photos: Sequence[Rated], folder: Path, part: str) -> tuple[Ratings, list[Pair]]:
    """The photos of a part, as the harness takes them."""
    pairs = []
    for photo in photos:
        if photo.part == part:
            row = RatedImage(
                image=photo.path.relative_to(folder).as_posix(),
                mos=photo.mos,
                quality=photo.mos,
                split=part,
                source=scene_of(photo.path.name),
                twins=(UNTRAINED,) if photo.twin else (),
                columns={"subset": photo.subset} if photo.subset else {},
            )
            pairs.append((row, photo.path))
    rows = tuple(row for row, _ in pairs)
    fingerprint = hashlib.sha256(json.dumps([[row.image, row.mos] for row in rows]).encode()).hexdigest()
    known, by = DATASETS[name], ("subset",) if any(row.columns for row in rows) else ()
    return Ratings(name, known.title, known.scale, rows, part, None, fingerprint, by), pairs


def compare(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The result of each database, written as JSON and Markdown."""
    photos = read_and_cut(args.rated, args.work / "thumbnails.npz")
    training = drawn([photo for photo in photos if photo.part == "training"], args.training)
    asked = [(*photos_of("biq2021", photos, args.rated, args.part), args.rated)]
    if args.unseen:
        asked.append((*photos_of("livec", read(args.unseen), args.unseen, args.part), args.unseen))
    if empty := [ratings.name for ratings, pairs, _ in asked if not pairs]:
        raise SystemExit(f"{' and '.join(empty)} has no photo of the {args.part} part")
    figures: dict[str, dict[str, Any]] = {ratings.name: {} for ratings, *_ in asked}
    unavailable: dict[str, str] = {}
    for name, opened in openers(args, training):
        try:
            scorer = opened()
        except (MetricError, ImportError, FileNotFoundError) as error:
            needed = summary(error)
            unavailable[name] = needed if needed == "needs a download" else str(error)
            print(f"{name} cannot run: {unavailable[name]}", flush=True)
            continue
        for ratings, pairs, folder in asked:
            if scorer.name in figures[ratings.name]:
                raise SystemExit(f"two baselines are called {scorer.name}: give one as name=checkpoint")
            found = figures[ratings.name][scorer.name] = scored(scorer, ratings, pairs, folder, args)
            print(f"{scorer.name}, {ratings.title}: {line_of(found)}", flush=True)
    results = {}
    for ratings, *_ in asked:
        found = figures[ratings.name]
        results[ratings.name] = result_of(ratings, found, unavailable, (), resamples=args.resamples, seed=0)
        write(results[ratings.name], args.out / f"human_baselines-{ratings.name}-{args.part}")
    return results


def scored(
    scorer: Scorer, ratings: Ratings, pairs: Sequence[Pair], folder: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """One baseline's figures; its scores go into the journal as they come, and those that are there stay."""
    with open_journal(args.work / f"{ratings.name}-{args.part}.scores.jsonl", ratings, folder) as journal:
        for _ in score_pairs(scorer, unscored(scorer, pairs, journal), journal):
            pass
        return summarize(scorer, ratings.rows, journal, resamples=args.resamples, group_by=ratings.group_by)


def line_of(found: dict[str, Any]) -> str:
    by = found["by_group"].get("subset")
    within = f", mean within subsets {by['mean_srcc']:.3f}" if by and by["mean_srcc"] is not None else ""
    return ("SRCC none" if found["srcc"] is None else f"SRCC {found['srcc']:.3f}") + within


def write(result: dict[str, Any], base: Path) -> None:
    base.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(base.with_suffix(".json"), text + "\n")
    write_whole(base.with_suffix(".md"), markdown(result))


def options() -> argparse.ArgumentParser:
    form: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **form)
    parser.add_argument("--rated", type=Path, required=True, help="folder of BIQ2021 with ratings.csv")
    parser.add_argument("--unseen", type=Path, help="folder of LIVE-C with ratings.csv")
    parser.add_argument("--work", type=Path, required=True, help="folder for scores and vectors as they come")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--checkpoint", action="append", default=[], help="one of ours, or name=checkpoint; repeatable")
    parser.add_argument("--teacher", type=Path, help="what training.nano teacher wrote")
    parser.add_argument("--tower", action="append", default=[], help="a probe of this tower or checkpoint; repeatable")
    parser.add_argument("--training", type=int, default=2000, help="ratings that the probes learn from")
    parser.add_argument("--metrics", nargs="*", help="these of pyiqa; by default all that need no reference")
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def main() -> None:
    args = options().parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    close_network()
    constants.HF_HUB_OFFLINE = True  # which is read from the environment on import, or it would try again for minutes
    compare(args)


if __name__ == "__main__":
    main()
