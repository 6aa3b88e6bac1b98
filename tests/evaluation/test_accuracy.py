"""A run from images to figures, on a small made-up dataset, with our own model and a baseline."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import qsit_plugin
from benchmarks.rated_ladder import make_ladder
from qsit_plugin.evaluation.accuracy import (
    changed,
    open_journal,
    pair_images,
    result_of,
    score_pairs,
    summarize,
    unchecked,
    unscored,
)
from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.published import Ratings, read_ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.evaluation.journal import JournalError
from qsit_plugin.evaluation.report import markdown
from qsit_plugin.evaluation.scorers import ModelScorer, Scorer, digest
from qsit_plugin.evaluation.statistics import bootstrap, krcc, plcc, srcc
from tests.tiny import tiny_checkpoint

COLUMNS = Columns(group="photo", distortion="distortion")


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 images: three photos, three distortions, five steps."""
    return make_ladder(tmp_path_factory.mktemp("ladder"), photos=("astronaut", "cat", "coffee"), side=384)


@pytest.fixture(scope="module")
def ratings(ladder: Path) -> Ratings:
    return read_ratings("csv", ladder, columns=COLUMNS)


def evaluate(scorer: Scorer, ratings: Ratings, folder: Path, journal_path: Path, **options: Any) -> dict[str, Any]:
    pairs, _ = pair_images(ratings, folder)
    with open_journal(journal_path, ratings, folder) as journal:
        for _ in score_pairs(scorer, unscored(scorer, pairs, journal), journal):
            pass
        return summarize(scorer, ratings.rows, journal, **options)


class Brightness:
    """A metric of its own kind: the mean grey value; counts what it was asked for."""

    name = "brightness"

    def __init__(self, lower_is_better: bool = False, fails: tuple[str, ...] = ()):
        self.lower_is_better, self.fails = lower_is_better, fails
        self.fingerprint = {"kind": "brightness"}
        self.asked: list[str] = []

    def outcomes(self, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
        import numpy as np
        from PIL import Image

        for path in paths:
            self.asked.append(path.name)
            if path.name in self.fails:
                yield {"error": "too dark to say"}
            else:
                yield {"score": float(np.asarray(Image.open(path).convert("L")).mean())}


def test_nano_follows_the_strength_of_noise_and_its_figures_are_those_of_its_scores(
    nano, ratings: Ratings, ladder: Path, tmp_path: Path
) -> None:
    noisy = replace(ratings, rows=tuple(row for row in ratings.rows if row.distortion == "noise"))
    figures = evaluate(ModelScorer(nano), noisy, ladder.parent, tmp_path / "run.jsonl", resamples=50)
    predicted = [score.value for score in nano.score([ladder.parent / row.image for row in noisy.rows])]
    quality = [row.quality for row in noisy.rows]
    assert figures["n"] == 15
    assert figures["failed"] == []
    assert figures["srcc"] == pytest.approx(srcc(predicted, quality), abs=1e-6)
    assert figures["plcc"] == pytest.approx(plcc(predicted, quality), abs=1e-6)
    assert figures["krcc"] == pytest.approx(krcc(predicted, quality), abs=1e-6)
    assert figures["by_distortion"]["noise"]["srcc"] == figures["srcc"] > 0.9
    assert figures["sources"] == 3
    assert figures["fingerprints"] == [nano.fingerprint]
    low, high = figures["intervals"]["srcc"]
    assert low <= figures["srcc"] <= high <= 1


def test_the_sign_of_a_lower_is_better_metric_is_turned(ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    up = evaluate(Brightness(), ratings, ladder.parent, tmp_path / "up.jsonl", resamples=50)
    down = evaluate(Brightness(lower_is_better=True), ratings, ladder.parent, tmp_path / "down.jsonl", resamples=50)
    assert down["srcc"] == pytest.approx(-up["srcc"])
    assert down["plcc"] == pytest.approx(-up["plcc"])
    assert down["intervals"]["srcc"] == pytest.approx([-up["intervals"]["srcc"][1], -up["intervals"]["srcc"][0]])


def test_intervals_are_drawn_by_source_photo(ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    figures = evaluate(Brightness(), ratings, ladder.parent, tmp_path / "run.jsonl", resamples=50, seed=3)
    predicted = [outcome["score"] for outcome in Brightness().outcomes(ladder.parent / r.image for r in ratings.rows)]
    photos = [row.image.split("_")[0] for row in ratings.rows]
    drawn = bootstrap(predicted, [row.quality for row in ratings.rows], photos, samples=50, seed=3)
    assert figures["intervals"] == {name: pytest.approx(ends) for name, ends in drawn.items()}


def test_ratings_in_which_lower_is_better_are_turned_too(ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    turned = read_ratings("csv", ladder, columns=Columns(lower_is_better=True))
    up = evaluate(Brightness(), ratings, ladder.parent, tmp_path / "up.jsonl", resamples=0)
    down = evaluate(Brightness(), turned, ladder.parent, tmp_path / "down.jsonl", resamples=0)
    assert down["srcc"] == pytest.approx(-up["srcc"])


def test_a_run_that_was_cut_off_goes_on_with_what_is_missing(ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    whole = evaluate(Brightness(), ratings, ladder.parent, path, resamples=50)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:22]) + lines[22][:30])  # 20 scores, and a part of the next
    again = Brightness()
    assert evaluate(again, ratings, ladder.parent, path, resamples=50) == whole
    assert again.asked == [row.image for row in ratings.rows[20:]]
    assert path.read_bytes() == content


@pytest.fixture
def folder(ratings: Ratings, ladder: Path, tmp_path: Path) -> Path:
    """A copy of the images that a test may replace."""
    (tmp_path / "images").mkdir()
    for row in ratings.rows:
        shutil.copy(ladder.parent / row.image, tmp_path / "images")
    return tmp_path / "images"


@pytest.mark.parametrize("how", ["other content", "same size, other time"])
def test_an_image_that_was_replaced_under_its_name_is_scored_again_and_only_it(
    ratings: Ratings, folder: Path, tmp_path: Path, how: str
) -> None:
    first, second = folder / ratings.rows[0].image, folder / ratings.rows[1].image
    evaluate(Brightness(), ratings, folder, tmp_path / "run.jsonl", resamples=0)
    if how == "other content":
        times = first.stat()
        shutil.copy(folder / ratings.rows[-1].image, first)
        os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert first.stat().st_size != times.st_size
    else:
        os.utime(first, ns=(0, second.stat().st_mtime_ns + 1))
    again = Brightness()
    evaluate(again, ratings, folder, tmp_path / "run.jsonl", resamples=0)
    assert again.asked == [first.name]
    held = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines()]
    right = next(Brightness().outcomes([first]))["score"]
    assert [line["score"] for line in held if line.get("image") == ratings.rows[0].image][-1] == right
    evaluate(idle := Brightness(), ratings, folder, tmp_path / "run.jsonl", resamples=0)
    assert idle.asked == []


def test_scores_of_an_earlier_version_are_kept_and_counted_as_unchecked(
    ratings: Ratings, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    evaluate(Brightness(), ratings, folder, path, resamples=0)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines[:22]:
        line.pop("size", None), line.pop("mtime_ns", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    pairs, _ = pair_images(ratings, folder)
    with open_journal(path, ratings, folder) as journal:
        scorer = Brightness()
        assert unscored(scorer, pairs, journal) == []
        assert changed(scorer, pairs, journal) == []
        assert unchecked(scorer, pairs, journal) == 20


def test_a_run_that_is_stopped_keeps_every_score_until_then(ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    pairs, _ = pair_images(ratings, ladder.parent)
    scorer = Brightness()
    with pytest.raises(KeyboardInterrupt), open_journal(tmp_path / "run.jsonl", ratings, ladder.parent) as journal:
        for number, _ in enumerate(score_pairs(scorer, unscored(scorer, pairs, journal), journal), 1):
            if number == 7:
                raise KeyboardInterrupt
    with open_journal(tmp_path / "run.jsonl", ratings, ladder.parent) as journal:
        assert journal.done("brightness") == {row.image for row in ratings.rows[:7]}


def test_an_image_that_failed_is_listed_and_tried_again(ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    name = ratings.rows[3].image
    broken = evaluate(Brightness(fails=(name,)), ratings, ladder.parent, tmp_path / "run.jsonl", resamples=0)
    assert broken["n"] == 44
    assert broken["failed"] == [{"image": name, "error": "too dark to say"}]
    fixed = Brightness()
    figures = evaluate(fixed, ratings, ladder.parent, tmp_path / "run.jsonl", resamples=0)
    assert (fixed.asked, figures["n"], figures["failed"]) == ([name], 45, [])


def test_a_changed_rating_or_image_folder_is_refused(ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    with open_journal(tmp_path / "run.jsonl", ratings, ladder.parent):
        pass
    other = tmp_path / "other.csv"
    other.write_text(ladder.read_text(encoding="utf-8").replace("4.2", "4.3", 1), encoding="utf-8")
    with pytest.raises(JournalError, match="annotations was"):
        open_journal(tmp_path / "run.jsonl", read_ratings("csv", other, columns=COLUMNS), ladder.parent)
    with pytest.raises(JournalError, match="images was"):
        open_journal(tmp_path / "run.jsonl", ratings, tmp_path)


def test_a_level_distribution_is_held_against_votes(nano: Any, ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    """Where people vote exactly as the model predicts, both figures are 0; where they all vote "bad", they are not."""
    few = replace(ratings, rows=ratings.rows[:6])
    scorer = ModelScorer(nano)
    with open_journal(tmp_path / "a.jsonl", few, ladder.parent) as journal:
        pairs, _ = pair_images(few, ladder.parent)
        for _ in score_pairs(scorer, pairs, journal):
            pass
        levels = {row.image: journal.entries["qsit-nano"][row.image]["levels"] for row in few.rows}
        agreeing = [replace(row, votes=tuple(levels[row.image])) for row in few.rows]
        hostile = [replace(row, votes=(0.0, 0.0, 0.0, 0.0, 1.0)) for row in few.rows]
        same, other, unknown = (summarize(scorer, rows, journal, resamples=0) for rows in (agreeing, hostile, few.rows))
    assert (same["brier"], same["ece"]) == pytest.approx((0.0, 0.0), abs=1e-5)
    assert other["brier"] > 0.1
    assert other["ece"] > 0.05
    assert "brier" not in unknown


def test_other_weights_change_the_fingerprint_and_the_calibration_does_not(tmp_path: Path) -> None:
    first = tiny_checkpoint(tmp_path / "first", official=False)
    second = tiny_checkpoint(tmp_path / "second", official=False, seed=1)
    before = digest(first)
    assert before != digest(second)
    (first / "golden.json").write_text("[]", encoding="utf-8")
    assert digest(first) == before


def test_a_journal_goes_on_with_the_same_weights_only(ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    """As when a checkpoint folder was trained again under its name."""
    few = replace(ratings, rows=ratings.rows[:2])
    for seed in (0, 1):
        tiny_checkpoint(tmp_path / str(seed) / "mine", official=False, seed=seed)
    first, again, other = (
        ModelScorer(qsit_plugin.load(tmp_path / name / "mine", device="cpu")) for name in ("0", "0", "1")
    )
    evaluate(first, few, ladder.parent, tmp_path / "run.jsonl", resamples=0)
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["fingerprint"] for line in lines if "score" in line] == [first.model.fingerprint] * 2
    evaluate(again, few, ladder.parent, tmp_path / "run.jsonl", resamples=0)
    with pytest.raises(JournalError) as caught:
        evaluate(other, few, ladder.parent, tmp_path / "run.jsonl", resamples=0)
    was, now = first.fingerprint["weights"], other.fingerprint["weights"]
    assert f"mine differed: weights was {was}, is {now}; delete the file to start again" in str(caught.value)


def test_missing_images_stop_a_run_that_was_not_declared_partial(
    ratings: Ratings, ladder: Path, tmp_path: Path
) -> None:
    for row in ratings.rows[7:]:
        shutil.copy(ladder.parent / row.image, tmp_path)
    with pytest.raises(DatasetError) as caught:
        pair_images(ratings, tmp_path)
    assert "7 of 45 images are not in" in str(caught.value)
    assert ratings.rows[4].image in str(caught.value)
    assert ratings.rows[5].image not in str(caught.value)
    assert "--partial" in str(caught.value)
    pairs, missing = pair_images(ratings, tmp_path, partial=True)
    assert (len(pairs), missing) == (38, [row.image for row in ratings.rows[:7]])


def test_a_folder_without_any_of_the_images_is_refused_even_when_partial(ratings: Ratings, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="45 of 45 images are not in .*is --images the right folder"):
        pair_images(ratings, tmp_path, partial=True)


def test_figures_that_are_not_defined_are_none_with_a_reason(ratings: Ratings, ladder: Path, tmp_path: Path) -> None:
    few = read_ratings("csv", ladder, columns=Columns(distortion="distortion"))
    names = tuple(row.image for row in few.rows[2:])
    figures = evaluate(Brightness(fails=names), few, ladder.parent, tmp_path / "run.jsonl")
    assert (figures["n"], figures["srcc"], figures["plcc_logistic4"], figures["intervals"]) == (2, None, None, None)
    assert "at least 3" in figures["error"]
    assert "intervals_error" in figures


def test_the_markdown_holds_the_figures_the_types_and_everything_that_went_wrong(
    ratings: Ratings, ladder: Path, tmp_path: Path
) -> None:
    scorer = Brightness(fails=(ratings.rows[0].image,))
    figures = evaluate(scorer, ratings, ladder.parent, tmp_path / "run.jsonl", resamples=50)
    result = result_of(ratings, {"brightness": figures}, {"niqe": "no network"}, ["gone.png"], resamples=50, seed=0)
    text = markdown(result)
    row = next(line for line in text.splitlines() if line.startswith("| brightness |"))
    low, high = figures["intervals"]["srcc"]
    assert f"| {figures['srcc']:.3f} [{low:.3f}, {high:.3f}] |" in row
    assert f"| {figures['plcc_logistic4']:.3f} |" in row
    assert f"| noise | 15 | {figures['by_distortion']['noise']['srcc']:.3f} |" in text
    assert f"- brightness: {ratings.rows[0].image}: too dark to say" in text
    assert "- niqe did not run: no network" in text
    assert "- 1 images are missing: gone.png" in text


def test_a_partial_result_says_so_first(ratings: Ratings) -> None:
    about = Ratings("koniq", "KonIQ-10k", "MOS 0-100", ratings.rows, "test", 2015, "abc")
    result = result_of(about, {}, {}, ["a.jpg"], resamples=0, seed=0)
    assert (result["dataset"]["n"], result["dataset"]["expected_n"]) == (44, 2015)
    text = markdown(result)
    assert text.startswith("# Accuracy on KonIQ-10k, test split\n\n**Partial: 44 of 2,015 images.**")
