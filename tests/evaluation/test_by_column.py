"""Figures within the values of a column, their mean, and what the column alone predicts."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsit_plugin.evaluation.accuracy import result_of, summarize
from qsit_plugin.evaluation.datasets.published import Ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError, RatedImage
from qsit_plugin.evaluation.figures import by_column, check_column
from qsit_plugin.evaluation.journal import Journal
from qsit_plugin.evaluation.report import markdown
from qsit_plugin.evaluation.statistics import bootstrap, srcc


def photos(per_subset: int = 30) -> tuple[list[float], list[RatedImage]]:
    """Subset a is rated low and b high; within each, scores follow the ratings, in b more loosely. Every second photo
    of a has a twin."""
    rng = np.random.default_rng(0)
    scores, rows = [], []
    for subset, base, noise in (("b", 0.7, 0.3), ("a", 0.2, 0.1)):
        for n in range(per_subset):
            mos = base + 0.2 * float(rng.random())
            scores.append(mos + noise * float(rng.normal()))
            twins = ("t.jpg",) if subset == "a" and n % 2 else ()
            rows.append(RatedImage(f"{subset}{n}", mos, mos, twins=twins, columns={"subset": subset}))
    return scores, rows


class Given:
    """A metric whose scores are given."""

    name, lower_is_better, fingerprint = "given", False, {"kind": "given"}

    def outcomes(self, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
        raise AssertionError("every score is in the journal")


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    scores, rows = photos()
    with Journal(tmp_path / "run.jsonl", {"name": "x"}) as journal:
        for row, score in zip(rows, scores, strict=True):
            journal.write("given", row.image, {"score": score})
        return summarize(Given(), rows, journal, resamples=200, group_by=["subset"])


def test_the_figures_of_a_value_are_those_of_its_images_alone() -> None:
    scores, rows = photos()
    found = by_column(scores, rows, "subset", 100, 0)
    assert list(found["groups"]) == ["a", "b"]
    for value, part in (("b", slice(0, 30)), ("a", slice(30, 60))):
        figures = found["groups"][value]
        quality = [row.quality for row in rows[part]]
        assert figures["n"] == 30
        assert figures["srcc"] == pytest.approx(srcc(scores[part], quality))
        assert figures["intervals"]["srcc"] == pytest.approx(
            bootstrap(scores[part], quality, [row.source for row in rows[part]], samples=100)["srcc"]
        )


def test_the_mean_is_unweighted_and_lies_within_its_interval() -> None:
    scores, rows = photos()
    found = by_column(scores[:-20], rows[:-20], "subset", 200, 0)
    assert found["mean_srcc"] == pytest.approx(sum(group["srcc"] for group in found["groups"].values()) / 2)
    low, high = found["mean_srcc_interval"]
    assert low < found["mean_srcc"] < high


def test_what_the_value_alone_gives_away_is_the_srcc_of_its_mean_rating() -> None:
    scores, rows = photos()
    found = by_column(scores, rows, "subset", 0, 0)
    quality = [row.quality for row in rows]
    assert found["value_alone"] == pytest.approx(srcc([1.0] * 30 + [0.0] * 30, quality))
    assert found["value_alone"] > 0.8
    assert found["mean_srcc_interval"] is None


def test_a_value_without_a_correlation_says_why_and_is_not_in_the_mean() -> None:
    scores, rows = photos()
    lone = RatedImage("c", 0.5, 0.5, columns={"subset": "c"})
    found = by_column([*scores, 0.5], [*rows, lone], "subset", 0, 0)
    assert found["groups"]["c"]["srcc"] is None
    assert "at least 3" in found["groups"]["c"]["error"]
    assert found["of"] == 2
    assert found["mean_srcc"] == by_column(scores, rows, "subset", 0, 0)["mean_srcc"]


def test_images_without_a_value_are_counted() -> None:
    scores, rows = photos()
    found = by_column([*scores, 0.5], [*rows, RatedImage("c", 0.5, 0.5)], "subset", 0, 0)
    assert (found["without_value"], list(found["groups"])) == (1, ["a", "b"])


def test_numbers_are_in_their_order() -> None:
    rows = [RatedImage(f"{n}", n, n, columns={"iso": str((100, 1600, 200)[n % 3])}) for n in range(12)]
    found = by_column([float(n) for n in range(12)], rows, "iso", 0, 0)
    assert list(found["groups"]) == ["100", "200", "1600"]


def test_distortion_and_level_are_columns_too() -> None:
    rows = [
        RatedImage(f"{n}", n, n, source=f"{n % 4}", distortion=("blur", "noise")[n // 6], level=1) for n in range(12)
    ]
    check_column(rows, "level")
    assert list(by_column([float(n) for n in range(12)], rows, "distortion", 50, 0)["groups"]) == ["blur", "noise"]


def test_a_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    _, rows = photos()
    with pytest.raises(DatasetError, match="no image has a value in a column 'camera'; there are subset, source"):
        check_column(rows, "camera")


def test_a_column_with_another_value_for_every_image_is_refused() -> None:
    _, rows = photos()
    with pytest.raises(DatasetError, match="has 60 values for 60 images, none of them for 3"):
        check_column(rows, "source")


def test_figures_without_twins_stand_beside_the_official_ones(summary: dict[str, Any]) -> None:
    scores, rows = photos()
    kept = [i for i, row in enumerate(rows) if not row.twins]
    alone = summary["without_twins"]
    assert (summary["n"], alone["n"]) == (60, 45)
    assert summary["srcc"] == pytest.approx(srcc(scores, [row.quality for row in rows]))
    assert alone["srcc"] == pytest.approx(srcc([scores[i] for i in kept], [rows[i].quality for i in kept]))
    assert alone["intervals"]["srcc"][0] < alone["srcc"] < alone["intervals"]["srcc"][1]
    assert alone["by_group"]["subset"]["groups"]["a"]["n"] == 15


def test_the_markdown_shows_the_subsets_the_mean_and_the_figures_without_twins(summary: dict[str, Any]) -> None:
    ratings = Ratings("x", "X", "MOS", tuple(photos()[1]), "test", 60, "abc", torn=4, note="A note.")
    text = markdown(result_of(ratings, {"given": summary}, {}, [], resamples=200, seed=0))
    assert "A note. 4 sources (photos or scenes) of this split have images in another split, too." in text
    table = summary["by_group"]["subset"]
    low, high = table["groups"]["a"]["intervals"]["srcc"]
    assert f"| a | 30 | {table['groups']['a']['srcc']:.3f} [{low:.3f}, {high:.3f}] |" in text
    low, high = table["mean_srcc_interval"]
    assert f"| mean of 2 |  | {table['mean_srcc']:.3f} [{low:.3f}, {high:.3f}] |" in text
    assert f"A baseline that knows only the subset of an image has SRCC {table['value_alone']:.3f}." in text
    part = text[text.index("## Without the images that have a near twin in another split") :]
    assert f"| given | 45 | {summary['without_twins']['srcc']:.3f} [" in part
    assert "## SRCC by subset, without near twins" in part
