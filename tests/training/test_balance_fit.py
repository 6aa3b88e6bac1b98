"""The balance on paper: designs, objectives, and what the fits recover from records whose truth is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.training.balance.analysis import find, first_stage, second_line
from qsit_plugin.training.balance.design import Design, Planned, mixture
from qsit_plugin.training.balance.fit import fit, fitted
from qsit_plugin.training.balance.noise import WEIGHTINGS, scatter
from qsit_plugin.training.balance.objective import Objective
from qsit_plugin.training.balance.ratio import read_ratio, write_ratio
from qsit_plugin.training.balance.report import make_report, pareto, report_lines
from qsit_plugin.training.balance.trials import Trial, read_trials
from qsit_plugin.training.balance.verify import compare
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
    return Trial(planned.point, planned.seed, figures, reweighted(scoring, accuracy))


def reweighted(scoring: float, accuracy: float, ratings: int = 300, choices: int = 200) -> dict[str, list[float]]:
    """Figures on other weights of rows that all mixtures find equally hard, as far off as so many rows make them."""
    normal = np.random.default_rng(0).standard_normal((WEIGHTINGS, 2))
    errors = srcc_error(scoring, ratings), accuracy_error(accuracy, choices)
    values = [scoring, accuracy] + (normal - normal.mean(axis=0)) / normal.std(axis=0) * errors
    return dict(zip(("scoring", "accuracy"), values.T.tolist(), strict=True))


def srcc_error(rho: float, count: int) -> float:
    """Standard error of SRCC (Bonett and Wright, Psychometrika 2000)."""
    return (1.0 - rho**2) * float(np.sqrt((1.0 + rho**2 / 2.0) / (count - 3)))


def accuracy_error(accuracy: float, count: int) -> float:
    """Binomial standard error."""
    return float(np.sqrt(max(0.0, accuracy * (1.0 - accuracy)) / count))


def trials_of(design: Design, seed: int, noise: float) -> list[Trial]:
    rng = np.random.default_rng(seed)
    trials = [trial_of(one, rng, noise) for one in design.first()]
    if design.staged:
        quality = second_line(design, trials, first_stage(design, trials, Objective(CHANCE)))
        trials += [trial_of(one, rng, noise) for one in design.second(quality)]
    return trials


def folder_of(folder: Path, design: Design, noise: float = 0.01) -> Path:
    """What a finished search leaves behind."""
    groups = dict(list(GROUPS.items())[: design.groups])
    rows = {name: ROWS[name] for members in groups.values() for name in members}
    record = {
        "facts": {
            **{"groups": groups, "samples": 4000, "rows": dict.fromkeys(rows, "hash"), "validation": "hash"},
            "config": {"level_loss": "soft"},
        },
        "settings": {
            **{"run": "r", "output": "o", "validation": "v", "samples": 4000, "seeds": list(design.seeds)},
            **{
                "mode": "paper",
                "objective": "harmonic",
                "scoring_weight": 0.5,
                "margin": 0.005,
            },  # once of all searches
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
    for groups in (2, 3):
        design = Design(groups, (4, 5))
        planned = design.first()
        for name, point in design.baselines.items():
            assert [Planned(point, seed) in planned for seed in (4, 5)] == [True, True], name
        assert len(set(planned)) == len(planned)
        assert all(abs(sum(one.point) - 1) < 2e-6 for one in planned)
    assert Design(3, (0,)).baselines["published"] == (0.22, 0.61, 0.17)


def test_the_second_stage_goes_along_the_line_that_the_first_found() -> None:
    design = Design(3, (0, 1))
    second = design.second(0.75)
    assert {one.point for one in second if one.seed == 0} == {mixture(s, 0.75) for s in design.grid} - {
        mixture(0.22, 0.75)  # it was in the first stage
    }
    assert {one.point[0] for one in second if one.seed == 1} == {0.22, 0.35, 0.5}
    assert mixture(0.2, 0.75) == (0.2, 0.6, 0.2)


def test_a_stopped_search_has_every_mixture_once_before_any_twice() -> None:
    seeds = [one.seed for one in Design(2, (0, 1, 2)).first()]
    assert seeds == sorted(seeds)


# ---- the objective ----


def test_the_objective_is_the_harmonic_mean_above_chance() -> None:
    assert Objective(0.5)(0.6, 0.75) == pytest.approx(2 * 0.6 * 0.5 / 1.1)
    assert Objective(0.5)(0.6, 0.4) == 0.0
    assert Objective(0.5).extend(np.array([[0.6, 0.4, 7.0]])).tolist() == [[0.6, 0.4, 0.0]]


def test_the_pareto_set_leaves_out_what_is_beaten() -> None:
    rest = {"score_loss": 1.0, "interpret_loss": 1.0}
    pairs = [(0.9, 0.1), (0.8, 0.5), (0.7, 0.5), (0.1, 0.6)]
    trials = [
        Trial((1 - number / 10, number / 10), 0, {"srcc": one, "plcc": one, "accuracy": two} | rest)
        for number, (one, two) in enumerate(pairs)
    ]
    assert [tuple(figures) for _, figures in pareto(trials)] == [pairs[0], pairs[1], pairs[3]]


# ---- fits ----


@pytest.mark.parametrize(
    "curve",
    [
        lambda x: 0.5 + 0.2 * x - 0.6 * x**2,
        lambda x: 0.3 + 0.1 * np.log1p(x / 0.03),
        lambda x: 0.3 + 0.1 * np.log1p((1 - x) / 0.3),
    ],
)
def test_curves_of_both_forms_are_recovered_exactly_without_noise(curve) -> None:
    shares, grid = np.array(Design(2, (0,)).grid), np.linspace(0, 1, 101)
    assert fitted(shares, curve(shares)[:, None], grid)[:, 0] == pytest.approx(curve(grid), abs=1e-9)


def test_without_noise_all_resamples_are_the_curve_and_only_the_best_is_tied() -> None:
    shares = np.array(Design(2, (0,)).grid)
    figures = np.stack([0.6 + 0.5 * shares - 0.3 * shares**2, 0.7 - 0.4 * shares**2, 0 * shares], axis=1)
    found = fit(shares, figures, np.zeros((len(shares), 1, 2)), tuple(shares), Objective(CHANCE))
    assert found.draws == pytest.approx(np.tile(found.values, (1000, 1, 1)), abs=1e-6)
    assert found.interval[1] - found.interval[0] <= 0.02
    assert found.error == pytest.approx(np.zeros(3), abs=1e-6)


@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_the_tied_interval_covers_the_best_share_and_the_choice_loses_little(noise: float) -> None:
    """Of 40 searches. At 95% fewer than 33 would cover it by chance once in 2,000 times."""
    design, objective = Design(2, (0, 1, 2)), Objective(CHANCE)
    shares = np.linspace(0, 1, 101)
    values = objective(*np.transpose([truth((share, 1 - share)) for share in shares]))
    covered, lost, lost_in_the_middle, widths = 0, [], [], []
    for seed in range(40):
        best = find(design, trials_of(design, seed, noise), objective).best
        low, high = best.interval
        covered += low <= shares[values.argmax()] <= high
        lost.append(values.max() - values[best.best])
        lost_in_the_middle.append(values.max() - values[best.middle])
        widths.append(high - low)
    assert covered >= 33
    assert np.mean(lost) < noise / 4
    assert np.mean(lost_in_the_middle) < noise / 2
    assert 0.02 < np.mean(widths) < 0.6


def test_three_groups_find_a_mixture_near_the_best() -> None:
    objective, design = Objective(CHANCE), Design(3, (0, 1, 2))
    grid = [mixture(share, quality) for share in np.linspace(0, 1, 51) for quality in np.linspace(0, 1, 21)]
    best = max(float(objective(*truth(point))) for point in grid)
    found = find(design, trials_of(design, 1, 0.003), objective)
    share = found.best.grid[found.best.best]
    assert best - float(objective(*truth(mixture(share, found.quality)))) < 0.02
    assert found.best.losses[found.best.best] == pytest.approx(2.0 * np.exp(-share), rel=0.02)


def test_the_second_stage_does_not_change_what_the_first_has_found() -> None:
    """It has trials at the first stage's scoring share; once these moved the line under the second stage."""
    design, objective = Design(3, (0,)), Objective(CHANCE)
    for seed in range(5):
        trials = trials_of(design, seed, 0.05)
        alone = first_stage(design, trials[: len(design.first())], objective)
        found = find(design, trials, objective)
        assert found.first.interval == alone.interval
        assert found.quality == second_line(design, [], alone)
        assert len(found.best.shares) >= len(design.grid)


def test_noise_that_hides_every_difference_is_called_a_flat_optimum(tmp_path: Path) -> None:
    report = make_report(folder_of(tmp_path, Design(2, (0, 1, 2)), noise=0.3))
    assert report.found.best.flat
    assert any("a flat optimum, these trials prefer no mixture" in line for line in report_lines(report))


def test_a_flat_first_stage_hands_on_the_middle_and_not_an_end_that_noise_has_chosen() -> None:
    design = Design(3, (0,))
    first = first_stage(design, trials_of(design, 0, 0.3)[:7], Objective(CHANCE))
    assert first.flat
    assert 0.4 <= second_line(design, [], first) <= 0.6


def test_noise_is_measured_where_a_mixture_has_several_seeds() -> None:
    rest = {"plcc": None, "score_loss": 1.0, "interpret_loss": 1.0}
    trials = [
        Trial((share, 1 - share), seed, {"srcc": None, "accuracy": value} | rest)
        for seed, (share, value) in enumerate([(0.2, 0.1), (0.2, 0.3), (0.5, 0.5), (0.5, 0.9), (1.0, 0.7)])
    ]
    sd, free = scatter(trials, Objective(0.0))
    assert sd == pytest.approx([0, np.sqrt((0.02 + 0.08) / 2), 0])
    assert free == 2
    sd, free = scatter(trials[::2], Objective(0.0))
    assert np.isnan(sd).all() and free == 0


def test_too_few_mixtures_stop_the_report_with_the_cure(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, Design(2, (0, 1, 2)))
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
    report = make_report(folder_of(tmp_path, Design(3, (0, 1, 2))))
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
    for groups in (2, 3):
        folder = tmp_path / str(groups)
        folder.mkdir()
        lines = list(report_lines(make_report(folder_of(folder, Design(groups, (0, 1, 2))))))
        assert len(lines) <= 10
        assert "of supervised tokens" in "".join(lines)
        assert all(any(line.startswith(name) for line in lines) for name in ("optimum", "equal", "published"))


def test_one_seed_has_its_noise_from_the_distance_to_the_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        globals(), "truth", lambda point: (0.6 + 0.4 * point[0] - 0.3 * point[0] ** 2, 0.7 - 0.2 * point[0])
    )
    noise = make_report(folder_of(tmp_path, Design(2, (0,)), noise=0.01)).ratio.content["noise"]
    assert noise["measured_by"] == "distance from the curves"
    assert all(0.004 < noise["single_trial"][name] < 0.018 for name in ("scoring", "accuracy"))  # 7 degrees of freedom


@pytest.mark.parametrize(
    ("name", "value"), [("mode", "joint"), ("objective", "weighted"), ("objective", "constrained")]
)
def test_a_search_of_what_was_removed_is_named_with_the_cure(tmp_path: Path, name: str, value: str) -> None:
    path = folder_of(tmp_path, Design(3, (0,))) / "search.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["settings"][name] = value
    path.write_text(json.dumps(record), encoding="utf-8")
    cure = f"is of a search with {name}: {value}, which was removed: search again with {name}: .* and the same output"
    with pytest.raises(ConfigError, match=cure):
        make_report(tmp_path)


def test_a_line_that_is_cut_off_is_not_a_trial_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, Design(2, (0,)))
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

    for groups in (2, 3):
        folder = tmp_path / str(groups)
        folder.mkdir()
        path = draw_plot(make_report(folder_of(folder, Design(groups, (0,)))))
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 100  # curves, bands and points, not a blank


# ---- verification ----


def verified(chosen: list[float], equal: list[float]) -> dict:
    points = {"chosen": (0.4, 0.6), "equal": (0.5, 0.5), "published": (0.4, 0.6)}
    rest = {"score_loss": 1.0, "interpret_loss": 1.0, "counts": {"score": 300, "choices": 200}}
    trials = [
        Trial(points[name], seed, {"srcc": v, "plcc": v, "accuracy": v} | rest)
        for name, values in (("chosen", chosen), ("equal", equal))
        for seed, v in enumerate(values)
    ]
    return compare(points, trials, Objective(0.0))


def test_only_a_difference_beyond_noise_is_better() -> None:
    assert verified([0.8, 0.81, 0.79], [0.7, 0.71, 0.69])["equal"]["verdict"] == "better"
    assert verified([0.7, 0.71, 0.69], [0.8, 0.81, 0.79])["equal"]["verdict"] == "worse"
    close = verified([0.8, 0.7, 0.75], [0.74, 0.76, 0.7])
    assert close["equal"]["verdict"] == "within noise"
    assert close["equal"]["interval"][0] < 0 < close["equal"]["interval"][1]
    assert close["published"]["verdict"] == "the same mixture"
    assert verified([0.9], [0.1])["equal"]["verdict"] == "one seed"


def test_without_an_error_of_rows_the_interval_is_welchs() -> None:
    stats = pytest.importorskip("scipy.stats")
    one, other = np.array([0.81, 0.84, 0.8]), np.array([0.7, 0.74, 0.75, 0.71])
    found = verified(list(one), list(other))["equal"]
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert found["interval"] == pytest.approx([expected.low, expected.high], abs=1e-4)
