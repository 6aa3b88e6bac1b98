"""qsit train: what it writes, what it says, and its exit status."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder with a table of three ratings and two of the three photos."""
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name)
    lines = ["image,score,spread", "1.png,10,4", "2.png,90,30", "3.png,50,4"]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def table_options(dataset: Path, out: str = "rows.jsonl") -> list[object]:
    return ["train", "convert", "csv", dataset / "mine.csv", "--images", dataset / "photos", "--out", dataset / out,
            "--range", 0, 100, "--mos-column", "score", "--sd-column", "spread"]  # fmt: skip


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_problem_stops_the_conversion_and_nothing_is_written(qsit, dataset: Path) -> None:
    result = qsit(*table_options(dataset))
    assert result.exit_code == 1
    assert "missing image: 1:\n  3.png is not in" in result.stderr
    assert "1 rows are not usable, nothing is written: fix them, or give --skip-bad" in result.stderr
    assert not (dataset / "rows.jsonl").exists()


def test_what_is_wrong_is_left_out_when_told_so(qsit, dataset: Path) -> None:
    result = qsit(*table_options(dataset), "--skip-bad")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "1 rows are left out" in result.stderr
    assert "bad 1, poor 0, fair 0, good 0, excellent 1" in result.stderr
    assert f"image paths are relative to {dataset}" in result.stderr
    rows = rows_of(dataset / "rows.jsonl")
    assert [(row["image"], row["mos"], row["source"]) for row in rows] == [
        ("photos/1.png", 10.0, "mine"),
        ("photos/2.png", 90.0, "mine"),
    ]
    assert rows[0]["level_probs"] == [0.0, 0.0, 0.0, 0.4, 0.6]


def test_a_dmos_is_turned(qsit, dataset: Path) -> None:
    assert qsit(*table_options(dataset), "--skip-bad", "--lower-is-better").exit_code == 0
    assert "excellent." in rows_of(dataset / "rows.jsonl")[0]["messages"][1]["content"][0]["text"]


def test_nothing_is_written_where_no_row_is_left(qsit, dataset: Path) -> None:
    (dataset / "mine.csv").write_text("image,score,spread\n3.png,50,4\n", encoding="utf-8")
    result = qsit(*table_options(dataset), "--skip-bad")
    assert result.exit_code == 1
    assert "no row is left" in result.stderr
    assert not (dataset / "rows.jsonl").exists()


def test_koniq_comes_out_as_published(qsit, data: Path, tmp_path: Path) -> None:
    votes, out = data / "annotations" / "koniq10k_votes.csv", tmp_path / "train.json"
    result = qsit("train", "convert", "koniq", votes, "--images", tmp_path / "koniq", "--unchecked", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert out.read_bytes() == (data / "official" / "train_koniq_qsit.json").read_bytes()
    assert "12 images outside the range that is cut into levels are dropped" in result.stderr
    assert "whether the images are there was not looked at" in result.stderr


def test_what_soft_labels_keep_is_said_and_votes_are_a_choice(qsit, data: Path, tmp_path: Path) -> None:
    votes, out = data / "annotations" / "koniq10k_votes.csv", tmp_path / "train.jsonl"
    command = ["train", "convert", "koniq", votes, "--images", tmp_path / "koniq", "--unchecked", "--out", out]
    result = qsit(*command)
    assert result.exit_code == 0, result.stderr
    assert "soft labels (koniq): mean 0.662, of the ratings 0.662 of the range; error 0.000 of a step" in result.stderr
    assert "qsit:" not in result.stderr  # no warning
    chosen = qsit(*command, "--soft-labels", "votes")
    assert chosen.exit_code == 0
    assert "shares of votes as soft labels, on another ruler than the words (koniq): mean 0.541" in chosen.stderr


@pytest.fixture
def forty(dataset: Path) -> list[object]:
    """A command for 40 ratings of 1 to 5, without a range."""
    lines = (f"{number}.png,{1 + number / 10}" for number in range(40))
    (dataset / "mine.csv").write_text("\n".join(["image,mos", *lines]) + "\n", encoding="utf-8")
    return ["train", "convert", "csv", dataset / "mine.csv", "--images", dataset / "photos", "--unchecked", "--out",
            dataset / "rows.jsonl"]  # fmt: skip


def test_a_range_that_does_not_fit_is_warned_of_in_one_line_and_the_status_stays_0(qsit, forty: list[object]) -> None:
    result = qsit(*forty, "--range", 0, 100)
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("qsit: ")]
    assert "the range 0 to 100 (custom) does not fit these 40 ratings, which go from 1 to 4.9" in line
    assert "(bad 40, poor 0, fair 0, good 0, excellent 0)" in line
    assert "--range LOW HIGH" in line
    assert "qsit:" not in qsit(*forty, "--range", 1, 5).stderr


def test_ratings_outside_the_range_are_refused_with_the_range_they_have(qsit, forty: list[object]) -> None:
    result = qsit(*forty, "--range", 1, 3)
    assert result.exit_code == 1
    assert "the range 1 to 3 (custom) does not fit these 40 ratings, which go from 1 to 4.9: 47.5%" in result.stderr
    assert "MOS out of range: 19" in result.stderr


def test_a_published_dataset_takes_a_range_and_keeps_its_direction(qsit, tmp_path: Path) -> None:
    (tmp_path / "csiq.csv").write_text(
        "image,dst_type,dst_lev,dmos\n1600,blur,1,0.02\n1600,blur,4,0.38\n1600,blur,5,0.7\n", encoding="utf-8"
    )
    command = ["train", "convert", "csiq", tmp_path / "csiq.csv", "--images", tmp_path, "--unchecked", "--partial",
               "--range", 0, 0.4, "--out", tmp_path / "rows.jsonl"]  # fmt: skip
    refused = qsit(*command)
    assert refused.exit_code == 1
    assert "0.7 is not on the scale custom (0 to 0.4)" in refused.stderr
    assert qsit(*command, "--skip-bad").exit_code == 0
    rows = rows_of(tmp_path / "rows.jsonl")
    assert [row["messages"][1]["content"][0]["text"].split()[-1] for row in rows] == ["excellent.", "bad."]
    again = ["train", "convert", "jsonl", tmp_path / "rows.jsonl", "--images", tmp_path, "--unchecked", "--out",
             tmp_path / "again.jsonl"]  # fmt: skip
    assert "the text says bad, a MOS of 0.38 is good on the scale csiq" in qsit(*again).stderr
    assert qsit(*again, "--range", 0, 0.4, "--lower-is-better").exit_code == 0


def test_absolute_paths_in_a_table_become_relative(qsit, dataset: Path) -> None:
    lines = ["image,mos", f"{dataset / 'photos' / '1.png'},10", f"{dataset / 'photos' / '2.png'},90"]
    (dataset / "mine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    convert_for_run(qsit, dataset)
    assert [row["image"] for row in rows_of(dataset / "rows.jsonl")] == ["photos/1.png", "photos/2.png"]
    result = qsit("train", "convert", "csv", dataset / "mine.csv", "--images", dataset / "photos", "--root",
                  dataset / "photos", "--range", 0, 100, "--out", dataset / "rows.jsonl")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    (dataset / "empty").mkdir()
    result = qsit("train", "convert", "csv", dataset / "mine.csv", "--images", dataset / "empty", "--root",
                  dataset / "empty", "--range", 0, 100, "--out", dataset / "rows.jsonl")  # fmt: skip
    assert result.exit_code == 1
    assert "image outside the root: 2:" in result.stderr
    assert "give a folder that holds all images as --root" in result.stderr


def test_conversations_keep_the_paths_of_their_file_unless_a_root_is_given(qsit, dataset: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nWhy?"}, {"from": "gpt", "value": "So."}]
    file, out = dataset / "talk.json", dataset / "talk.jsonl"
    file.write_text(json.dumps([{"id": "1", "image": "1.png", "conversations": turns}]), encoding="utf-8")
    command = ["train", "convert", "llava", file, "--images", dataset / "photos", "--out", out]
    assert qsit(*command).exit_code == 0
    assert rows_of(out)[0]["image"] == "1.png"
    assert qsit(*command, "--root", dataset).exit_code == 0
    assert rows_of(out)[0]["image"] == "photos/1.png"


def assert_refused(qsit, table: Path, arguments: list[str], message: str) -> None:
    """``qsit train convert NAME TABLE ...`` (``arguments``: the name, then options) is refused in one line."""
    name, *rest = arguments
    command = ["train", "convert", name, table, "--images", table.parent / "photos"]
    result = qsit(*command, "--out", table.parent / "rows.jsonl", *rest)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["konik"], "nothing is called 'konik' here: give one of koniq, spaq"),
        (["koniq", "--mos-column", "score"], "the form of koniq is known"),
        (["csiq", "--lower-is-better"], "the direction of csiq is known; --lower-is-better is for csv"),
        (["qsit", "--lower-is-better"], "--lower-is-better is for csv, and with --range for qsit"),
        (["llava", "--range", "0", "1"], "llava has no ratings: leave --range out"),
        (["koniq", "--soft-labels", "mos"], "--soft-labels must be one of rating, votes, not 'mos'"),
        (["qsit", "--soft-labels", "votes"], "qsit holds no votes: leave --soft-labels out"),
        (["llava", "--split", "all"], "leave --split and --partial out"),
        (["csv"], "needs the range of its ratings"),
        (["csv", "--scale", "live", "--lower-is-better"], "--scale has its range and direction"),
        (["csv", "--scale", "lives"], "no level scale 'lives'"),
        (["csv", "--range", "5", "1"], "low before high"),
        (["csv", "--range", "0", "1", "--profile", "official"], "ends in a space"),
        (["csv", "--range", "0", "1"], "has no column 'mos'"),
        (["koniq", "--out", "rows.txt"], "must end in .jsonl"),
        (["koniq", "--root", "elsewhere"], "is not inside the root"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(qsit, dataset: Path, arguments: list[str], message: str) -> None:
    assert_refused(qsit, dataset / "mine.csv", arguments, message)


def test_a_plan_is_printed_and_saved(qsit, dataset: Path) -> None:
    assert qsit(*table_options(dataset), "--skip-bad").exit_code == 0
    mixture = dataset / "mix.yaml"
    mixture.write_text("datasets:\n- json_path: rows.jsonl\n  sampling_strategy: random:50%\n", encoding="utf-8")
    result = qsit("train", "plan", mixture)
    assert result.exit_code == 0, result.stderr
    assert "rows" in result.stdout
    assert "random:50%" in result.stdout
    plan = json.loads((dataset / "mix.plan.json").read_text(encoding="utf-8"))
    assert [(source["rows"], source["chosen"], source["ratings"]) for source in plan["sources"]] == [(2, 1, 1)]
    again = qsit("train", "plan", mixture, "--out", dataset / "again.json", "--rows", 5, "--world-size", 2)
    assert again.exit_code == 0, again.stderr
    assert json.loads((dataset / "again.json").read_text(encoding="utf-8"))["rows_per_epoch"] == 6


def test_a_file_of_rows_has_a_plan_too(qsit, dataset: Path) -> None:
    assert qsit(*table_options(dataset), "--skip-bad").exit_code == 0
    result = qsit("train", "plan", dataset / "rows.jsonl")
    assert result.exit_code == 0, result.stderr
    plan = json.loads((dataset / "rows.plan.json").read_text(encoding="utf-8"))
    assert [(source["rows"], source["chosen"]) for source in plan["sources"]] == [(2, 2)]


def test_a_plan_never_overwrites_what_it_reads(qsit, dataset: Path) -> None:
    assert qsit(*table_options(dataset), "--skip-bad").exit_code == 0
    mixture = dataset / "mix.yaml"
    mixture.write_text("datasets:\n- json_path: rows.jsonl\n", encoding="utf-8")
    result = qsit("train", "plan", mixture, "--out", dataset / "rows.jsonl")
    assert result.exit_code == 2
    assert "is one of the inputs" in result.stderr
    assert len(rows_of(dataset / "rows.jsonl")) == 2


def test_a_missing_file_of_a_mixture_is_named_with_the_cure(qsit, dataset: Path) -> None:
    mixture = dataset / "mix.yaml"
    mixture.write_text("datasets:\n- json_path: /jsons/none.json\n", encoding="utf-8")
    result = qsit("train", "plan", mixture)
    assert result.exit_code == 2
    assert "mix.yaml, dataset 1: no file" in result.stderr
    assert "--folder says where" in result.stderr


def test_without_pyyaml_the_cure_is_one_line(qsit, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (dataset / "mix.yaml").write_text("datasets: []", encoding="utf-8")
    result = qsit("train", "plan", dataset / "mix.yaml")
    assert result.exit_code == 2
    assert result.stderr == 'qsit: pyyaml is not installed: pip install "qsit-plugin[train]"\n'


@pytest.fixture
def settings(tiny_folder: Path, dataset: Path) -> Path:
    """A run on two rated photos, ready to go."""
    yaml = pytest.importorskip("yaml", reason="settings are YAML")
    (dataset / "mine.csv").write_text("image,mos\n1.png,10\n2.png,90\n", encoding="utf-8")
    run = {"base": str(tiny_folder), "data": "rows.jsonl", "images": ".", "output": "out", "method": "full"}
    run |= {"max_steps": 2, "workers": 0, "device": "cpu", "learning_rate": 0.001, "log_every": 1}
    (dataset / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    return dataset / "run.yaml"


def convert_for_run(qsit, dataset: Path) -> None:
    table = ["csv", dataset / "mine.csv", "--images", dataset / "photos", "--range", 0, 100]
    assert qsit("train", "convert", *table, "--out", dataset / "rows.jsonl").exit_code == 0


def test_a_table_of_ones_own_becomes_a_model_that_scores(qsit, settings: Path) -> None:
    from tests.training.runs import require_training

    require_training()
    convert_for_run(qsit, settings.parent)
    result = qsit("train", "run", settings, "epochs=2", "normalize=task")
    assert result.exit_code == 0, result.stderr
    folder = settings.parent / "out" / "model"
    assert result.stdout == f"{folder}\n"
    assert "«The quality of the image is bad.<|im_end|>»" in result.stderr
    assert "memory probe: 1 rows" in result.stderr
    assert "step 2/2  loss" in result.stderr
    assert qsit("score", settings.parent / "photos" / "1.png", "--model", folder).exit_code == 0
    again = qsit("train", "run", settings)
    assert again.exit_code == 2
    assert "holds a run already: go on with --resume" in again.stderr


def test_what_stops_a_run_is_said_with_its_cure(qsit, settings: Path) -> None:
    from tests.training.runs import require_training

    missing = qsit("train", "run", settings.parent / "absent.yaml")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "no such config file; qsit train configs FOLDER writes examples" in missing.stderr
    unknown = qsit("train", "run", settings, "epoch=2")
    assert unknown.exit_code == 2
    assert "unknown setting 'epoch' (did you mean epochs?)" in unknown.stderr
    require_training()
    convert_for_run(qsit, settings.parent)
    (settings.parent / "photos" / "2.png").unlink()
    lost = qsit("train", "run", settings)
    assert lost.exit_code == 2
    assert "missing image: 1:\n  2.png->90.0: photos/2.png is not in" in lost.stderr
    assert "qsit: 1 of 2 rows cannot be trained on, so nothing is: fix them" in lost.stderr
    assert not (settings.parent / "out").exists()


def test_an_old_transformers_is_named_with_what_to_install(qsit, settings: Path, monkeypatch) -> None:
    import importlib.metadata

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "5.17.0" if name == "transformers" else real(name))
    result = qsit("train", "run", settings)
    assert result.exit_code == 2
    assert "fine-tuning needs transformers 5.18 or later, this is 5.17.0" in result.stderr
    assert 'run pip install "qsit-plugin[train]"' in result.stderr


def test_example_settings_are_written_once_and_not_over_others(qsit, tmp_path: Path) -> None:
    result = qsit("train", "configs", tmp_path / "new")
    assert result.exit_code == 0, result.stderr
    assert [Path(line).name for line in result.stdout.splitlines()] == [
        "balance.yaml",
        "ddp.yaml",
        "fsdp.yaml",
        "full.yaml",
        "lora.yaml",
    ]
    assert "learning_rate: 1e-4" in (tmp_path / "new" / "lora.yaml").read_text(encoding="utf-8")
    again = qsit("train", "configs", tmp_path / "new")
    assert again.exit_code == 2
    assert "would be overwritten: give another folder" in again.stderr


def test_scenes_are_held_out_of_a_table_with_groups(qsit, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("image,mos,photo\n" + "".join(f"{n}.jpg,{1 + n % 5},{n // 4}\n" for n in range(40)))
    options = ["--images", tmp_path, "--unchecked", "--range", 1, 5, "--group-column", "photo", "--holdout", 0.2]
    for split, count in (("training", 32), ("validation", 8)):
        out = tmp_path / f"{split}.jsonl"
        result = qsit("train", "convert", "csv", path, *options, "--split", split, "--out", out)
        assert result.exit_code == 0, result.stderr
        assert len(rows_of(out)) == count
    photos = [{int(Path(row["image"]).stem) // 4 for row in rows_of(tmp_path / f"{split}.jsonl")}
              for split in ("training", "validation")]  # fmt: skip
    assert photos[0] & photos[1] == set()


def test_near_twins_that_are_left_out_are_counted(qsit, tmp_path: Path) -> None:
    path = tmp_path / "Train (Images and MOS).csv"
    path.write_text("Image Name,MOS,,\nss01 (153).jpg,0.2,,\nss03 (1).jpg,0.9,,\n")
    result = qsit(
        "train", "convert", "biq2021", path, "--images", tmp_path, "--unchecked", "--partial", "--without-twins",
        "--out", tmp_path / "rows.jsonl",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "1 images with a near twin in another split are left out" in result.stderr
    assert [row["mos"] for row in rows_of(tmp_path / "rows.jsonl")] == [0.9]
    assert "bad 0, poor 0, fair 0, good 0, excellent 1" in result.stderr


def test_conversations_have_nothing_to_hold_out(qsit, tmp_path: Path) -> None:
    result = qsit("train", "convert", "llava", tmp_path / "x.json", "--images", tmp_path, "--holdout", 0.1,
                  "--out", tmp_path / "rows.jsonl")  # fmt: skip
    assert result.exit_code == 2
    assert "llava has no splits: leave --holdout and --without-twins out" in result.stderr
