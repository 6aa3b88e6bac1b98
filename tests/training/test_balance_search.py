"""The balance for real, on a tiny model: trials, a kill in the middle, the ratio in a run, the comparison after it."""

import json
from pathlib import Path

import pytest
import yaml

from tests.training.balances import SEARCH, make_search, question, talk, write_yaml
from tests.training.runs import Data, require_training

require_training()

from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.balance.noise import scatter  # noqa: E402
from qsit_plugin.training.balance.objective import Objective  # noqa: E402
from qsit_plugin.training.balance.ratio import as_settings, check_fits, read_ratio  # noqa: E402
from qsit_plugin.training.balance.search import search  # noqa: E402
from qsit_plugin.training.balance.settings import SearchSettings, read_settings  # noqa: E402
from qsit_plugin.training.balance.trials import Trial, read_trials  # noqa: E402
from qsit_plugin.training.balance.verify import (  # noqa: E402
    compare,
    forecast,
    outlook,
    outlook_line,
    paper_gain,
    verify_lines,  # noqa: E402
)
from qsit_plugin.training.balance.verify import verify as run_verify  # noqa: E402
from qsit_plugin.training.config import ConfigError, read_config  # noqa: E402
from qsit_plugin.training.data.rows import write_rows  # noqa: E402


def silent(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def found(tuning: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search of two groups, four trials."""
    folder = tmp_path_factory.mktemp("search")
    search(read_settings(make_search(folder, tuning, general=False, seeds=[0])), say=silent)
    return folder


def refused(tuning: Data, folder: Path, **changes: object) -> str:
    folder.mkdir()
    with pytest.raises(ConfigError) as caught:
        search(read_settings(make_search(folder, tuning, **changes)), say=silent)
    return str(caught.value)


def test_a_search_leaves_its_trials_and_a_ratio_and_no_weights(found: Path) -> None:
    assert {path.name for path in (found / "found").iterdir()} == {
        "search.json",
        "trials.jsonl",
        "ratio.yaml",
        "trials",
    }
    assert list((found / "found" / "trials").iterdir()) == []
    trials = list(read_trials(found / "found").values())
    assert [trial.point for trial in trials] == [(0.5, 0.5), (0.22, 0.78), (0.0, 1.0), (1.0, 0.0)]
    assert all(trial.figures["counts"] == {"score": 5, "interpret": 1, "choices": 1, "images": 5} for trial in trials)
    assert all(len(trial.reweighted[name]) == 200 for trial in trials for name in ("scoring", "accuracy"))
    content = read_ratio(found / "found" / "ratio.yaml").content
    assert content["noise"]["validation_rows_by"] == "re-weighted validation rows"
    assert content["light_model"] == "base"
    assert content["budget"] == {"samples": 6, "trials": 4}
    assert content["data"]["images_trained_on"] == 5
    assert content["token_share"]["mos"] > 0 or content["share"]["mos"] == 0


def test_a_search_that_is_killed_in_the_middle_of_a_trial_goes_on_to_the_same_trials(
    found: Path, tuning: Data, tmp_path: Path
) -> None:
    settings = read_settings(make_search(tmp_path, tuning, general=False, seeds=[0]))
    lines: list[str] = []

    def kill(text: str) -> None:
        """Ctrl-C while the second step of the second trial is told; its first has left a checkpoint."""
        lines.append(text)
        if sum(line.startswith("step 2") for line in lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(replaced(settings, log_every=1), say=silent, log=kill)
    output = tmp_path / "found"
    assert len(read_trials(output)) == 1
    assert list(output.glob("trials/*/checkpoints/checkpoint-1"))
    with open(output / "trials.jsonl", "ab") as stream:
        stream.write(b'{"key": "cut off by the ki')
    lines.clear()
    search(settings, say=silent, log=lines.append)
    assert sum(line.startswith("going on from") for line in lines) == 1
    assert (output / "trials.jsonl").read_bytes() == (found / "found" / "trials.jsonl").read_bytes()
    assert (output / "ratio.yaml").read_bytes() == (found / "found" / "ratio.yaml").read_bytes()


def replaced(settings: SearchSettings, **changes: object) -> SearchSettings:
    """The search with other settings in its run's file."""
    path = Path(settings.run)
    write_yaml(path, yaml.safe_load(path.read_text(encoding="utf-8")) | changes)
    return settings


def test_finished_trials_are_not_run_again(found: Path) -> None:
    told: list[str] = []
    report = search(read_settings(found / "search.yaml"), say=told.append)
    assert report is not None
    assert not [line for line in told if line.startswith("trial ")]


def test_another_search_in_the_same_folder_is_refused(found: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds trials of another search: samples was 6, is 7\. Give what it had"):
        search(read_settings(found / "search.yaml", ["samples=7"]), say=silent)


def test_trials_without_the_record_of_their_search_are_not_taken_for_those_of_another(
    found: Path, tmp_path: Path
) -> None:
    (tmp_path / "trials.jsonl").write_bytes((found / "found" / "trials.jsonl").read_bytes())
    with pytest.raises(ConfigError, match="holds trials, but not of which search .*: give another output"):
        search(read_settings(found / "search.yaml", [f"output={tmp_path}"]), say=silent)


def test_workers_share_the_trials_and_the_last_one_writes_the_ratio(tuning: Data, found: Path, tmp_path: Path) -> None:
    settings = read_settings(make_search(tmp_path, tuning, general=False, seeds=[0]))
    told: list[str] = []
    assert search(settings, worker=(1, 2), say=told.append) is None
    assert told[-1].startswith("2 trials of other workers are not finished")
    assert search(settings, worker=(2, 2), say=silent) is not None
    assert sorted(path.name for path in (tmp_path / "found").glob("trials*.jsonl")) == [
        "trials.1of2.jsonl",
        "trials.2of2.jsonl",
    ]
    assert read_trials(tmp_path / "found") == read_trials(found / "found")


def test_what_cannot_be_searched_is_said_before_the_first_trial(tuning: Data, tmp_path: Path) -> None:
    assert "sources lists mos, quality, the data are mos, quality, general: list each" in refused(
        tuning, tmp_path / "a", sources={"scoring": ["mos"], "quality": ["quality"]}
    )
    assert "validation: no file" in refused(tuning, tmp_path / "b", validation="none.jsonl")
    folder = tmp_path / "c"
    folder.mkdir()
    write_rows(folder / "ratings.jsonl", [row for row in tuning.rows if row.task == "score"])
    settings = read_settings(make_search(folder, tuning, validation="ratings.jsonl"))
    with pytest.raises(ConfigError, match="has 5 ratings and 0 multiple-choice questions: a balance needs 3 ratings"):
        search(settings, say=silent)
    write_rows(folder / "quality.jsonl", [tuning.rows[0], question(0, "1.png"), talk(1, "2.png")])
    with pytest.raises(ConfigError, match="quality holds ratings and conversations: make two files of it, or give"):
        search(read_settings(folder / "search.yaml", ["validation=held.jsonl"]), say=silent)
    assert not (folder / "found" / "trials.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample": 3}, r"unknown setting 'sample' \(did you mean samples\?\); there are run, output"),
        ({"samples": None}, "lacks samples: add them, as in 'samples: 4000'"),
        ({"samples": 0}, "samples is 0: it must be a whole number from 1 up"),
        ({"mode": "both"}, "mode is 'both': give one of paper"),
        ({"mode": "joint"}, "mode: joint was removed: take the line out, and the shares are found in the paper's two"),
        ({"grid": [0, 0.5, 2, 1]}, "grid is .*: it must be a list of four or more different numbers from 0 to 1"),
        ({"seeds": []}, "seeds is .*: it must be a list of whole numbers from 0 up"),
        ({"sources": {"scoring": ["a"]}}, "it must be lists of file names for scoring, quality and"),
        ({"objective": "best"}, "objective is 'best': give one of harmonic"),
        ({"objective": "weighted"}, "objective: weighted was removed: take the line out, and mixtures are compared by"),
        ({"scoring_weight": 0.5}, "scoring_weight was removed with objective: weighted: take the line out"),
        ({"margin": 0.01}, "margin was removed with objective: constrained: take the line out"),
    ],
)
def test_wrong_settings_stop_with_the_cure(tmp_path: Path, changes: dict, message: str) -> None:
    path = write_yaml(tmp_path / "search.yaml", SEARCH | changes)
    with pytest.raises(ConfigError, match=message):
        read_settings(path)


# ---- the ratio in a run ----


def test_a_run_takes_the_shares_of_a_ratio_and_keeps_where_they_come_from(found: Path, tmp_path: Path) -> None:
    path, lines = tmp_path / "ratio.yaml", list[str]()
    content = yaml.safe_load((found / "found" / "ratio.yaml").read_text(encoding="utf-8"))
    ratio = read_ratio(write_yaml(path, content | {"share": {"mos": 0.3, "quality": 0.7}}))
    changes = [f"output={tmp_path / 'out'}", "max_steps=1", "rows_per_epoch=10"]
    settings = as_settings(ratio, found / "light.yaml", changes)
    config = read_config(found / "light.yaml", settings)
    check_fits(ratio, config)
    assert config.shares == ratio.shares
    finetune.run(config, say=lines.append, ratio=ratio.note())
    assert [line.split()[4:6] for line in lines[1:3]] == [["3", "30.0%"], ["7", "70.0%"]]  # the plan says so too
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["shares"] == ratio.shares
    assert record["facts"]["ratio"]["lambda_L"] == ratio.content["lambda_L"]


def test_feedback_aims_at_the_losses_of_the_light_model(found: Path) -> None:
    ratio = read_ratio(found / "found" / "ratio.yaml")
    feedback = ["balance=feedback", f"validation={found / 'held.jsonl'}"]
    config = read_config(found / "light.yaml", as_settings(ratio, found / "light.yaml", feedback))
    assert config.balance_lambda == pytest.approx(ratio.content["lambda_L"])
    by_hand = [*feedback, "balance_lambda=2"]
    config = read_config(found / "light.yaml", as_settings(ratio, found / "light.yaml", by_hand))
    assert config.balance_lambda == 2


def test_a_ratio_that_does_not_fit_is_refused_with_the_cure(found: Path, tmp_path: Path) -> None:
    ratio = read_ratio(found / "found" / "ratio.yaml")
    with pytest.raises(
        ConfigError, match="found with normalize: sample, this run has normalize: token.*or search again"
    ):
        check_fits(ratio, read_config(found / "light.yaml", ["normalize=token"]))
    other = write_yaml(tmp_path / "other.yaml", {"datasets": [{"json_path": "mos.jsonl"}, {"json_path": "new.jsonl"}]})
    with pytest.raises(ConfigError, match="found with level_loss: soft, this run has level_loss: hard"):
        check_fits(ratio, read_config(found / "light.yaml", ["level_loss=hard"]))
    with pytest.raises(
        ConfigError, match="has shares for mos, quality, .*other.yaml has mos, new. Sources are matched by file name"
    ):
        check_fits(ratio, read_config(found / "light.yaml", [f"data={other}"]))
    with pytest.raises(ConfigError, match="shares are given twice"):
        as_settings(ratio, found / "light.yaml", ["shares={mos: 1}"])
    with pytest.raises(ConfigError, match="is no ratio.yaml, or one of an older version: it lacks share, chosen_by"):
        read_ratio(found / "light.yaml")


# ---- verification ----


def test_verification_on_one_seed_is_written_and_says_that_it_shows_nothing(found: Path, tmp_path: Path) -> None:
    path = tmp_path / "ratio.yaml"
    content = yaml.safe_load((found / "found" / "ratio.yaml").read_text(encoding="utf-8"))
    write_yaml(path, content | {"share": {"mos": 0.4, "quality": 0.6}})
    config = read_config(found / "light.yaml")
    settings = read_settings(found / "search.yaml", ["samples=3", f"output={tmp_path / 'check'}"])
    done = run_verify(read_ratio(path), config, settings, say=silent)
    assert done is not None
    assert read_ratio(path).content == done.content
    assert done.content["verified"] is False
    assert done.content["verification"]["mixtures"]["equal"]["verdict"] == "one seed"
    assert [trial.point for trial in read_trials(tmp_path / "check").values()] == [(0.4, 0.6), (0.5, 0.5), (0.22, 0.78)]
    lines = list(verify_lines(done))
    assert "one seed says nothing about noise, give more" in "\n".join(lines)
    assert (
        "is found in 0% of comparisons with --seeds 1, as one seed does not tell the noise: give --seeds 5" in lines[4]
    )


def test_a_ratio_of_an_objective_that_was_removed_is_not_verified_but_can_be_trained_on(
    found: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load((found / "found" / "ratio.yaml").read_text(encoding="utf-8"))
    objective = {"objective": {"name": "weighted", "chance": 0.2, "scoring_weight": 0.9}}
    ratio = read_ratio(write_yaml(tmp_path / "ratio.yaml", content | objective))
    config, settings = read_config(found / "light.yaml"), read_settings(found / "search.yaml")
    check_fits(ratio, config)
    with pytest.raises(
        ConfigError, match="objective: weighted, which was removed: write it anew with qsit train balance"
    ):
        run_verify(ratio, config, settings, say=silent)


def test_a_comparison_tells_what_it_can_find_before_and_after_and_asks_for_seeds(found: Path, tmp_path: Path) -> None:
    """Three seeds of which one is far off cannot find the paper's gain; that is said with the number that could."""
    path = tmp_path / "ratio.yaml"
    content = yaml.safe_load((found / "found" / "ratio.yaml").read_text(encoding="utf-8"))
    metrics = {"equal": {name: {"value": value} for name, value in (("scoring", 0.8), ("accuracy", 0.6))}}
    noise = {"single_trial": {"objective": 0.02}}
    write_yaml(path, content | {"share": {"mos": 0.4, "quality": 0.6}, "metrics": metrics, "noise": noise})
    told = forecast(read_ratio(path), 3)
    assert told.startswith(
        "with the light model's noise, a gain of the paper's size (scoring +0.006, accuracy +2.4%, ha"
    )
    assert "of comparisons with --seeds 3, with --seeds " in told
    write_yaml(path, content | {"metrics": metrics, "noise": {"single_trial": {"objective": 0.0002}}})
    assert forecast(read_ratio(path), 3) is None  # nothing to warn of
    points, figures = {"chosen": (0.4, 0.6), "equal": (0.5, 0.5)}, {"score_loss": 1.0, "interpret_loss": 1.0}
    figures["counts"] = {"score": 5000, "choices": 5000}
    trials = [
        Trial(points[name], seed, figures | {"srcc": 0.8, "plcc": 0.8, "accuracy": value})
        for name, values in (("chosen", (0.61, 0.6, 0.63)), ("equal", (0.6, 0.59, 0.62)))
        for seed, value in enumerate(values)
    ]
    objective = Objective(1 / 3)
    outcome = compare(points, trials, objective)
    assert outcome["equal"]["verdict"] == "within noise"
    noise, gain = float(scatter(trials, objective)[0][2]), paper_gain(objective, 0.8, 0.6)
    power = outlook(gain, noise, 3, outcome["equal"]["rows_error"])
    assert power["power"] < 0.8 and power["seeds_needed"] >= 5
    asked = f"with --seeds {power['seeds_needed']} in 80% or more (finished trials are kept)"
    assert outlook_line(power, 3).endswith(asked)
    assert outlook_line(outlook(gain, noise, 3, rows=0.05), 3).endswith("give more validation rows, or more --samples")


def test_a_trial_with_too_few_ratings_to_compare_is_one_of_soft_labels(tuning: Data, tmp_path: Path) -> None:
    """soft+rank in batches of three: where no mixture is given ratings meet, at 22% none do. A run is refused there; a
    search goes on."""
    settings = read_settings(make_search(tmp_path, tuning, general=False, seeds=[0], samples=12))
    replaced(settings, level_loss="soft+rank", save_every=100)
    told: list[str] = []
    search(settings, say=silent, log=told.append)
    assert len(read_trials(tmp_path / "found")) == 4
    run = read_config(tmp_path / "light.yaml", ["shares={mos: 0.22, quality: 0.78}", "rows_per_epoch=12"])
    with pytest.raises(ConfigError, match="level_loss: soft\\+rank learns from two ratings of one source in a batch"):
        finetune.prepare(run)
    assert sum(line.startswith("soft+rank: ") for line in told) == 2  # at 50% and 100%
