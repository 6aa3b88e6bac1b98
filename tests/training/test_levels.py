"""Levels: the official rule on the official rows, soft labels, and back to a number."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.protocol import LEVELS, TRAINING_CONSISTENT
from qsit_plugin.training.levels import SCALES, LevelScale

EDGES = {
    "koniq": [6.68487394958, 22.419149159664002, 38.153424369748, 53.88769957983201, 69.62197478991601, 85.35625],
    "spaq": [0.0, 18.8, 37.6, 56.400000000000006, 75.2, 94.0],
}
"""Of the published data; see ``official/fixtures.json``."""


def official(data: Path, name: str) -> list[tuple[float, str]]:
    rows = json.loads((data / "official" / f"train_{name}_qsit.json").read_text(encoding="utf-8"))
    return [(float(row["id"].split("->")[1]), row["conversations"][1]["value"].split()[-1][:-1]) for row in rows]


@pytest.mark.parametrize("name", EDGES)
def test_the_edges_are_those_of_the_published_data_to_the_last_bit(name: str) -> None:
    assert list(LevelScale.named(name).edges) == EDGES[name]


@pytest.mark.parametrize("name", EDGES)
def test_the_edges_in_the_fixtures_are_ours(data: Path, name: str) -> None:
    fixture = json.loads((data / "official" / "fixtures.json").read_text(encoding="utf-8"))["level_edges"][name]
    scale = LevelScale.named(name)
    assert list(scale.edges) == fixture["edges_linspace6"]
    assert (scale.low, scale.high, scale.high_included) == (fixture["lo"], fixture["hi_exclusive"], False)


@pytest.mark.parametrize(("name", "count"), [("koniq", 7046), ("spaq", 8897)])
def test_every_published_row_gets_the_level_of_its_text(data: Path, name: str, count: int) -> None:
    rows = official(data, name)
    assert len(rows) == count
    assert [(mos, LevelScale.named(name).level(mos)) for mos, _ in rows] == rows


def test_the_three_photos_at_spaqs_crooked_edge_are_fair(data: Path) -> None:
    """With an edge of 56.4 they would be good."""
    assert [word for mos, word in official(data, "spaq") if mos == 56.4] == ["fair"] * 3
    assert LevelScale.named("spaq").level(56.4) == "fair"


def test_a_part_is_closed_on_the_left() -> None:
    spaq = LevelScale.named("spaq")
    assert [spaq.level(mos) for mos in (0, 18.79, 18.8, 37.6, 75.2)] == ["bad", "bad", "poor", "fair", "excellent"]


@pytest.mark.parametrize(("name", "below", "top"), [("koniq", 6.68, 85.35625), ("spaq", -0.01, 94.0)])
def test_the_official_rule_drops_what_is_outside_and_the_top_edge(name: str, below: float, top: float) -> None:
    scale = LevelScale.named(name)
    assert scale.level(below) is None
    assert scale.level(top) is None
    assert scale.level(math.nextafter(top, 0)) == "excellent"


@pytest.mark.parametrize(
    ("name", "low", "high"), [("kadid10k", 1, 5), ("livec", 0, 100), ("agiqa3k", 0, 5), ("tid2013", 0, 9)]
)
def test_the_other_scales_hold_both_their_ends(name: str, low: float, high: float) -> None:
    scale = LevelScale.named(name)
    assert (scale.level(low), scale.level((low + high) / 2), scale.level(high)) == ("bad", "fair", "excellent")
    assert scale.level(math.nextafter(high, math.inf)) is None
    assert scale.level(math.nextafter(low, -math.inf)) is None


@pytest.mark.parametrize(("name", "high"), [("csiq", 1), ("live", 100)])
def test_a_high_dmos_is_bad(name: str, high: float) -> None:
    scale = LevelScale.named(name)
    assert [scale.level(high * part) for part in (0, 0.3, 0.5, 0.7, 1)] == list(LEVELS)
    assert scale.soft(0) == (1, 0, 0, 0, 0)
    assert scale.soft(high) == (0, 0, 0, 0, 1)
    assert scale.number((0, 1, 0, 0, 0)) == high / 4


def test_a_range_of_ones_own_is_cut_alike() -> None:
    scale = LevelScale.custom(1, 11)
    assert [scale.level(mos) for mos in (1, 3, 5, 7, 9, 11)] == [
        "bad",
        "poor",
        "fair",
        "good",
        "excellent",
        "excellent",
    ]
    assert LevelScale.custom(1, 11, lower_is_better=True).level(1) == "excellent"


@pytest.mark.parametrize("name", SCALES)
def test_a_mos_alone_is_shared_by_two_neighbours_and_comes_back(name: str) -> None:
    scale = LevelScale.named(name)
    for mos in np.linspace(scale.low, scale.high, 41).tolist():
        soft = scale.soft(mos)
        held = [place for place, share in enumerate(soft) if share > 1e-12]
        assert len(held) <= 2
        assert held[-1] - held[0] <= 1
        assert sum(soft) == pytest.approx(1, abs=1e-12)
        assert scale.number(soft) == pytest.approx(mos, abs=1e-9)


def test_a_deviation_spreads_a_mos_by_the_normal_distribution() -> None:
    soft = LevelScale.named("kadid10k").soft(3.0, sd=1.0)
    assert soft == pytest.approx(
        (0.0668, 0.2417, 0.3829, 0.2417, 0.0668), abs=1e-4
    )  # tables of the normal distribution


def test_a_distribution_that_an_end_cuts_off_is_moved_until_its_mean_is_the_mos() -> None:
    """Left where it is, it would be (.7257, .2696, .0047, 0, 0), with a mean of 4.72."""
    scale = LevelScale.named("kadid10k")
    high = scale.soft(4.8, sd=0.5)
    assert scale.number(high) == pytest.approx(4.8, abs=1e-12)
    # P(x > 4.5), P(3.5 < x < 4.5), ... of a normal distribution around 4.9247: tables
    assert high == pytest.approx((0.8022, 0.1956, 0.0022, 0.0, 0.0), abs=1e-4)
    assert scale.soft(1.2, sd=0.5) == pytest.approx(high[::-1], abs=1e-12)


@pytest.mark.parametrize("name", SCALES)
def test_whatever_the_deviation_the_mean_is_the_mos_and_the_likeliest_level_next_to_the_word_at_most(name: str) -> None:
    scale = LevelScale.named(name)
    step = (scale.high - scale.low) / 4
    for mos in np.linspace(scale.low, scale.high, 83)[:-1].tolist():
        for spread in (0.1, 0.34, 0.5, 1.0, 1.4, 3.0, 100.0):
            soft = scale.soft(mos, sd=spread * step)
            assert min(soft) >= 0
            assert sum(soft) == pytest.approx(1, abs=1e-12)
            assert abs(scale.number(soft) - mos) < 1e-9 * step
            assert abs(soft.index(max(soft)) - LEVELS.index(scale.level(mos) or "")) <= 1


def test_a_wider_deviation_makes_a_flatter_label_up_to_one_point_four_steps() -> None:
    scale = LevelScale.named("kadid10k")
    likeliest = [max(scale.soft(3.2, sd=sd)) for sd in (0.2, 0.4, 0.7, 1.0, 1.4)]
    assert likeliest == sorted(likeliest, reverse=True)
    assert scale.soft(3.2, sd=40.0) == scale.soft(3.2, sd=1.4)


@pytest.mark.parametrize("name", SCALES)
def test_a_rating_a_soft_label_and_a_score_are_on_one_ruler(name: str) -> None:
    """A score is the same mean, with the weights that a checkpoint saves in its qsit.json."""
    scale = LevelScale.named(name)
    for share in (0.0, 0.13, 0.5, 0.77, 1.0):
        mos = scale.low + share * (scale.high - scale.low)
        soft = scale.soft(mos, sd=(scale.high - scale.low) / 5)
        score = sum(p * weight for p, weight in zip(soft, TRAINING_CONSISTENT.weights, strict=True))
        assert score == pytest.approx(scale.score(mos), abs=1e-9)
        assert score == pytest.approx(1 - share if scale.lower_is_better else share, abs=1e-9)


def test_a_rating_outside_the_range_scores_as_the_nearer_end() -> None:
    koniq = LevelScale.named("koniq")
    assert (koniq.score(3.9), koniq.score(88.4)) == (0.0, 1.0)
    assert koniq.score(koniq.number(koniq.soft(88.4, sd=20))) == pytest.approx(1.0, abs=1e-12)


def test_a_small_deviation_does_not_round_a_mos_to_a_level() -> None:
    scale = LevelScale.named("kadid10k")
    for sd in (0.0, 1e-9, 0.1, 0.3):
        assert scale.soft(3.4, sd=sd) == pytest.approx((0, 0.4, 0.6, 0, 0))
    assert scale.number(scale.soft(3.4, sd=0.34)) == pytest.approx(3.4, abs=0.04)


@pytest.mark.parametrize(("name", "hard_error"), [("koniq", 0.394), ("spaq", 0.369)])
def test_soft_labels_keep_the_rating_where_hard_ones_lose_it(data: Path, name: str, hard_error: float) -> None:
    scale = LevelScale.named(name)
    step = (scale.high - scale.low) / 4
    mos = np.array([mos for mos, _ in official(data, name)])
    soft = np.array([scale.number(scale.soft(m, sd=step / 2)) for m in mos.tolist()])
    hard = np.array([scale.number([float(word == level) for level in LEVELS]) for _, word in official(data, name)])
    assert np.sqrt(np.mean((soft - mos) ** 2)) / step < 1e-9
    assert np.sqrt(np.mean((hard - mos) ** 2)) / step == pytest.approx(hard_error, abs=5e-4)
    assert (np.argsort(soft.round(9), kind="stable") == np.argsort(mos.round(9), kind="stable")).all()  # the same order


def test_votes_are_taken_as_they_are_whether_counted_or_shares() -> None:
    scale = LevelScale.named("koniq")
    assert scale.soft(60, sd=5, votes=[0, 50, 25, 25, 0]) == (0, 0.5, 0.25, 0.25, 0)
    assert scale.soft(60, votes=(0.0, 0.5, 0.25, 0.25, 0.0)) == (0, 0.5, 0.25, 0.25, 0)


def test_a_mos_that_the_rule_drops_still_has_a_soft_label() -> None:
    koniq = LevelScale.named("koniq")
    assert koniq.soft(3.9) == (0, 0, 0, 0, 1)
    assert koniq.soft(88.4) == (1, 0, 0, 0, 0)


def test_what_cannot_be_is_refused() -> None:
    scale = LevelScale.named("koniq")
    with pytest.raises(ValueError, match="105 is no rating on the scale koniq: it goes from 0 to 100"):
        scale.soft(105)
    with pytest.raises(ValueError, match="finite number, got nan"):
        scale.level(math.nan)
    with pytest.raises(ValueError, match="from 0 up, got -1"):
        scale.soft(50, sd=-1)
    for votes in ([1, 2, 3, 4], [0, 0, 0, 0, 0], [1, 1, 1, 1, -1], [math.nan, 1, 1, 1, 1]):
        with pytest.raises(ValueError, match="five shares or counts, excellent to bad"):
            scale.soft(50, votes=votes)


def test_an_unknown_scale_is_refused_with_the_known_ones_and_the_way_to_ones_own() -> None:
    with pytest.raises(ValueError, match=r"no level scale 'konik': give one of koniq, spaq.*LevelScale.custom"):
        LevelScale.named("konik")
    with pytest.raises(ValueError, match=r"needs its range: LevelScale.custom\(low, high\)"):
        LevelScale.named("custom")
    with pytest.raises(ValueError, match="low before high"):
        LevelScale.custom(5, 1)


def test_levels_load_neither_torch_nor_transformers() -> None:
    code = "import sys, qsit_plugin.training.levels; print({'torch', 'transformers', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "set()"
