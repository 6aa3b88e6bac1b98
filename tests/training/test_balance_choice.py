"""Which mixture a balance search writes down, and that a run is told so."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.training.balance.analysis import find, first_stage, second_line
from qsit_plugin.training.balance.design import Design, mixture
from qsit_plugin.training.balance.objective import Objective
from qsit_plugin.training.balance.ratio import MIDDLE, PUBLISHED, PUBLISHED_SCORING, read_ratio
from qsit_plugin.training.balance.report import make_report, report_lines
from qsit_plugin.training.balance.trials import Trial
from tests.training.test_balance_fit import CHANCE, folder_of, reweighted, trials_of

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "balance"


def equal_everywhere(trials: list[Trial], noise: float, seed: int = 0) -> list[Trial]:
    """The same trials with figures that are the same at all mixtures but for noise, a little higher without ratings."""
    rng, found = np.random.default_rng(seed), []
    for trial in trials:
        scoring, accuracy = np.array([0.8, 0.6]) + rng.normal(0, noise, 2) + 0.5 * noise * (trial.point[0] == 0)
        figures = trial.figures | {"srcc": scoring, "plcc": scoring, "accuracy": accuracy}
        found.append(replace(trial, figures=figures, reweighted=reweighted(scoring, accuracy)))
    return found


def flat_folder(folder: Path, design: Design) -> Path:
    """Of a search whose trials differ by noise alone, highest at 0% scoring."""
    folder_of(folder, design)
    finished = equal_everywhere(trials_of(design, 0, 0.01), 0.02, seed=5)
    text = "".join(json.dumps(vars(trial)) + "\n" for trial in finished)
    (folder / "trials.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("groups", [2, 3])
def test_a_flat_search_hands_on_the_published_mixture_and_not_where_noise_is_highest(
    tmp_path: Path, groups: int
) -> None:
    """Once ratio.yaml had the highest point, here 0% scoring, and a run was trained on it."""
    report = make_report(flat_folder(tmp_path, Design(groups, (0, 1, 2))))
    content = report.ratio.content
    assert content["flat"] is True
    assert content["optimum_share"]["scoring"] < 0.1
    assert content["chosen_by"] == PUBLISHED
    expected = (0.22, 0.78) if groups == 2 else (0.22, 0.61, 0.17)
    assert tuple(content["group_share"].values()) == expected
    assert content["share"]["koniq"] + content["share"]["spaq"] == pytest.approx(0.22, abs=1e-5)
    assert any(
        "chosen is the published mixture: the search could not distinguish any mixture from another" in line
        for line in report_lines(report)
    )
    line = report.ratio.line()
    assert "the published mixture: the search could not distinguish any mixture from another (a flat optimum)" in line


def test_a_flat_second_stage_keeps_the_share_of_quality_that_the_first_has_found() -> None:
    design, objective = Design(3, (0, 1, 2)), Objective(CHANCE)
    trials = trials_of(design, 0, 0.003)
    first = first_stage(design, trials, objective)
    assert not first.flat
    known = {one.point for one in design.first()}
    line = second_line(design, trials, first)
    flat = equal_everywhere([trial for trial in trials if trial.point not in known], 0.02)
    mixed = [trial for trial in trials if trial.point in known and trial.point != mixture(0.22, line)] + flat
    found = find(design, mixed, objective)
    assert found.best.flat and found.first is not None and not found.first.flat
    assert found.chosen_by == PUBLISHED_SCORING
    assert found.point == mixture(0.22, line)


@pytest.mark.parametrize("groups", [2, 3])
def test_what_is_handed_on_is_the_middle_of_what_is_tied(groups: int) -> None:
    design, objective = Design(groups, (0, 1, 2)), Objective(CHANCE)
    found = find(design, trials_of(design, 0, 0.01), objective)
    assert not found.best.flat and found.chosen_by == MIDDLE
    assert found.point == mixture(found.best.grid[found.candidate], found.quality)
    assert found.point[0] == pytest.approx(sum(found.best.interval) / 2, abs=0.0051)


def test_the_middle_of_a_hole_is_not_handed_on() -> None:
    """Ends that are tied with one another, and a middle that is worse."""
    design, objective = Design(2, (0,)), Objective(CHANCE)
    best = find(design, trials_of(design, 0, 0.01), objective).best
    tied = (best.grid < 0.2) | (best.grid > 0.7)
    assert tied[replace(best, tied=tied).middle]


def test_the_first_stage_hands_on_the_middle_of_what_is_tied() -> None:
    design, objective = Design(3, (0, 1, 2)), Objective(CHANCE)
    for seed in range(5):
        first = first_stage(design, trials_of(design, seed, 0.02), objective)
        assert second_line(design, [], first) == pytest.approx(first.grid[first.tied].mean(), abs=0.031)


def test_a_second_stage_that_has_begun_stays_on_its_line() -> None:
    """As where seeds are added to a finished search, and the middle of the first stage moves a little."""
    design, objective = Design(3, (0,)), Objective(CHANCE)
    trials = [trial for trial in trials_of(design, 0, 0.02) if trial.point in {one.point for one in design.first()}]
    first = first_stage(design, trials, objective)
    middle, (low, _) = second_line(design, [], first), first.interval
    older = round(np.ceil(low / 0.05) * 0.05, 6)
    assert older != middle
    begun = [Trial(one.point, one.seed, trials[0].figures) for one in design.second(older)]
    assert second_line(design, trials, first) == middle
    assert second_line(design, trials + begun, first) == older
    narrow = replace(first, tied=np.abs(first.grid - middle) < 0.01)  # the first stage now speaks against it
    assert second_line(design, trials + begun, narrow) == middle


def test_a_ratio_of_an_older_version_is_refused_with_the_cure() -> None:
    """It could hold the highest point of a flat optimum, as that of the benchmark does."""
    with pytest.raises(
        ValueError, match="older version: it lacks chosen_by.* report FOLDER writes that of a search anew"
    ):
        read_ratio(BENCHMARK / "ratio.yaml")


def test_trials_of_an_older_version_are_read_and_what_they_lack_is_named(tmp_path: Path) -> None:
    """The real trials of benchmarks/balance, without what trials hold now."""
    import yaml

    old = yaml.safe_load((BENCHMARK / "ratio.yaml").read_text(encoding="utf-8"))
    folder_of(tmp_path, Design(3, (0, 1)))
    record = json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))
    record["facts"] |= {"groups": old["groups"], "rows": dict.fromkeys(old["share"], "hash"), "samples": 2048}
    record |= {"rows": dict.fromkeys(old["share"], 4000), "tokens": dict.fromkeys(old["share"], 9.0)}
    record["validation"] = {"ratings": 500, "choices": 500, "chance": old["data"]["chance"], "images_trained_on": 0}
    (tmp_path / "search.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "trials.jsonl").write_bytes((BENCHMARK / "trials.jsonl").read_bytes())
    report = make_report(tmp_path)
    content = report.ratio.content
    assert report.missing == 0  # the second stage is where it was, at 75% quality
    assert (content["flat"], content["first_stage"]["quality"]) == (False, 0.75)
    assert content["tied_interval"]["scoring"] == [0.0, 0.69]
    assert content["group_share"] == {"scoring": 0.34, "quality": 0.495, "general": 0.165}
    assert any("older version do not hold it, intervals leave it out" in line for line in report_lines(report))
