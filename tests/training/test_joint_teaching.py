"""The experiment of benchmarks/joint_teaching: arms, features that it keeps, questions, verdicts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.runs import rating, require_training

require_training()

import qsit_plugin  # noqa: E402
from benchmarks.joint_teaching import claims  # noqa: E402
from benchmarks.joint_teaching.arms import (  # noqa: E402
    FEWEST,
    MOST,
    Arm,
    arms_of,
    done,
    look_at_test,
    run_arms,
    seeds_for,
)
from benchmarks.joint_teaching.data import asked_rows, distorted, rating_rows, taught_rows  # noqa: E402
from benchmarks.joint_teaching.features import SHAPE, TileFeatures, cached_features  # noqa: E402
from benchmarks.joint_teaching.figures import Weights, names_right  # noqa: E402
from qsit_plugin.training.balance.noise import WEIGHTINGS  # noqa: E402
from qsit_plugin.training.balance.settings import read_settings  # noqa: E402
from qsit_plugin.training.config import read_config  # noqa: E402
from qsit_plugin.training.data.rows import write_rows  # noqa: E402
from qsit_plugin.training.levels import LevelScale  # noqa: E402
from qsit_plugin.training.nano.human.rated import Rated  # noqa: E402
from tests.training.balances import make_search, question  # noqa: E402

# ---- arms ----


def test_an_arm_of_its_own_rows_has_as_many_of_its_task_as_the_balanced_arm() -> None:
    arms = {arm.name: arm for arm in arms_of((0.4, 0.45, 0.15), (4000, 2000, 2000), 1000)}
    assert arms["scoring-own-rows"].samples == 400 and arms["scoring-own-rows"].point == (1.0, 0.0, 0.0)
    assert arms["interpreting-own-rows"].samples == 600
    assert arms["interpreting-own-rows"].point == arms["interpreting-only"].point == (0.0, 0.75, 0.25)
    assert arms["by-size"].point == (0.5, 0.25, 0.25)
    assert {arm.samples for name, arm in arms.items() if "own" not in name} == {1000}


def test_a_balance_without_a_task_has_no_arm_of_its_rows() -> None:
    names = [arm.name for arm in arms_of((1.0, 0.0, 0.0), (8, 4, 4), 10)]
    assert "interpreting-own-rows" not in names and "interpreting-only" in names


def ratio_with(gain: float, noise: float) -> dict:
    return {
        "metrics": {"equal": {"chosen_ahead": {"value": gain}}},
        "noise": {"single_trial": {"objective": noise}},
    }


def test_a_clear_difference_of_the_light_model_asks_for_the_fewest_seeds_and_a_doubtful_one_for_the_most() -> None:
    assert seeds_for(ratio_with(0.2, 0.005))[0] == FEWEST
    count, why = seeds_for(ratio_with(0.001, 0.02))
    assert count == MOST and "5 seeds find such a difference in" in why


@pytest.fixture
def experiment(tmp_path: Path, tuning):
    """Settings of a tiny model, and a part with ratings of two sources, choices and questions."""
    make_search(tmp_path, tuning)
    part = tmp_path / "part"
    part.mkdir()
    for source in ("ss01", "livec"):
        rows = [rating(f"{n}.png", mos, tuning.profile) for n, mos in enumerate((90.0, 50.0, 20.0, 70.0))]
        write_rows(
            part / f"{source}.jsonl",
            [replace(row, source=source, quality=row.mos / 100, group=row.image) for row in rows],
        )
    write_rows(part / "choices.jsonl", [question(n, f"{n}.png") for n in range(3)])
    asked = [{"image": f"{n}.png", "names": ["blur"], "yes": "Is it soft?", "no": "Is it loud?"} for n in range(2)]
    asked.append({"image": "2.png", "names": [], "yes": None, "no": "Is it loud?"})
    lines = [json.dumps(row | {"describe": "Describe the quality."}) for row in asked]
    (part / "asked.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = read_settings(tmp_path / "search.yaml", [f"output={tmp_path / 'arms'}"])
    return read_config(tmp_path / "light.yaml"), settings, part


def test_arms_are_trained_and_measured_once_and_a_line_that_was_cut_off_is_measured_again(
    experiment, tmp_path: Path
) -> None:
    config, settings, part = experiment
    arms, results, said = (
        [Arm("equal", (0.4, 0.3, 0.3), 6), Arm("scoring-own-rows", (1.0, 0.0, 0.0), 3)],
        tmp_path / "r",
        [],
    )
    run_arms(arms, [0], config, settings, part, results, said.append)
    first = done(results)
    assert [(run["arm"], run["seed"], run["samples"]) for run in first] == [("equal", 0, 6), ("scoring-own-rows", 0, 3)]
    assert first[0]["subsets"].keys() == {"ss01"} and first[0]["livec"]["n"] == 4
    trained = (tmp_path / "arms" / "6" / "trials.jsonl").read_bytes()
    text = results.read_text(encoding="utf-8")
    results.write_text(text[: text.index("\n") + 40], encoding="utf-8")  # a kill while the second line was written
    run_arms(arms, [0], config, settings, part, results, said.append)
    again = done(results)
    assert [run["draws"] for run in again] == [run["draws"] for run in first]
    assert (tmp_path / "arms" / "6" / "trials.jsonl").read_bytes() == trained
    assert len([line for line in said if "trial" in line]) == 2


def test_the_test_part_is_looked_at_once_and_its_twins_count_in_the_official_figure_alone(
    experiment, tmp_path: Path
) -> None:
    config, settings, part = experiment
    run_arms([Arm("equal", (0.4, 0.3, 0.3), 6)], [0], config, settings, part, tmp_path / "r", lambda line: None)
    said: list[str] = []
    for _ in range(2):
        look_at_test(
            tmp_path / "r", tmp_path / "arms", part, Path(config.images), {"0.png"}, tmp_path / "t", said.append
        )
    (run,) = done(tmp_path / "t")
    assert len(said) == 1
    assert run["subsets"]["ss01"]["n"] == 3 and run["official"]["n"] == 4


# ---- kept features ----


def tiles(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def one_value(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.mean((1, 2, 3))[:, None, None].expand(-1, *SHAPE)


def refused(pixels: torch.Tensor) -> torch.Tensor:
    raise AssertionError("these tiles are known")


def test_features_of_a_known_tile_are_read_also_by_a_later_process(tmp_path: Path) -> None:
    pixels = tiles(3)
    file = TileFeatures(tmp_path / "t.features")
    first = file(pixels, one_value)
    assert torch.equal(file(pixels.flip(0), refused), first.flip(0))
    file.close()
    again = TileFeatures(tmp_path / "t.features")
    assert torch.equal(again(pixels, refused), first)
    again.close()


def test_features_that_a_kill_cut_off_are_computed_again(tmp_path: Path) -> None:
    file = TileFeatures(tmp_path / "t.features")
    whole = file(tiles(2), one_value)
    file.close()
    path = tmp_path / "t.features"
    path.write_bytes(path.read_bytes()[:-100])
    again, computed = TileFeatures(path), []
    found = again(tiles(2), lambda pixels: computed.append(len(pixels)) or one_value(pixels))
    again.close()
    assert computed == [1] and torch.equal(found, whole)


def test_scores_and_answers_from_kept_features_are_those_of_the_tower(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8))
    model = qsit_plugin.load("qsit-nano", engine="torch", device="cpu")
    plain, said = model.score(picture).value, model.ask(picture, "What is wrong with this image?").text
    for _ in range(2):
        with cached_features(tmp_path):
            assert model.score(picture).value == pytest.approx(plain, abs=1e-3)
            assert model.ask(picture, "What is wrong with this image?").text == said
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".features", ".keys"]
    assert model.score(picture).value == plain


def test_the_training_forward_reads_the_same_features_and_a_tower_in_training_is_refused(tmp_path: Path) -> None:
    model = qsit_plugin.load("qsit-nano", engine="torch", device="cpu").engine.hf
    tower, pixels = model.model.vision_tower, tiles(2).clamp(-1, 1)
    with torch.no_grad():
        plain = tower(pixels, output_hidden_states=True).hidden_states[-1]
    tower.requires_grad_(False)
    with cached_features(tmp_path):
        kept = tower(pixels, output_hidden_states=True, return_dict=True).hidden_states[-1]
        torch.testing.assert_close(kept, plain, rtol=2e-3, atol=2e-3)
        tower.requires_grad_(True)
        with pytest.raises(ValueError, match="leave vision out"):
            tower(pixels)


# ---- rows ----


@pytest.fixture
def photos(tmp_path: Path) -> list[Rated]:
    rng, found = np.random.default_rng(3), []
    for number in range(3):
        path = tmp_path / "rated" / f"ss01 ({number}).png"
        path.parent.mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        small.resize((256, 256), Image.Resampling.BICUBIC).save(path)
        found.append(Rated(path, 0.1 + 0.4 * number, "training", "ss01"))
    return found


def test_a_rating_row_says_the_level_and_stays_below_its_link(photos: list[Rated], tmp_path: Path) -> None:
    rows = rating_rows(photos, tmp_path / "rated", "rated", LevelScale.named("biq2021"))
    assert [row.answer.split()[-1] for row in rows] == ["bad.", "fair.", "excellent."]
    assert rows[0].image == "rated/ss01 (0).png"
    assert [row.quality for row in rows] == pytest.approx([photo.mos for photo in photos])


def test_distorted_photos_and_their_questions_are_the_same_when_they_are_made_again(
    photos: list[Rated], tmp_path: Path
) -> None:
    first = taught_rows(distorted(photos, tmp_path, "training", 4, seed=1))
    written = {path.name: path.read_bytes() for path in (tmp_path / "training").iterdir()}
    (tmp_path / "training" / "000002.png").unlink()
    assert taught_rows(distorted(photos, tmp_path, "training", 4, seed=1)) == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "training").iterdir()} == written
    assert [len(rows) for rows in first.values()] == [4, 4]


def test_a_clean_photo_is_not_asked_what_is_there(photos: list[Rated], tmp_path: Path) -> None:
    choices, others = asked_rows(distorted(photos, tmp_path, "validation", 12, seed=2))
    assert len(choices) == len(others) == 12
    assert all((row["yes"] is None) == (not row["names"]) for row in others)
    assert all(row["no"] for row in others)


@pytest.mark.parametrize(
    ("said", "names", "right"),
    [
        ("Motion blur is clearly visible: streaks", ["motion blur"], True),
        ("Motion blur is clearly visible: streaks", ["blur"], False),
        ("Blur is slightly visible", ["noise", "blur"], True),
        ("No distortion is visible: fine", [], True),
        ("No distortion is visible: fine", ["noise"], False),
        ("Noise is strongly visible", [], False),
    ],
)
def test_a_description_is_right_by_what_it_names_first(said: str, names: list[str], right: bool) -> None:
    assert names_right(said, names) is right


def test_every_run_weighs_the_photos_alike() -> None:
    one, other = Weights(["a", "b", "b", "c"]), Weights(["a", "b", "c"])
    assert np.array_equal(one.of(["c", "a"]), other.of(["c", "a"]))
    assert one.accuracy([("a", True), ("b", False)]).shape == (WEIGHTINGS,)


# ---- verdicts ----


def run_of(arm: str, seed: int, scoring: float, interpreting: float, spread: float = 0.002) -> dict:
    rng = np.random.default_rng([len(arm), seed])
    values = {"scoring": scoring, "interpreting": interpreting}
    values = {name: value + spread * float(rng.standard_normal()) for name, value in values.items()}
    values |= {name: 0.5 for name in ("srcc", "unseen", "letters", "yes_no", "words")}
    common = np.random.default_rng(0).standard_normal(WEIGHTINGS)  # what photos do to all arms alike
    point = {"by-size": (0.5, 0.25, 0.25), "equal": (1 / 3,) * 3, "published": (0.22, 0.61, 0.17)}
    run = {"kind": "run", "arm": arm, "seed": seed, "samples": 9, "point": point.get(arm, (0.4, 0.45, 0.15))}
    run |= {name: {"value": value, "interval": [value - 0.1, value + 0.1]} for name, value in values.items()}
    run["draws"] = {name: (value + 0.02 * common).tolist() for name, value in values.items()}
    return run | {"chance": {"letters": 0.2, "yes_no": 0.5, "words": 0.05}}


def runs_of(seeds: int = 3, spread: float = 0.002, **arms: tuple[float, float]) -> list[dict]:
    named = {name.replace("_", "-"): values for name, values in arms.items()}
    return [run_of(name, seed, *values, spread) for seed in range(seeds) for name, values in named.items()]


ALIKE = (0.6, 0.6)


def test_joint_teaching_hurts_where_a_task_is_worse_than_with_its_own_rows_alone() -> None:
    own = {"scoring_own_rows": ALIKE, "interpreting_own_rows": ALIKE}
    assert claims.unhurt(runs_of(balanced=ALIKE, **own))[0] == claims.SUPPORTED
    assert claims.unhurt(runs_of(balanced=(0.5, 0.6), **own))[0] == claims.CONTRADICTED
    assert claims.unhurt(runs_of(balanced=ALIKE, spread=0.1, **own))[0] == claims.NOISE
    assert claims.unhurt(runs_of(balanced=ALIKE))[0] == claims.OPEN


def test_one_seed_supports_nothing() -> None:
    arms = dict.fromkeys(("balanced", "by_size", "equal", "published", "scoring_own_rows"), ALIKE)
    runs = runs_of(seeds=1, interpreting_own_rows=(0.1, 0.1), **arms)
    outcome = claims.compared(runs)
    found = [claims.unhurt(runs)[0], claims.better(outcome)[0], claims.carried(outcome, flat=False)[0]]
    assert found == [claims.NOISE] * 3


def test_the_balanced_mixture_must_beat_both_naive_ones() -> None:
    low = (0.5, 0.5)
    outcome = claims.compared(runs_of(balanced=ALIKE, by_size=low, equal=low, published=ALIKE))
    assert claims.better(outcome)[0] == claims.SUPPORTED
    assert claims.carried(outcome, flat=False)[0] == claims.SUPPORTED
    assert claims.carried(outcome, flat=True)[0] == claims.NOISE
    outcome = claims.compared(runs_of(balanced=low, by_size=ALIKE, equal=low, published=low))
    assert claims.better(outcome)[0] == claims.carried(outcome, flat=False)[0] == claims.CONTRADICTED
    outcome = claims.compared(runs_of(balanced=ALIKE, by_size=low, equal=ALIKE, published=ALIKE))
    assert claims.better(outcome)[0] == claims.NOISE


def test_the_page_has_a_row_for_every_arm_and_a_verdict_for_every_claim() -> None:
    arms = dict.fromkeys(("balanced", "by_size", "equal", "published", "scoring_own_rows"), ALIKE)
    page = "\n".join(claims.page(runs_of(interpreting_own_rows=ALIKE, **arms), None, "Validation parts"))
    assert "| by-size | 50 : 25 : 25 | 9 | 3 |" in page
    assert page.count("**Joint teaching does not hurt either task: supported.**") == 1
    assert page.count(": no difference beyond noise.**") == 2
