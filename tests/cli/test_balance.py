"""qsit train balance: what it prints, what it writes, and its exit status."""

import json
from pathlib import Path

import pytest
import yaml

from tests.training.balances import make_search, write_yaml
from tests.training.runs import make_data, require_training

require_training()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a search of two groups, before it is run."""
    folder = tmp_path_factory.mktemp("balance")
    (folder / "data").mkdir()
    return make_search(folder, make_data(folder / "data"), general=False, seeds=[0], samples=3)


def test_search_report_and_run_go_hand_in_hand(qsit, prepared: Path) -> None:
    result = qsit("train", "balance", "search", prepared)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("4 trials of 3 rows; base; validated on 5 ratings and 1 choices (chance 33.3%)")
    assert len(result.stdout.splitlines()) <= 10
    assert "trial 4 of 4: scoring 100%, quality 0%, seed 0: srcc" in result.stderr
    assert "written: " in result.stderr
    again = qsit("train", "balance", "report", prepared.parent / "found")
    assert again.stdout == result.stdout
    ratio = prepared.parent / "found" / "ratio.yaml"
    run = qsit("train", "run", prepared.parent / "light.yaml", "max_steps=1", "--mixture", ratio)
    assert run.exit_code == 0, run.stderr
    shares = yaml.safe_load(ratio.read_text(encoding="utf-8"))["share"]
    record = json.loads((prepared.parent / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["shares"] == shares
    assert f"{ratio}: " in run.stderr.split("step 1/")[0]  # how the shares were chosen is said before training
    refused = qsit("train", "run", prepared.parent / "light.yaml", "normalize=task", "--mixture", ratio)
    assert refused.exit_code == 2
    assert "was found with normalize: sample, this run has normalize: task" in refused.stderr


def test_a_run_on_a_flat_search_says_so_before_it_trains(qsit, prepared: Path, tmp_path: Path) -> None:
    content = {
        **{"share": {"mos": 0.22, "quality": 0.78}, "groups": {"scoring": ["mos"], "quality": ["quality"]}},
        **{"flat": True, "chosen_by": "published", "objective": {"name": "harmonic"}, "normalize": "sample"},
        **{"lambda_L": None, "metrics": {}, "verified": False},
    }
    path = write_yaml(tmp_path / "ratio.yaml", content)
    output = f"output={tmp_path / 'out'}"
    result = qsit("train", "run", prepared.parent / "light.yaml", "max_steps=1", output, "--mixture", path)
    assert result.exit_code == 0, result.stderr
    before, _, _ = result.stderr.partition("step 1/")
    told = "mos 22%, quality 78%; the published mixture: the search could not distinguish any mixture from another"
    assert told in before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "none.yaml"], "none.yaml: no such file"),
        (["search", "SETTINGS", "sample=3"], "unknown setting 'sample' (did you mean samples?)"),
        (["search", "SETTINGS", "samples"], "'samples' is no setting: write NAME=VALUE"),
        (["search", "SETTINGS", "--worker", "2"], "--worker 2: write it as 1/4, 2/4, 3/4 and 4/4"),
        (["search", "SETTINGS", "--worker", "3/2"], "--worker 3/2: write it as 1/4"),
        (
            ["report", "found", "objective=weighted"],
            "objective=weighted: settings of a report were removed with the obj",
        ),
        (["report", "nowhere"], "nowhere holds no search: give the output folder of qsit train balance search"),
        (
            ["verify", "SETTINGS", "LIGHT", "--validation", "v.jsonl", "--out", "o"],
            "is no ratio.yaml, or one of an older version: it lacks share",
        ),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(qsit, prepared: Path, arguments: list, message: str) -> None:
    places = {"SETTINGS": prepared, "LIGHT": prepared.parent / "light.yaml"}
    result = qsit("train", "balance", *(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_torchrun_is_refused_with_the_way_that_works(qsit, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = qsit("train", "balance", "search", prepared, "output=elsewhere")
    assert result.exit_code == 2
    assert "start one process a device, with --worker 1/4 to --worker 4/4" in result.stderr
