"""The balance on paper: designs, objectives, and what the fits recover from records whose truth is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.training.balance import surface
from qsit_plugin.training.balance.analysis import best_mixture, first_stage, rounded_quality
from qsit_plugin.training.balance.design import Design, Planned, on_line, simplex
from qsit_plugin.training.balance.objective import Objective, pareto
from qsit_plugin.training.balance.ratio import read_ratio, write_ratio
from qsit_plugin.training.balance.report import make_report, report_lines
from qsit_plugin.training.balance.trials import Trial, read_trials
from qsit_plugin.training.balance.verify import compare, welch
from qsit_plugin.training.config import ConfigError

CHANCE = 0.3
ROWS = {"koniq": 300, "spaq": 100, "q_instruct": 900, "llava": 500}
GROUPS = {"scoring": ["koniq", "spaq"], "quality": ["q_instruct"], "general": ["llava"]}


def truth(point) -> tuple[float, float]:
    """(scoring, accuracy): both rise with their data and soon have enough; quality data at 60% of the interpreting."""
    quality = point[1] / (sum(point[1:]) or 1.0) if len(point) == 3 else 0.6
    scoring = 0.88 - 0.55 * np.exp(-9 * point[0])
    return scoring, 0.35 + 0.4 * (1 - point[0]) ** 0.4 * (1 - 0.8 * (quality - 0.6) ** 2)


def trial_of(planned: Planned, rng: np.random.Generator, noise: float) -> Trial:
    scoring, accuracy = np.array(truth(planned.point)) + rng.normal(0, noise, 2)
    figures = {
        "srcc": scoring + 0.02,
        "plcc": scoring - 0.02,
        "accuracy": accuracy,
        "score_loss": 2.0 * np.exp(-planned.point[0]),
        "interpret_loss": 1.0,
        "counts": {"score": 300, "interpret": 200, "choices": 200, "images": 300},
    }
    return Trial(f"{planned.point}{planned.seed}", planned.point, planned.seed, figures)


def trials_of(design: Design, seed: int, noise: float) -> list[Trial]:
    rng = np.random.default_rng(seed)
    trials = [trial_of(one, rng, noise) for one in design.first()]
    if design.staged:
        quality = rounded_quality(first_stage(design, trials, Objective(chance=CHANCE)))
        trials += [trial_of(one, rng, noise) for one in design.second(quality)]
    return trials


def folder_of(folder: Path, design: Design, noise: float = 0.01) -> Path:
    """What a finished search leaves behind."""
    groups = dict(list(GROUPS.items())[: design.groups])
    rows = {name: ROWS[name] for members in groups.values() for name in members}
    record = {
        "facts": {"groups": groups, "samples": 4000, "rows": dict.fromkeys(rows, "hash"), "validation": "hash"},
        "settings": {
            **{"run": "r", "output": "o", "validation": "v", "samples": 4000},
            **{"mode": design.mode, "seeds": list(design.seeds)},
        },
        "light_model": "light",
        "normalize": "sample",
        "rows": rows,
        "tokens": {name: 10.0 if name in GROUPS["scoring"] else 50.0 for name in rows},
        "validation": {"ratings": 300, "choices": 200, "chance": CHANCE, "images_trained_on": 0},
        "versions": {"qsit-plugin": "0"},
    }
    (folder / "search.json").write_text(json.dumps(record), encoding="utf-8")
    lines = "".join(json.dumps(vars(trial)) + "\n" for trial in trials_of(design, 0, noise))
    (folder / "trials.jsonl").write_text(lines, encoding="utf-8")
    return folder


# ---- designs ----


def test_every_search_has_the_equal_and_the_published_mixture_with_all_seeds() -> None:
    for groups, mode in ((2, "paper"), (3, "paper"), (3, "joint")):
        design = Design(groups, mode, (4, 5))
        planned = design.first()
        for name, point in design.baselines().items():
            assert [Planned(point, seed) in planned for seed in (4, 5)] == [True, True], name
        assert len(set(planned)) == len(planned)
        assert all(abs(sum(one.point) - 1) < 2e-6 for one in planned)
    assert Design(3, "paper", (0,)).baselines()["published"] == (0.22, 0.61, 0.17)


def test_the_second_stage_goes_along_the_line_that_the_first_found() -> None:
    design = Design(3, "paper", (0, 1))
    second = design.second(0.75)
    assert {one.point for one in second if one.seed == 0} == {on_line(s, 0.75) for s in design.grid} - {
        on_line(0.22, 0.75)  # it was in the first stage
    }
    assert {one.point[0] for one in second if one.seed == 1} == {0.22, 0.35, 0.5}
    assert on_line(0.2, 0.75) == (0.2, 0.6, 0.2)


def test_a_stopped_search_has_every_mixture_once_before_any_twice() -> None:
    seeds = [one.seed for one in Design(2, "paper", (0, 1, 2)).first()]
    assert seeds == sorted(seeds)


def test_the_simplex_has_ten_different_points() -> None:
    assert len(set(simplex())) == 10


# ---- objectives ----


def test_objectives_are_what_they_say() -> None:
    assert Objective("harmonic", chance=0.5)(0.6, 0.75) == pytest.approx(2 * 0.6 * 0.5 / 1.1)
    assert Objective("harmonic", chance=0.5)(0.6, 0.4) == 0.0
    assert Objective("weighted", chance=0.5, scoring_weight=0.8)(0.6, 0.75) == pytest.approx(0.58)
    constrained = Objective("constrained", margin=0.01)(np.array([0.9, 0.895, 0.8]), np.array([0.2, 0.5, 0.9]))
    assert int(constrained.argmax()) == 1
    with pytest.raises(ConfigError, match="objective is 'sum': give one of harmonic, weighted, constrained"):
        Objective("sum")


def test_the_pareto_set_leaves_out_what_is_beaten() -> None:
    assert pareto([(0.9, 0.1), (0.8, 0.5), (0.7, 0.5), (0.1, 0.6)]) == [0, 1, 3]


def test_standard_errors_are_those_of_the_formulas() -> None:
    assert surface.srcc_error(0.9, 2000) == pytest.approx(0.005, abs=2e-4)
    assert surface.accuracy_error(0.7, 1495) == pytest.approx(0.0118, abs=2e-4)


# ---- fits ----


def test_a_polynomial_is_recovered_exactly_without_noise() -> None:
    points = np.array(simplex())
    beta = np.array([0.5, 0.2, 0.3, 0.4, -0.2, 0.6])
    candidates = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])
    figures = (surface.scheffe(points) @ beta)[:, None]
    (one,) = surface.fit_surfaces(points, figures, candidates, draws=10)
    assert one.fit == pytest.approx(surface.scheffe(candidates) @ beta)
    assert one.draws == pytest.approx(np.tile(one.fit, (10, 1)), abs=1e-6)


@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_the_tied_interval_covers_the_best_share_and_the_choice_loses_little(noise: float) -> None:
    """Of 40 searches. At 95% fewer than 33 would cover it by chance once in 2,000 times."""
    design, objective = Design(2, "paper", (0, 1, 2)), Objective(chance=CHANCE)
    shares = np.linspace(0, 1, 101)
    values = objective(*np.transpose([truth((share, 1 - share)) for share in shares]))
    covered, lost, lost_in_the_middle, widths = 0, [], [], []
    for seed in range(40):
        fit, _ = best_mixture(design, trials_of(design, seed, noise), objective)
        low, high = fit.axis_interval()
        covered += low <= shares[values.argmax()] <= high
        lost.append(values.max() - values[fit.best])
        lost_in_the_middle.append(values.max() - values[fit.middle])
        widths.append(high - low)
    assert covered >= 33
    assert np.mean(lost) < noise / 4
    assert np.mean(lost_in_the_middle) < noise / 2
    assert 0.02 < np.mean(widths) < 0.6


@pytest.mark.parametrize("mode", ["paper", "joint"])
def test_three_groups_find_a_mixture_near_the_best(mode: str) -> None:
    objective = Objective(chance=CHANCE)
    grid = [on_line(share, quality) for share in np.linspace(0, 1, 51) for quality in np.linspace(0, 1, 21)]
    best = max(float(objective(*truth(point))) for point in grid)
    fit, _ = best_mixture(Design(3, mode, (0, 1, 2)), trials_of(Design(3, mode, (0, 1, 2)), 1, 0.003), objective)
    assert best - float(objective(*truth(fit.point))) < 0.02
    if mode == "paper":
        assert fit.lambda_l == pytest.approx(2.0 * np.exp(-fit.point[0]), rel=0.02)


def test_the_second_stage_does_not_change_what_the_first_has_found() -> None:
    """It has trials at the first stage's scoring share; once these moved the line under the second stage."""
    design, objective = Design(3, "paper", (0,)), Objective(chance=CHANCE)
    for seed in range(5):
        trials = trials_of(design, seed, 0.05)
        alone = first_stage(design, trials[: len(design.first())], objective)
        assert rounded_quality(first_stage(design, trials, objective)) == rounded_quality(alone)
        fit, _ = best_mixture(design, trials, objective)
        assert len(fit.points) >= len(design.grid)


def test_noise_that_hides_every_difference_is_called_a_flat_optimum(tmp_path: Path) -> None:
    report = make_report(folder_of(tmp_path, Design(2, "paper", (0, 1, 2)), noise=0.3))
    assert report.best.flat
    assert any("a flat optimum, these trials prefer no mixture" in line for line in report_lines(report))


def test_a_flat_first_stage_hands_on_the_middle_and_not_an_end_that_noise_has_chosen() -> None:
    design = Design(3, "paper", (0,))
    fit = first_stage(design, trials_of(design, 0, 0.3)[:7], Objective(chance=CHANCE))
    assert fit.flat
    assert 0.4 <= rounded_quality(fit) <= 0.6


def test_noise_is_measured_where_a_mixture_has_several_seeds() -> None:
    points = np.array([[0.2, 0.8], [0.2, 0.8], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    figures = np.array([[0.1], [0.3], [0.5], [0.9], [5.0]])
    assert surface.noise(points, figures) == pytest.approx([np.sqrt((0.02 + 0.08) / 2)])
    assert np.isnan(surface.noise(points[::2], figures[::2]))[0]


def test_too_few_mixtures_stop_the_report_with_the_cure(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, Design(2, "paper", (0, 1, 2)))
    lines = (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "trials.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
    with pytest.raises(
        ConfigError, match="3 different mixtures are tried, a curve needs 4; 3 trials are finished: go on"
    ):
        make_report(folder)
    with pytest.raises(ConfigError, match="holds no search: give the output folder of qsit train balance search"):
        make_report(tmp_path / "elsewhere")


# ---- results ----


def test_ratio_yaml_says_everything_and_is_read_back(tmp_path: Path) -> None:
    report = make_report(folder_of(tmp_path, Design(3, "paper", (0, 1, 2))))
    content = read_ratio(write_ratio(report.ratio)).content
    assert content == json.loads(json.dumps(report.ratio.content))
    assert sum(content["share"].values()) == pytest.approx(1, abs=1e-5)
    assert content["share"]["koniq"] == pytest.approx(3 * content["share"]["spaq"], abs=1e-5)
    low, high = content["tied_interval"]["scoring"]
    assert low <= content["group_share"]["scoring"] <= high
    assert content["token_share"]["koniq"] < content["share"]["koniq"]
    for name in ("optimum", "equal", "published"):
        figure = content["metrics"][name]["scoring"]
        assert figure["interval"][0] < figure["value"] < figure["interval"][1]
    assert (content["mapping"], content["verified"], content["normalize"]) == ("identity", False, "sample")
    assert content["noise"]["measured_by"] == "seeds"
    assert content["noise"]["single_trial"]["scoring"] == pytest.approx(0.01, abs=0.006)


def test_the_report_is_ten_lines_at_most_and_says_sample_and_token_shares(tmp_path: Path) -> None:
    for number, (groups, mode) in enumerate(((3, "paper"), (3, "joint"), (2, "paper"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        lines = list(report_lines(make_report(folder_of(folder, Design(groups, mode, (0, 1, 2))))))
        assert len(lines) <= 10
        assert "of supervised tokens" in "".join(lines)
        assert all(any(line.startswith(name) for line in lines) for name in ("optimum", "equal", "published"))


def test_a_report_takes_another_objective_and_nothing_else(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, Design(2, "paper", (0, 1, 2)))
    most, least = (make_report(folder, ["objective=weighted", f"scoring_weight={w}"]) for w in (0.95, 0.05))
    assert most.best.point[0] > least.best.point[0] + 0.3
    assert most.ratio.content["objective"]["scoring_weight"] == 0.95
    with pytest.raises(ConfigError, match="a report cannot change samples: only objective"):
        make_report(folder, ["samples=5"])


def test_a_line_that_is_cut_off_is_not_a_trial_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, Design(2, "paper", (0,)))
    path, count = folder / "trials.jsonl", len(read_trials(folder))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert len(read_trials(folder)) == count
    path.write_bytes(whole + b"{}\n")
    with pytest.raises(ConfigError, match=f"line {count + 1} is no trial: take the line out"):
        read_trials(folder)


def test_a_plot_is_drawn_of_every_kind_of_search(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    from PIL import Image

    from qsit_plugin.training.balance.plot import draw_plot

    for number, (groups, mode) in enumerate(((3, "paper"), (3, "joint"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = draw_plot(make_report(folder_of(folder, Design(groups, mode, (0,)))))
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 100  # curves, bands and points, not a blank


# ---- verification ----


def verified(chosen: list[float], equal: list[float]) -> dict:
    points = {"chosen": (0.4, 0.6), "equal": (0.5, 0.5), "published": (0.4, 0.6)}
    rest = {"score_loss": 1.0, "interpret_loss": 1.0, "counts": {"score": 300, "choices": 200}}
    trials = [
        Trial("", points[name], seed, {"srcc": v, "plcc": v, "accuracy": v} | rest)
        for name, values in (("chosen", chosen), ("equal", equal))
        for seed, v in enumerate(values)
    ]
    return compare(points, trials, Objective("weighted"))


def test_only_a_difference_beyond_noise_is_better() -> None:
    assert verified([0.8, 0.81, 0.79], [0.7, 0.71, 0.69])["equal"]["verdict"] == "better"
    assert verified([0.7, 0.71, 0.69], [0.8, 0.81, 0.79])["equal"]["verdict"] == "worse"
    close = verified([0.8, 0.7, 0.75], [0.74, 0.76, 0.7])
    assert close["equal"]["verdict"] == "within noise"
    assert close["equal"]["interval"][0] < 0 < close["equal"]["interval"][1]
    assert close["published"]["verdict"] == "the same mixture"
    assert verified([0.9], [0.1])["equal"]["verdict"] == "one seed"


def test_welch_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    one, other = np.array([0.81, 0.84, 0.8]), np.array([0.7, 0.74, 0.75, 0.71])
    ahead, half = welch(one, other)
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert (ahead - half, ahead + half) == pytest.approx((expected.low, expected.high))
